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
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                hidden = parameter.ndim > 1 and min(sides(parameter)) >= FEWEST
                update = self._muon if hidden else self._adamw
                update(parameter, self.state[parameter], group)

    @staticmethod
    def _muon(parameter: Tensor, state: dict, group: dict) -> None:
        momentum, rate = group["betas"][0], group["lr"] * group["matrix_rate"]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - momentum)
        ahead = parameter.grad.lerp(state["momentum"], momentum)
        matrix = ahead.flatten(0, -2) if ahead.ndim == SPARSE else ahead.flatten(1)
        rows, columns = sides(parameter)
        update = orthogonal(matrix).view(parameter.shape).to(parameter.dtype)
        parameter.mul_(1 - rate * group["weight_decay"])
        parameter.sub_(update, alpha=rate * max(1, rows / columns) ** 0.5)

    @staticmethod
    def _adamw(parameter: Tensor, state: dict, group: dict) -> None:
        first, second = group["betas"]
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(parameter)
            state["mean_square"] = torch.zeros_like(parameter)
        state["step"] += 1
        state["mean"].lerp_(parameter.grad, 1 - first)
        state["mean_square"].lerp_(parameter.grad.square(), 1 - second)
        mean = state["mean"] / (1 - first ** state["step"])
        spread = (state["mean_square"] / (1 - second ** state["step"])).sqrt()
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.addcdiv_(mean, spread + group["eps"], value=-group["lr"])


def sides(weight: Tensor) -> tuple[int, int]:
    """Rows and columns of a weight as a matrix: rows are output channels (of a transposed
    convolution input channels), which a sparse convolution's weight has last."""
    rows = weight.shape[-1 if weight.ndim == SPARSE else 0]
    return rows, weight.numel() // rows


def orthogonal(matrix: Float[Tensor, "R C"]) -> Float[Tensor, "R C"]:
    """Nearly the orthogonal matrix nearest to this one, by a Newton-Schulz iteration."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).float()
    x = x / (x.norm() + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x
