"""Sparse convolutions. `detector.sparse.weights` describes the layout of their weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from detector.ops.occupancy import KernelMap, Occupancy
from detector.ops.occupancy.shapes import as_triple
from detector.sparse.engines import current_engine
from detector.sparse.modules import SparseModule
from detector.sparse.tensor import SparseTensor

Size = int | Sequence[int]
"""A number for all axes, or three (z, y, x)."""


class _Convolution(SparseModule):
    """Parameters `weight` (kz, ky, kx, in, out) and `bias` (out,), initialised as dense
    convolutions are: uniform within 1 / sqrt(fan in)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Size, bias: bool):
        super().__init__()
        if in_channels < 1 or out_channels < 1:
            raise ValueError(
                f"channels must be at least 1, got {in_channels} in and {out_channels} out"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = as_triple(kernel_size, "kernel_size", 1)
        self.weight = nn.Parameter(torch.empty(*self.kernel_size, in_channels, out_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = 1 / math.sqrt(self.in_channels * math.prod(self.kernel_size))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        bias = "" if self.bias is None else ", bias=True"
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}{bias}"


class SubMConv3d(_Convolution):
    """Submanifold convolution: the output lives on the voxels of the input.

    Graham and van der Maaten, "Submanifold Sparse Convolutional Networks", 2017.

    Args:
        kernel_size: a number or (z, y, x). An even size k reaches k // 2 cells down and
            k // 2 - 1 up.
        dilation: cells between taps.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        dilation: Size = 1,
        bias: bool = False,
    ):
        super().__init__(in_channels, out_channels, kernel_size, bias)
        self.dilation = as_triple(dilation, "dilation", 1)

    def sites(self, voxels: Occupancy) -> tuple[Occupancy, KernelMap]:
        """The voxels of the result, and which of the given ones they see."""
        return voxels, voxels.neighbours(self.kernel_size, self.dilation)

    def forward(self, x: SparseTensor) -> SparseTensor:
        return current_engine().submanifold(x, self.weight, self.bias, self.dilation)


class SparseConv3d(_Convolution):
    """Strided convolution: the output lives on every cell whose window holds a voxel.

    Output cell o sees input cells o * stride - padding + offset * dilation. Sizes are numbers or
    (z, y, x), such as kernel (3, 1, 1) with stride (2, 1, 1).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        bias: bool = False,
        *,
        dilation: Size = 1,
    ):
        super().__init__(in_channels, out_channels, kernel_size, bias)
        self.stride = as_triple(stride, "stride", 1)
        self.padding = as_triple(padding, "padding", 0)
        self.dilation = as_triple(dilation, "dilation", 1)

    def sites(self, voxels: Occupancy) -> tuple[Occupancy, KernelMap]:
        """The voxels of the result, and which of the given ones they see."""
        return voxels.downsample(self.kernel_size, self.stride, self.padding, self.dilation)

    def forward(self, x: SparseTensor) -> SparseTensor:
        return current_engine().strided(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, stride={self.stride}, padding={self.padding}"


class SparseInverseConv3d(_Convolution):
    """Undoes a strided convolution's change of voxels: what it took from where, given back there.

    `forward(x, like)`: `like` is the tensor before the `SparseConv3d` of the same kernel size
    that made x's voxels; the output lives on its voxels. Stride and padding follow from it.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, bias: bool = False
    ):
        super().__init__(in_channels, out_channels, kernel_size, bias)

    def forward(self, x: SparseTensor, like: SparseTensor) -> SparseTensor:
        return current_engine().inverse(x, like, self.weight, self.bias)
