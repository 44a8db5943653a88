"""spconv 2 in place of our own products and maps: the same weights, the same voxels.

Our index stays the one that says which rows there are; spconv finds its own maps of them, and its
results are put in our order. Meant to check ours and to fall back on, not for speed.
"""

from __future__ import annotations

from collections.abc import Sequence

import spconv.pytorch as spconv
import torch
from spconv.core import ConvAlgo
from torch import Tensor

from detector.ops.occupancy import Occupancy
from detector.sparse.engines import native
from detector.sparse.tensor import SparseTensor
from detector.sparse.weights import weight_to_spconv


class Engine(native.Engine):
    """See `detector.sparse.engines.Engine`. Convolutions at given sites stay native: spconv has
    none."""

    name = "spconv"

    def submanifold(
        self, x: SparseTensor, weight: Tensor, bias: Tensor | None, dilation: Sequence[int]
    ) -> SparseTensor:
        if any(size % 2 == 0 for size in weight.shape[:3]):
            raise ValueError(
                f"submanifold kernel {tuple(weight.shape[:3])}: spconv takes odd sizes alone; use "
                f"the engine 'native'"
            )
        layer = _layer(spconv.SubMConv3d, weight, bias, dilation=list(dilation))
        return x.replace(_rows(layer(_given(x)), x.occupancy))

    def strided(
        self, x: SparseTensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int],
        padding: Sequence[int], dilation: Sequence[int],
    ) -> SparseTensor:  # fmt: skip
        occupancy, _ = x.occupancy.downsample(weight.shape[:3], stride, padding, dilation)
        layer = _layer(
            spconv.SparseConv3d, weight, bias, stride=list(stride), padding=list(padding),
            dilation=list(dilation),
        )  # fmt: skip
        return SparseTensor.from_occupancy(_rows(layer(_given(x)), occupancy), occupancy)


def _layer(kind: type, weight: Tensor, bias: Tensor | None, **options) -> torch.nn.Module:
    """A layer whose parameters are ours, so that gradients reach them."""
    layer = kind(
        weight.shape[3], weight.shape[4], list(weight.shape[:3]), bias=False,
        algo=ConvAlgo.Native, **options,
    )  # fmt: skip
    del layer.weight
    layer.weight = weight_to_spconv(weight)
    layer.eval()
    return _WithBias(layer, bias)


class _WithBias(torch.nn.Module):
    def __init__(self, layer: torch.nn.Module, bias: Tensor | None):
        super().__init__()
        self.layer, self.shift = layer, bias

    def forward(self, x):
        out = self.layer(x)
        return out if self.shift is None else out.replace_feature(out.features + self.shift)


def _given(x: SparseTensor):
    return spconv.SparseConvTensor(
        x.features, x.coordinates, list(x.spatial_shape), x.batch_size
    )


def _rows(out, occupancy: Occupancy) -> Tensor:
    """spconv's rows in our order."""
    place = occupancy.rows(out.indices.int()).long()
    rows = torch.zeros_like(out.features)
    return rows.index_copy(0, place, out.features)
