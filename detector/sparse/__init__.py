"""Sparse tensors and the layers that act on them.

    voxels = voxelize(points, grid)
    x = SparseTensor.from_occupancy(voxels.features, voxels.occupancy)
    fine = SparseSequential(SubMConv3d(4, 16, 3), SparseBatchNorm(16), nn.ReLU())(x)
    coarse = SparseConv3d(16, 32, 3, stride=2, padding=1)(fine)
    coarse, importance = FocalConv3d(32, 32, stride=2)(coarse)
    bev = coarse.dense().flatten(1, 2)                                         # (B, 32 * Z, Y, X)

Layers take sparse tensors to sparse tensors. The index of a tensor (`detector.ops.occupancy`) owns
the neighbour tables, so that layers on the same voxels share them without being told.
`use_engine` chooses who computes; `weights` describes how weights are laid out, here and elsewhere.
"""

from detector.sparse.conv import SparseConv3d, SparseInverseConv3d, SubMConv3d
from detector.sparse.engines import current_engine, use_engine
from detector.sparse.focal import FocalConv3d, FocalImportance
from detector.sparse.modules import SparseBatchNorm, SparseModule, SparseSequential
from detector.sparse.tensor import SparseTensor
from detector.sparse.weights import weight_from_spconv, weight_to_spconv

__all__ = [
    "FocalConv3d",
    "FocalImportance",
    "SparseBatchNorm",
    "SparseConv3d",
    "SparseInverseConv3d",
    "SparseModule",
    "SparseSequential",
    "SparseTensor",
    "SubMConv3d",
    "current_engine",
    "use_engine",
    "weight_from_spconv",
    "weight_to_spconv",
]
