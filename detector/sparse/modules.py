"""Modules that map a sparse tensor to a sparse tensor, and how plain ones join them."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from detector.sparse.engines import current_engine
from detector.sparse.tensor import SparseTensor


class SparseModule(nn.Module):
    """A module whose input and output are sparse tensors."""


class SparseBatchNorm(nn.BatchNorm1d, SparseModule):
    """Batch norm over all voxels of a batch.

    A training batch of fewer than two voxels has no spread to divide by: it is normalised by the
    running statistics, which it leaves as they are, where `nn.BatchNorm1d` would raise or spoil
    them with NaN.
    """

    def forward(self, x: SparseTensor) -> SparseTensor:
        if self.training and x.features.shape[0] < 2 and self.track_running_stats:
            return x.replace(self._by_running_statistics(x.features))
        return x.replace(super().forward(x.features))

    def _by_running_statistics(self, features: Tensor) -> Tensor:
        return functional.batch_norm(
            features, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class SparseSequential(nn.Sequential, SparseModule):
    """Modules one after another; a plain one (ReLU, Linear, ...) acts on the features alone.

    `forward(x, beside)`: `beside`, on the voxels of the result, is added to it, and ReLU taken of
    the sum, as residual blocks end.

    In training on a GPU in 16-bit floats, a convolution without bias, the batch norm and the ReLU
    after it are one step; modules with hooks are called one by one.
    """

    def forward(self, x: SparseTensor, beside: SparseTensor | None = None) -> SparseTensor:
        modules = list(self)
        place = 0
        while place < len(modules):
            fused = _fused(modules, place, x, beside)
            if fused is not None:
                x, taken, joined = fused
                place += taken
                if joined:
                    return x
                continue
            module = modules[place]
            x = module(x) if isinstance(module, SparseModule) else x.replace(module(x.features))
            place += 1
        return x if beside is None else x.replace((x.features + beside.features).relu())


def _fused(
    modules: list[nn.Module], place: int, x: SparseTensor, beside: SparseTensor | None
) -> tuple[SparseTensor, int, bool] | None:
    """The result of a convolution and what follows it from `place` on, how many modules that were,
    and whether `beside` went in; None where this can't be done in one step."""
    conv, norm = modules[place], modules[place + 1] if place + 1 < len(modules) else None
    if (
        type(norm) is not SparseBatchNorm or not norm.training or not x.features.is_cuda
        or not hasattr(conv, "sites") or conv.bias is not None or current_engine().name != "native"
    ):  # fmt: skip
        return None
    following = modules[place + 2] if place + 2 < len(modules) else None
    relu = type(following) is nn.ReLU
    if any(_hooked(module) for module in modules[place : place + 2 + relu]):
        return None
    from detector.ops.sparse_conv import gpu, normed

    occupancy, kernel_map = conv.sites(x.occupancy)
    if not normed.takes(x.features, conv.weight, kernel_map, norm):
        return None
    # A summand in wider numbers makes the sum wide.
    joined = (
        following is None and beside is not None
        and beside.features.dtype == gpu.compute_dtype(x.features, conv.weight)
    )  # fmt: skip
    features = normed.sparse_conv_norm(
        x.features, conv.weight, kernel_map, norm, beside.features if joined else None,
        relu=relu or joined,
    )  # fmt: skip
    return SparseTensor.from_occupancy(features, occupancy), 2 + relu, joined


def _hooked(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks
        or module._backward_hooks or module._backward_pre_hooks
    )  # fmt: skip
