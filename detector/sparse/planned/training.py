"""A chain of sparse convolutions with batch norms and ReLUs, trained as one step of autograd.

Layer by layer, training waits for the host: beside its few launches, a layer costs Python, autograd
and memory calls, forward and backward. Here either way is one run of launches, and from the second
batch on one CUDA graph (`captured.py`). The kernels are the layers' own, so results are theirs bit
for bit; in residual blocks a block's two gradients are added before they are rounded, not after.
Gradients take the place of features (`chain_pass.py`): a batch can go backward only once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch._utils import _unflatten_dense_tensors
from torch.autograd.function import once_differentiable

from detector.ops.occupancy import KernelMap, Occupancy
from detector.ops.sparse_conv import gpu
from detector.sparse.engines import current_engine
from detector.sparse.planned import chain
from detector.sparse.planned.captured import CapturedChain
from detector.sparse.planned.chain import Layer, Shape
from detector.sparse.planned.chain_pass import ChainPass
from detector.sparse.tensor import SparseTensor


def train_chain(
    modules: Sequence[nn.Module], x: SparseTensor, *, release: bool = False
) -> SparseTensor | None:
    """What modules one after another make of x, as one step; None where `chain.obstacle` names a
    reason against that, or a level has fewer than two voxels.

    Args:
        release: the indices' bitmaps are given back once the maps are made, before features take
            up memory. They are made again if somebody asks.
    """
    dtype = gpu.compute_dtype(x.features, next(modules[0].parameters()))
    layers, fixed = _layers(modules, dtype, x.features.device)
    if layers is None or len(x) < 2:
        return None
    levels = _levels(layers, x.occupancy)
    if any(len(level) < 2 for level in levels):
        return None
    shape = Shape.of(fixed, x.features, dtype)
    step: Step | None = _captured(modules[0], layers, levels, shape, release)
    if step is None:
        step = _Launched(layers, levels, shape)
    if release:
        for level in levels:
            level.release()
    parameters = [parameter for layer in layers for parameter in layer.parameters]
    features = _Chain.apply(step, x.features, *parameters)
    return SparseTensor.from_occupancy(features, levels[-1])


def _layers(
    modules: Sequence[nn.Module], dtype: torch.dtype, device: torch.device
) -> tuple[list[Layer] | None, tuple]:
    """The layers, None if there is an obstacle, and what their launches hold on to; looked at anew
    where anything has changed since the last batch."""
    state = [dtype, device, current_engine().name, *chain.state_of(modules)]
    last = _LAYERS.get(modules[0])
    if last is not None and last[0] == state:
        return last[1]
    found = chain.layers_of(modules, dtype, device)
    layers = None if isinstance(found, str) else found
    made = layers, tuple(layer.fixed for layer in layers or ())
    _LAYERS[modules[0]] = state, made
    return made


def _levels(layers: Sequence[Layer], voxels: Occupancy) -> list[Occupancy]:
    """The voxels that come in, and those after each strided convolution."""
    return [voxels, *voxels.windows([layer.step for layer in layers if layer.step is not None])]


class Step(Protocol):
    """One batch's way through a chain."""

    layers: Sequence[Layer]

    def forward(self, features: Tensor) -> Tensor: ...

    def backward(self, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
        """Of the features, and of all parameters one behind the other."""


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(ctx, step: Step, features: Tensor, *parameters: Tensor) -> Tensor:
        out = step.forward(features)
        ctx.step = step
        ctx.save_for_backward(out if step.layers[-1].residual else None, *parameters)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        step, ctx.step = ctx.step, None
        if step is None:
            raise RuntimeError(
                "a fused sparse backbone goes backward once: gradients have taken the place of "
                "its features; call it again, or set `fused` of the backbone to False"
            )
        _, *parameters = ctx.saved_tensors  # complains if they changed since
        feature_gradient, flat = step.backward(gradient)
        return None, feature_gradient, *_unflatten_dense_tensors(flat, parameters)


class _Launched:
    """A step whose memory has the batch's own sizes."""

    def __init__(self, layers: Sequence[Layer], levels: Sequence[Occupancy], shape: Shape):
        self.layers, self.shape = layers, shape
        maps: list[KernelMap] = []
        counts = [levels[0].count]
        level = 0
        for layer in layers:
            if layer.step is not None:
                maps.append(levels[level].map_by(levels[level + 1], layer.step))
                level += 1
            else:
                conv = layer.conv
                maps.append(levels[level].neighbours(conv.kernel_size, conv.dilation))
            counts.append(levels[level].count)
        self.maps, self.counts = maps, counts

    def forward(self, features: Tensor) -> Tensor:
        self.chain = ChainPass(
            self.layers, self.maps, self.counts, self.shape, features.device
        )
        self.chain.features[:, : features.shape[1]].copy_(features)
        self.chain.forward()
        return self.chain.out.detach()  # not itself, which would keep itself alive

    def backward(self, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
        self.chain.make_room()
        own = gradient.to(self.shape.dtype).contiguous()
        if self.layers[-1].residual and own is gradient:
            own = gradient.clone()
        self.chain.backward(own)
        feature_gradient, flat = self.chain.feature_gradient, self.chain.flat
        if feature_gradient is not None:
            feature_gradient = feature_gradient.to(self.shape.given)
        return feature_gradient, flat


_LAYERS: WeakKeyDictionary[nn.Module, tuple[list, tuple]] = WeakKeyDictionary()
"""By a chain's first module: the state of its modules, and what `_layers` made of it."""
_CHAINS: WeakKeyDictionary[nn.Module, CapturedChain | None] = WeakKeyDictionary()
"""By a chain's first module; None: it has had one batch."""


def _captured(
    first: nn.Module, layers: Sequence[Layer], levels: Sequence[Occupancy], shape: Shape,
    release: bool,
) -> Step | None:
    """A step by CUDA graphs, from the second batch on; None where a batch before this one still
    wants to go backward, or an index is no bitmap."""
    if not all(level.has_bitmap for level in levels):
        return None
    if first not in _CHAINS:
        _CHAINS[first] = None
        return None
    rows = [len(level) for level in levels]
    captured = _CHAINS[first]
    if captured is not None and captured.busy:
        return None
    if captured is None or captured.shape != shape or not captured.holds(rows):
        most = rows
        if captured is not None and captured.shape == shape:
            most = list(map(max, rows, captured.rows))
        _CHAINS[first] = captured = None  # gives its memory back before it is taken anew
        _CHAINS[first] = captured = CapturedChain(layers, most, shape, lends=release)
    return captured.step(levels)
