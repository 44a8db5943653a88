"""A chain of sparse convolutions with batch norms and ReLUs, trained as one step of autograd.

Layer by layer, training waits for the host: beside its few launches, a layer costs Python, autograd
and memory calls, forward and backward. Here either way is one loop over launches. The kernels are
the layers' own, so results are theirs bit for bit; in residual blocks a block's two gradients are
added before they are rounded, not after.

For the backward pass a layer leaves what its convolution gave and what its norm made of that.
Gradients take their place: that of the convolution's output overwrites it, and that of the norm's
output, which is the next layer's input, overwrites that once the next layer's weights have their
gradient. A batch can therefore go backward only once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch._utils import _unflatten_dense_tensors
from torch.autograd.function import once_differentiable
from torch.nn import functional

from detector.ops.occupancy import KernelMap, Occupancy
from detector.ops.occupancy.gpu import tile_masks
from detector.ops.sparse_conv import gpu, tensor_cores
from detector.ops.sparse_norm.gpu import MOST_SUMS, norm_kernels
from detector.sparse.planned import chain
from detector.sparse.planned.chain import Layer
from detector.sparse.tensor import SparseTensor

FLOAT = 4  # bytes
HALF = 2


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
    layers = chain.layers_of(modules, dtype, x.features.device)
    if isinstance(layers, str):
        return None
    occupancies = [x.occupancy]
    maps = []
    for layer in layers:
        voxels, kernel_map = layer.conv.sites(occupancies[-1])
        occupancies.append(voxels)
        maps.append(kernel_map)
    if any(len(voxels) < 2 for voxels in occupancies):
        return None
    if release:
        for voxels in occupancies:
            voxels.release()
    batch = _Batch(layers, maps, occupancies)
    parameters = [parameter for layer in layers for parameter in layer.parameters]
    features = _Chain.apply(batch, x.features.to(dtype), *parameters)
    return SparseTensor.from_occupancy(features, occupancies[-1])


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(ctx, batch: _Batch, features: Tensor, *parameters: Tensor) -> Tensor:
        out = batch.forward(features)
        ctx.batch = batch
        ctx.save_for_backward(out if batch.layers[-1].residual else None, *parameters)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        batch, ctx.batch = ctx.batch, None
        if batch is None:
            raise RuntimeError(
                "a fused sparse backbone goes backward once: gradients have taken the place of "
                "its features; call it again, or set `fused` of the backbone to False"
            )
        out, *parameters = ctx.saved_tensors  # complains if they changed since
        feature_gradient, parameter_gradients = batch.backward(
            gradient, out, parameters, ctx.needs_input_grad[1]
        )
        return None, feature_gradient, *parameter_gradients


class _Batch:
    """One batch's way through a chain."""

    def __init__(
        self, layers: list[Layer], maps: list[KernelMap], occupancies: list[Occupancy]
    ):
        self.layers, self.maps = layers, maps
        self.counts = [voxels.count for voxels in occupancies]
        """On the GPU: of the voxels before each layer, and at the end."""

    def forward(self, features: Tensor) -> Tensor:
        layers, device = self.layers, features.get_device()
        dtype, place = features.dtype, features.device
        self.in_channels = features.shape[1]
        wide = tensor_cores.padded_channels(self.in_channels, tensor_cores.IN_CHANNELS)
        self.features = _widened(features, wide)
        convolutions: list[tensor_cores.Convolution] = []
        for layer, kernel_map in zip(layers, self.maps, strict=True):
            channels = layer.conv.out_channels
            convolutions.append(tensor_cores.best_convolution(
                dtype, wide, channels, len(kernel_map.table), device, kernel_map.rows_out
            ))  # fmt: skip
            wide = channels
        self.norms = [
            norm_kernels(layer.conv.out_channels, dtype, layer.relu, layer.residual)
            for layer in layers
        ]
        self.statistics = torch.empty(
            4 * sum(layer.conv.out_channels for layer in layers), device=place
        )
        scratch = torch.empty(
            MOST_SUMS + max(c.packed_words for c in convolutions), device=place
        )
        partial, packed = scratch.data_ptr(), scratch.data_ptr() + FLOAT * MOST_SUMS
        self.held: list[Tensor | None] = []
        """Of each layer its convolution's and its norm's output; the last norm's is the result."""
        self.inputs = [self.features.data_ptr()]
        """Where each layer's input is, and the result."""
        statistics = self.statistics.data_ptr()
        for number, (layer, kernel_map, convolve, norm) in enumerate(
            zip(layers, self.maps, convolutions, self.norms, strict=True)
        ):
            rows, channels = kernel_map.rows_out, layer.conv.out_channels
            last = number + 1 == len(layers)
            held = torch.empty(2 - last, rows, channels, dtype=dtype, device=place)
            x = held.data_ptr()
            if last:
                out = torch.empty(rows, channels, dtype=dtype, device=place)
                y = out.data_ptr()
            else:
                y = x + rows * channels * HALF
            convolve.start_pack(layer.conv.weight, packed)
            convolve(
                self.inputs[number], packed, kernel_map.table, tile_masks(kernel_map.table),
                self.counts[number + 1], rows, x,
            )  # fmt: skip
            summand = self.inputs[number - 1] if layer.residual else None
            norm.start_forward(
                x, rows, layer.norm, summand, partial, statistics, y, device=device
            )
            statistics += 4 * channels * FLOAT
            self.held.append(held)
            self.inputs.append(y)
        return out

    def backward(
        self, gradient: Tensor, out: Tensor | None, parameters: list[Tensor], of_features: bool
    ) -> tuple[Tensor | None, Sequence[Tensor]]:
        """Gradients of the features and of the parameters, in their order."""
        layers, place = self.layers, gradient.device
        gradient = gradient.to(self.features.dtype).contiguous()
        flat = torch.empty(sum(p.numel() for p in parameters), device=place)
        scratch = torch.empty(MOST_SUMS, device=place)
        self.inputs[-1] = None if out is None else out.data_ptr()
        at = flat.data_ptr() + flat.numel() * FLOAT
        statistics = self.statistics.data_ptr() + self.statistics.numel() * FLOAT
        arriving = gradient.data_ptr()          # of the layer's result
        memory = gradient                       # keeps that alive where it is nobody else's
        passing, passing_memory = None, None    # past a residual block, to its input
        for number in range(len(layers) - 1, -1, -1):
            layer, kernel_map = layers[number], self.maps[number]
            held = self.held[number]
            rows, channels = held.shape[1:]
            weight, scale, shift = parameters[3 * number : 3 * number + 3]
            at -= FLOAT * (scale.numel() + shift.numel())
            statistics -= 4 * FLOAT * channels
            if layer.residual:
                # In place, but for what autograd gave us.
                passing_memory = torch.empty_like(memory) if memory is gradient else memory
                passing = passing_memory.data_ptr() if memory is gradient else arriving
            x = held.data_ptr()
            self.norms[number].start_backward(
                arriving, x, self.inputs[number + 1], rows, scale, statistics, scratch, at,
                passing if layer.residual else None, x, device=gradient.get_device(),
            )  # fmt: skip
            at -= FLOAT * weight.numel()
            self._weight_gradient(number, x, at)
            first_of_block = number + 1 < len(layers) and layers[number + 1].residual
            if number == 0 and not of_features:
                break
            summand = None
            if first_of_block:
                target, memory, summand = passing, passing_memory, passing
            elif number == 0 or layers[number - 1].residual:
                # The input itself, or its sign, is still needed.
                made = torch.empty(
                    kernel_map.rows_in, self._wide_in(number), dtype=gradient.dtype, device=place
                )
                target, memory = made.data_ptr(), made
            else:
                target, memory = self.inputs[number], self.held[number - 1]
            self._feature_gradient(number, x, weight, target, summand)
            arriving = target
            self.maps[number] = self.held[number] = None
        of_parameters = _unflatten_dense_tensors(flat, parameters)
        return (made[:, : self.in_channels] if of_features else None), of_parameters

    def _weight_gradient(self, number: int, out_gradient: int, total: int) -> None:
        """Into the memory at `total`."""
        kernel_map, conv = self.maps[number], self.layers[number].conv
        table, wide = kernel_map.table, self._wide_in(number)
        if number == 0:
            features = self.features = _widened(self.features[:, : self.in_channels], wide)
        else:
            features = self.inputs[number]
        kernels = tensor_cores.weight_gradient(
            self.features.dtype, wide, conv.out_channels, len(table), table.get_device()
        )
        partial = torch.empty(
            kernels.partial_sums(table, kernel_map.mirrored), device=table.device
        )
        kernels.start(
            features, out_gradient, table, self.counts[number + 1], conv.in_channels,
            kernel_map.mirrored, partial, total,
        )  # fmt: skip

    def _feature_gradient(
        self, number: int, out_gradient: int, weight: Tensor, target: int, summand: int | None
    ) -> None:
        """Into the memory at `target`, which may be the summand's."""
        kernel_map = self.maps[number]
        # A mirrored table undoes itself when its offsets are counted backwards.
        back = kernel_map if kernel_map.mirrored else kernel_map.transposed()
        table = back.table
        kernels = tensor_cores.best_convolution(
            self.features.dtype, weight.shape[4], self._wide_in(number), len(table),
            table.get_device(), back.rows_out,
        )  # fmt: skip
        packed = torch.empty(kernels.packed_words, device=table.device)
        kernels.start_pack(weight, packed, turned=True, flipped=kernel_map.mirrored)
        kernels(
            out_gradient, packed, table, tile_masks(table), self.counts[number], back.rows_out,
            target, residual=summand,
        )  # fmt: skip

    def _wide_in(self, number: int) -> int:
        """Channels of the gradient of a layer's input."""
        return tensor_cores.padded_channels(
            self.layers[number].conv.in_channels, tensor_cores.OUT_CHANNELS
        )


def _widened(features: Tensor, channels: int) -> Tensor:
    missing = channels - features.shape[1]
    return functional.pad(features, (0, missing)) if missing else features.contiguous()
