"""Modules that map a sparse tensor to a sparse tensor, and how plain ones join them."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from detector.sparse.tensor import SparseTensor


class SparseModule(nn.Module):
    """A module whose input and output are sparse tensors."""


class SparseSequential(nn.Sequential, SparseModule):
    """Modules one after another; a plain one (ReLU, Linear, ...) acts on the features alone."""

    def forward(self, x: SparseTensor) -> SparseTensor:
        for module in self:
            if isinstance(module, SparseModule):
                x = module(x)
            else:
                x = x.replace(module(x.features))
        return x


class SparseBatchNorm(nn.BatchNorm1d, SparseModule):
    """Batch norm over all voxels of a batch.

    A training batch of fewer than two voxels has no spread to divide by: it is normalised by the
    running statistics, which it leaves as they are, where `nn.BatchNorm1d` would raise or spoil
    them with NaN.
    """

    def forward(self, x: SparseTensor) -> SparseTensor:
        if self.training and len(x) < 2 and self.track_running_stats:
            return x.replace(self._by_running_statistics(x.features))
        return x.replace(super().forward(x.features))

    def _by_running_statistics(self, features: Tensor) -> Tensor:
        return functional.batch_norm(
            features, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )
