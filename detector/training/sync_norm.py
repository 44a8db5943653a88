"""Batch norm over the frames of all processes.

torch's own SyncBatchNorm needs GPUs and replaces a norm by one that knows no sparse tensors; this
one keeps a norm's class, weights and names, and runs with any backend.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn

from detector.sparse import SparseBatchNorm, SparseTensor


def synchronise_norms(model: nn.Module) -> None:
    """Lets the model's batch norms take their statistics over all processes."""
    for module in model.modules():
        for plain, synchronised in _SYNCHRONISED.items():
            if type(module) is plain:
                module.__class__ = synchronised


class SynchronisedNorm1d(nn.BatchNorm1d):
    def forward(self, x: Tensor) -> Tensor:
        return _normalised(self, x) if self.training else super().forward(x)


class SynchronisedNorm2d(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return _normalised(self, x) if self.training else super().forward(x)


class SynchronisedSparseNorm(SparseBatchNorm):
    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.replace(_normalised(self, x.features)) if self.training else super().forward(x)


_SYNCHRONISED = {
    nn.BatchNorm1d: SynchronisedNorm1d,
    nn.BatchNorm2d: SynchronisedNorm2d,
    SparseBatchNorm: SynchronisedSparseNorm,
}


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient."""

    @staticmethod
    def forward(ctx, value: Tensor) -> Tensor:
        total = value.contiguous().clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total


def _normalised(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    """`x` (N, C, ...) in its own precision, normalised in float32 by mean and variance over all
    processes; the running statistics follow. With fewer than two values there is no variance, and
    the running statistics are used and kept."""
    with torch.autocast(x.device.type, enabled=False):
        values = x.float()
        others = [d for d in range(x.ndim) if d != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        count = values.new_full((1,), values.numel() // values.shape[1])
        total = _Sum.apply(torch.cat([values.sum(others), count]))
        count = total[-1].detach()
        # Chosen on the device: a branch would wait for a GPU at every norm.
        enough, count = count >= 2, count.clamp(min=2)
        mean = torch.where(enough, total[:-1] / count, norm.running_mean)
        variance = _Sum.apply((values - mean.view(shape)).square().sum(others)) / count
        variance = torch.where(enough, variance, norm.running_var)
        with torch.no_grad():
            norm.num_batches_tracked += enough
            momentum = norm.momentum * enough
            norm.running_mean.lerp_(mean, momentum)
            norm.running_var.lerp_(
                torch.where(enough, variance * count / (count - 1), norm.running_var), momentum
            )
        scale = norm.weight * torch.rsqrt(variance + norm.eps)
        y = (values - mean.view(shape)) * scale.view(shape) + norm.bias.view(shape)
    return y.to(x.dtype)
