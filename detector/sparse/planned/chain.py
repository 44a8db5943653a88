"""Which layers modules one after another are, and whether they can be trained as one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detector.ops.occupancy.shapes import Triple
from detector.ops.sparse_conv import tensor_cores
from detector.ops.sparse_norm.gpu import CHANNELS, norm_fits
from detector.sparse.conv import SparseConv3d, SubMConv3d
from detector.sparse.engines import current_engine
from detector.sparse.modules import SparseBatchNorm
from detector.sparse.planned.network import chain_units


@dataclass(frozen=True)
class Layer:
    """A convolution, the norm after it, and what follows."""

    conv: SubMConv3d | SparseConv3d
    norm: SparseBatchNorm
    relu: bool
    residual: bool
    """What came into the layer before is added after the norm."""

    @property
    def parameters(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.conv.weight, self.norm.weight, self.norm.bias

    @property
    def step(self) -> tuple[Triple, Triple, Triple, Triple] | None:
        """Of a strided convolution its kernel size, stride, padding and dilation."""
        conv = self.conv
        if isinstance(conv, SubMConv3d):
            return None
        return conv.kernel_size, conv.stride, conv.padding, conv.dilation

    @property
    def fixed(self) -> tuple:
        """What launches of this layer hold on to: addresses and numbers."""
        norm = self.norm
        memory = *self.parameters, norm.running_mean, norm.running_var, norm.num_batches_tracked
        return (
            *(tensor.data_ptr() for tensor in memory), norm.eps, norm.momentum, self.relu,
            self.residual, self.conv.kernel_size, self.step or self.conv.dilation,
        )  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """What a captured chain is made for, beside the numbers of voxels."""

    dtype: torch.dtype
    """That is computed in."""
    given: torch.dtype
    """Of the features."""
    in_channels: int
    device: int
    wants_gradient: bool
    """Of the features."""
    chain: tuple
    """What its launches hold on to: addresses and numbers."""

    @classmethod
    def of(cls, fixed: tuple, features: Tensor, dtype: torch.dtype) -> Shape:
        return cls(
            dtype, features.dtype, features.shape[1], features.get_device(),
            features.requires_grad, fixed,
        )  # fmt: skip


def state_of(modules: Sequence[nn.Module]) -> list:
    """All of the modules and their parts that `layers_of` and a captured chain depend on: while it
    is the same, so are they. Walking through it costs a third of looking at the layers anew."""
    state: list = []
    left = list(modules)
    while left:
        module = left.pop()
        if module is None:
            continue
        own = module.__dict__
        hooked = bool(
            own["_forward_hooks"] or own["_forward_pre_hooks"]
            or own["_backward_hooks"] or own["_backward_pre_hooks"]
        )  # fmt: skip
        state += (id(module), module.__class__, own["training"], hooked)
        parts = own["_modules"]
        if parts:
            left += parts.values()
            continue
        state += [own.get(name) for name in NUMBERS]
        for tensor in own["_parameters"].values():
            if tensor is not None:
                state += (tensor.data_ptr(), tensor.requires_grad, tensor.dtype)
        for tensor in own["_buffers"].values():
            if tensor is not None:
                state.append(tensor.data_ptr())
    return state


NUMBERS = ("eps", "momentum", "kernel_size", "stride", "padding", "dilation")


def obstacle(
    modules: Sequence[nn.Module], dtype: torch.dtype, device: torch.device
) -> str | None:
    """Why modules one after another can't be trained as one step; None if they can."""
    layers = layers_of(modules, dtype, device)
    return layers if isinstance(layers, str) else None


def layers_of(
    modules: Sequence[nn.Module], dtype: torch.dtype, device: torch.device
) -> list[Layer] | str:
    """The layers of a chain, or why they can't be trained as one step. Modules may change from one
    batch to the next: nothing is remembered."""
    if device.type != "cuda":
        return "there is no GPU"
    if current_engine().name != "native":
        return f"the engine is {current_engine().name}"
    if dtype not in tensor_cores.HALVES:
        return f"products are in {str(dtype).removeprefix('torch.')}, not in 16-bit floats"
    if any(map(_hooked, modules)):
        return "a layer has hooks"
    try:
        layers = [
            Layer(block.conv, block.norm, block.relu, residual=number == 1)
            for unit in chain_units(modules) for number, block in enumerate(unit)
        ]  # fmt: skip
    except ValueError as error:
        return str(error)
    if len(layers) == 0 or (len(layers) > 1 and layers[1].residual):
        return "it does not begin with a convolution by itself"
    for layer in layers:
        reason = _obstacle_of(layer, dtype, device)
        if reason is not None:
            return reason
    return layers


def _obstacle_of(layer: Layer, dtype: torch.dtype, device: torch.device) -> str | None:
    conv, norm = layer.conv, layer.norm
    if type(norm) is not SparseBatchNorm or conv.bias is not None:
        what = "no norm" if norm is None else f"a {type(norm).__name__}"
        return f"a convolution has {'a bias' if conv.bias is not None else what} after it"
    if not norm_fits(norm):
        return "a norm is frozen, or has no parameters or no running average"
    weight, scale, shift = layer.parameters
    if weight.dtype != torch.float32:
        return "weights are not in float32"
    if not (weight.requires_grad and scale.requires_grad and shift.requires_grad):
        return "some of its weights are frozen"
    source, target = weight.shape[3:]
    offsets = weight.shape[:3].numel()
    if target not in CHANNELS or target not in tensor_cores.OUT_CHANNELS or not (
        tensor_cores.fits(dtype, source, target, offsets, device.index)
        and tensor_cores.fits(dtype, target, source, offsets, device.index)
    ):
        return f"a convolution of {source} to {target} channels has no such kernels"
    return None


def _hooked(module: nn.Module) -> bool:
    """A module or a part of it."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks
        or module._backward_hooks or module._backward_pre_hooks
    ) or any(_hooked(part) for part in module._modules.values() if part is not None)  # fmt: skip
