"""Sparse tensors and the layers that act on them."""

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
