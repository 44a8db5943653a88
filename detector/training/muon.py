"""Muon: momentum whose matrices are made orthogonal, so that all their directions learn alike.

Jordan et al.: "Muon: An optimizer for hidden layers in neural networks", 2024,
https://kellerjordan.github.io/posts/muon/. `torch.optim.Muon`, of newer versions, takes matrices
alone; this one takes a detector's weights as they are.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

STEPS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the polynomial that takes singular values between 0 and 1 near 1 in `STEPS` steps: most to
between 0.7 and 1.2."""
FEWEST = 8
SPARSE = 5
"""Dimensions of a sparse convolution's weight, (kz, ky, kx, in, out)."""


class Muon(torch.optim.Optimizer):
    """Muon for the weights of hidden layers, AdamW for the others.

    A convolution's weight counts as a matrix with a row for each output channel. AdamW's are
    vectors, and matrices of fewer than eight rows or columns, as of layers that read results out.

    Args:
        params: parameters or groups of them.
        lr: rate of AdamW.
        matrix_rate: Muon's rate as a multiple of `lr`.
        betas: the first is the momentum of both, the second AdamW's alone.
        weight_decay: decoupled, for both.
    """

    def __init__(
        self, params: Iterable, lr: float = 0.003, matrix_rate: float = 5.0,
        betas: tuple[float, float] = (0.95, 0.99), weight_decay: float = 0.01, eps: float = 1e-8,
    ):  # fmt: skip
        super().__init__(
            params, dict(lr=lr, matrix_rate=matrix_rate, betas=betas, weight_decay=weight_decay,
                         eps=eps)
        )  # fmt: skip

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            hidden = [p for p in parameters if p.ndim > 1 and min(sides(p)) >= FEWEST]
            self._muon(hidden, group)
            chosen = set(hidden)
            self._adamw([p for p in parameters if p not in chosen], group)

    def _muon(self, parameters: list[Tensor], group: dict) -> None:
        if not parameters:
            return
        momentum, rate = group["betas"][0], group["lr"] * group["matrix_rate"]
        (momenta,) = self._kept(parameters, "momentum")
        gradients = [p.grad for p in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, momenta, momentum)
        torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
        # On a GPU those of one shape are made orthogonal together: launches are what takes time.
        alike: dict[object, list[tuple[Tensor, Tensor]]] = {}
        for place, (parameter, gradient) in enumerate(zip(parameters, ahead, strict=True)):
            sparse = gradient.ndim == SPARSE
            matrix = gradient.flatten(0, -2) if sparse else gradient.flatten(1)
            kind = matrix.shape if matrix.is_cuda else place
            alike.setdefault(kind, []).append((parameter, matrix))
        for members in alike.values():
            rows, columns = sides(members[0][0])
            scale = rate * max(1, rows / columns) ** 0.5
            matrices = [matrix for _, matrix in members]
            together = len(matrices) > 1
            updates = orthogonal(torch.stack(matrices)) if together else [orthogonal(*matrices)]
            for (parameter, _), update in zip(members, updates, strict=True):
                parameter.sub_(update.view(parameter.shape).to(parameter.dtype), alpha=scale)

    def _adamw(self, parameters: list[Tensor], group: dict) -> None:
        if not parameters:
            return
        first, second = group["betas"]
        means, mean_squares = self._kept(parameters, "mean", "mean_square")
        gradients = [p.grad for p in parameters]
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_lerp_(mean_squares, torch._foreach_mul(gradients, gradients), 1 - second)
        steps = []
        for parameter in parameters:
            state = self.state[parameter]
            state["step"] = state.get("step", 0) + 1
            steps.append(state["step"])
        spreads = torch._foreach_div(mean_squares, [1 - second**n for n in steps])
        torch._foreach_sqrt_(spreads)
        torch._foreach_add_(spreads, group["eps"])
        updates = torch._foreach_div(means, [1 - first**n for n in steps])
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_addcdiv_(parameters, updates, spreads, value=-group["lr"])

    def _kept(self, parameters: list[Tensor], *names: str) -> list[list[Tensor]]:
        """What is kept of each parameter under each name, zero at first."""
        for parameter in parameters:
            for name in names:
                if name not in self.state[parameter]:
                    self.state[parameter][name] = torch.zeros_like(parameter)
        return [[self.state[p][name] for p in parameters] for name in names]


def sides(weight: Tensor) -> tuple[int, int]:
    """Rows and columns of a weight as a matrix: rows are output channels (of a transposed
    convolution input channels), which a sparse convolution's weight has last."""
    rows = weight.shape[-1 if weight.ndim == SPARSE else 0]
    return rows, weight.numel() // rows


def orthogonal(matrices: Float[Tensor, "*N R C"]) -> Float[Tensor, "*N R C"]:
    """Nearly the orthogonal matrices nearest to these, by a Newton-Schulz iteration."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).float()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x
