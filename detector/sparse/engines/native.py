"""Our own engine: `detector.ops.sparse_conv` over the maps of `detector.ops.occupancy`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from detector.ops.occupancy import Occupancy
from detector.ops.sparse_conv import sparse_conv
from detector.sparse.tensor import SparseTensor


class Engine:
    """See `detector.sparse.engines.Engine`."""

    name = "native"

    def submanifold(
        self, x: SparseTensor, weight: Tensor, bias: Tensor | None, dilation: Sequence[int]
    ) -> SparseTensor:
        kernel_map = x.occupancy.neighbours(weight.shape[:3], dilation)
        return x.replace(sparse_conv(x.features, weight, kernel_map, bias))

    def strided(
        self,
        x: SparseTensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
    ) -> SparseTensor:
        occupancy, kernel_map = x.occupancy.downsample(
            weight.shape[:3], stride, padding, dilation
        )
        features = sparse_conv(x.features, weight, kernel_map, bias)
        return SparseTensor.from_occupancy(features, occupancy)

    def inverse(
        self, x: SparseTensor, like: SparseTensor, weight: Tensor, bias: Tensor | None
    ) -> SparseTensor:
        kernel_map = like.occupancy.map_to(x.occupancy, weight.shape[:3]).transposed()
        return like.replace(sparse_conv(x.features, weight, kernel_map, bias))

    def at_sites(
        self, x: SparseTensor, sites: Occupancy, weight: Tensor, bias: Tensor | None
    ) -> SparseTensor:
        kernel_map = x.occupancy.seen_from(sites, weight.shape[:3])
        features = sparse_conv(x.features, weight, kernel_map, bias)
        return SparseTensor.from_occupancy(features, sites)
