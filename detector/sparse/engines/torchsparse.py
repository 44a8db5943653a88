"""TorchSparse++ 2.1 in place of our own products and maps; its limits are errors that say so.

Meant to check ours and to fall back on, not for speed. It runs on GPUs alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torchsparse
from torch import Tensor
from torchsparse.nn import functional

from detector.ops.occupancy import Occupancy
from detector.sparse.engines import native
from detector.sparse.tensor import SparseTensor

# The default reserves twice the input's voxels, too few below isolated points.
torchsparse.backends.hash_rsv_ratio = 8


class Engine(native.Engine):
    """See `detector.sparse.engines.Engine`. Convolutions at given sites and inverse ones stay
    native."""

    name = "torchsparse"

    def submanifold(
        self, x: SparseTensor, weight: Tensor, bias: Tensor | None, dilation: Sequence[int]
    ) -> SparseTensor:
        _check(f"submanifold convolution {_describe(weight)}", x, weight, dilation)
        if any(size % 2 == 0 for size in weight.shape[:3]):
            raise ValueError(
                f"submanifold convolution {_describe(weight)}: TorchSparse takes odd sizes alone; "
                f"use the engine 'native'"
            )
        padding = tuple(size // 2 for size in weight.shape[:3])
        return x.replace(_convolved(x, x.occupancy, weight, bias, (1, 1, 1), padding))

    def strided(
        self, x: SparseTensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int],
        padding: Sequence[int], dilation: Sequence[int],
    ) -> SparseTensor:  # fmt: skip
        name = f"strided convolution {_describe(weight)}"
        _check(name, x, weight, dilation)
        if any(size % 2 and step == 1 for size, step in zip(weight.shape, stride, strict=False)):
            if tuple(stride) == (1, 1, 1) or any(
                size > 1 and step == 1 for size, step in zip(weight.shape, stride, strict=False)
            ):
                raise ValueError(
                    f"{name} with stride {tuple(stride)}: TorchSparse treats stride 1 as "
                    f"submanifold; use the engine 'native'"
                )
        occupancy, _ = x.occupancy.downsample(weight.shape[:3], stride, padding, dilation)
        features = _convolved(x, occupancy, weight, bias, tuple(stride), tuple(padding))
        return SparseTensor.from_occupancy(features, occupancy)


def _describe(weight: Tensor) -> str:
    return f"of {weight.shape[3]} to {weight.shape[4]} channels, kernel {tuple(weight.shape[:3])}"


def _check(name: str, x: SparseTensor, weight: Tensor, dilation: Sequence[int]) -> None:
    if tuple(dilation) != (1, 1, 1):
        raise ValueError(
            f"{name}: TorchSparse has no dilation, got {tuple(dilation)}; use the engine 'native'"
        )
    if not x.features.is_cuda:
        raise ValueError(f"{name}: TorchSparse runs on GPUs alone; use the engine 'native'")


def _convolved(
    x: SparseTensor, sites: Occupancy, weight: Tensor, bias: Tensor | None, stride, padding
) -> Tensor:
    given = torchsparse.SparseTensor(
        x.features, x.coordinates, spatial_range=(x.batch_size, *x.spatial_shape)
    )
    size = tuple(weight.shape[:3])
    if weight[..., 0, 0].numel() == 1:
        flat = weight.flatten(0, 3)
    else:
        # It numbers the offsets of odd kernels with x outermost, unless they are a single column.
        odd = all(k % 2 for k in size) and size.count(1) < 2
        flat = (weight.permute(2, 1, 0, 3, 4) if odd else weight).flatten(0, 2)
    out = functional.conv3d(
        given, weight=flat.contiguous(), kernel_size=size, bias=None, stride=stride,
        padding=padding, dilation=1, training=torch.is_grad_enabled(),
    )  # fmt: skip
    place = sites.rows(out.coords.int()).long()
    rows = torch.zeros_like(out.feats).index_copy(0, place, out.feats)
    return rows if bias is None else rows + bias.to(rows.dtype)
