"""How the kernels of `norm.cu` are started."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import Tensor, nn

from detector.ops.cuda_runtime import Kernel, Memory

SOURCE = Path(__file__).with_name("norm.cu")
CHANNELS = (8, 16, 32, 64, 128, 256)
THREADS = 256
PIECE = 8  # channels of a thread
MOST_BLOCKS = 264
MOST_SUMS = 16384
"""Of all blocks and channels; every block of the second launch adds them up."""


def norm_fits(norm: nn.BatchNorm1d) -> bool:
    """Training, with parameters and an exponential average of the statistics, in float32."""
    return (
        norm.training and norm.affine and norm.track_running_stats and norm.momentum is not None
        and norm.weight.dtype == torch.float32
    )  # fmt: skip


@functools.cache
def norm_kernels(channels: int, dtype: torch.dtype, relu: bool, residual: bool) -> NormKernels:
    return NormKernels(channels, dtype, relu, residual)


class NormKernels:
    """Of one width, dtype and what follows the norm."""

    def __init__(self, channels: int, dtype: torch.dtype, relu: bool, residual: bool):
        defines = dict(
            CHANNELS=channels, BF16=int(dtype == torch.bfloat16), RELU=int(relu),
            RESIDUAL=int(residual),
        )  # fmt: skip
        self.channels, self.relu, self.residual = channels, relu, residual
        self._together = THREADS * PIECE // channels
        self._sum_rows = Kernel(SOURCE, "sum_rows", "PiPP", defines)
        self._normalize = Kernel(SOURCE, "normalize", "PPiiPPPffPPPPPP", defines)
        self._normalize_again = Kernel(SOURCE, "normalize_again", "PiPPP", defines)
        self._sum_gradients = Kernel(SOURCE, "sum_gradients", "PPPiPPP", defines)
        self._input_gradient = Kernel(SOURCE, "input_gradient", "PPPPiiPPPPPP", defines)

    def _blocks(self, rows: int) -> tuple[int, int]:
        """Of the first and the second launch."""
        turns = -(-rows // self._together)
        most = min(MOST_BLOCKS, MOST_SUMS // (2 * self.channels))
        return min(most, -(-turns // 4)), min(2 * MOST_BLOCKS, -(-turns // 4))

    def forward(
        self, x: Tensor, norm: nn.BatchNorm1d, residual: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The result and the statistics (4, C), for `backward`; the norm's running ones move
        along."""
        statistics = torch.empty(4, self.channels, device=x.device)
        partial = torch.empty(self.partial_sums(len(x)), device=x.device)
        y = torch.empty_like(x)
        self.start_forward(
            x, len(x), norm, residual, partial, statistics, y, device=x.get_device()
        )
        return y, statistics

    def backward(
        self, gradient: Tensor, x: Tensor, y: Tensor, weight: Tensor, statistics: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Of x, of the residual, and (2, C) of weight and bias."""
        parameters = torch.empty(2, self.channels, device=x.device)
        partial = torch.empty(self.partial_sums(len(x)), device=x.device)
        x_gradient = torch.empty_like(x)
        residual_gradient = torch.empty_like(x) if self.residual else None
        self.start_backward(
            gradient, x, y, len(x), weight, statistics, partial, parameters, residual_gradient,
            x_gradient, device=x.get_device(),
        )  # fmt: skip
        return x_gradient, residual_gradient, parameters

    def partial_sums(self, rows: int) -> int:
        """How many float32 numbers `partial` holds."""
        return self._blocks(rows)[0] * 2 * self.channels

    def start_forward(
        self, x: Memory, rows: int, norm: nn.BatchNorm1d, residual: Memory, partial: Memory,
        statistics: Memory, y: Memory, *, device: int, count: Memory = None,
    ) -> None:  # fmt: skip
        """`forward` into memory that is given; of `rows`, the first `count` hold anything."""
        parts, blocks = self._blocks(rows)
        self._sum_rows((parts,), THREADS, x, rows, count, partial, device=device)
        self._normalize(
            (blocks,), THREADS, x, partial, parts, rows, count, norm.weight, norm.bias,
            norm.eps, norm.momentum, norm.running_mean, norm.running_var,
            norm.num_batches_tracked, residual, statistics, y, device=device,
        )  # fmt: skip

    def start_again(
        self, x: Memory, rows: int, statistics: Memory, y: Memory, *, device: int,
        count: Memory = None,
    ) -> None:  # fmt: skip
        """The result of `start_forward` once more; without a residual."""
        self._normalize_again(
            (self._blocks(rows)[1],), THREADS, x, rows, count, statistics, y, device=device
        )

    def start_backward(
        self, gradient: Memory, x: Memory, y: Memory, rows: int, weight: Tensor,
        statistics: Memory, partial: Memory, parameters: Memory, residual_gradient: Memory,
        x_gradient: Memory, *, device: int, count: Memory = None,
    ) -> None:  # fmt: skip
        """`backward` into memory that is given; `x_gradient` may be x's own, `residual_gradient`
        that of `gradient`."""
        parts, blocks = self._blocks(rows)
        self._sum_gradients(
            (parts,), THREADS, gradient, x, y, rows, count, statistics, partial, device=device
        )
        self._input_gradient(
            (blocks,), THREADS, gradient, x, y, partial, parts, rows, count, weight,
            statistics, parameters, residual_gradient, x_gradient, device=device,
        )  # fmt: skip
