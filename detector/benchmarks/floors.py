"""What the hardware could do at best: bytes moved once at the measured copy rate, or operations at
the measured matrix rate, whichever takes longer, layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detector.benchmarks.timing import Ceilings
from detector.ops.occupancy import KernelMap
from detector.sparse import FocalConv3d, SparseConv3d, SparseTensor, SubMConv3d


def product_floor_ms(
    kernel_map: KernelMap, weight: Tensor, dtype: torch.dtype, ceilings: Ceilings
) -> float:
    """Of a sparse convolution: features read and written once, weights once, two operations a
    pair and weight."""
    source, target = weight.shape[-2:]
    rows_in, rows_out = kernel_map.rows_in, kernel_map.table.shape[1]
    moved = dtype.itemsize * (rows_in * source + rows_out * target + weight.numel())
    work = 2 * int(kernel_map.pair_count()) * source * target
    return max(moved / ceilings.bytes_per_ms, work / ceilings.operations_per_ms[dtype])


def encoder_floor_ms(
    encoder: nn.Module, x: SparseTensor, dtype: torch.dtype, ceilings: Ceilings
) -> float:
    """Of all convolutions, and the coordinates read once. Choosing costs nothing here."""
    total = x.coordinates.numel() * 4 / ceilings.bytes_per_ms

    def hook(layer, inputs, output):
        nonlocal total
        before = inputs[0].occupancy
        after = (output[0] if isinstance(output, tuple) else output).occupancy
        if isinstance(layer, SubMConv3d):
            kernel_map = before.neighbours(layer.kernel_size)
        elif isinstance(layer, FocalConv3d):
            kernel_map = before.seen_from(after, layer.kernel_size)
        else:
            kernel_map = before.map_to(after, layer.kernel_size)
        total += product_floor_ms(kernel_map, layer.weight, dtype, ceilings)

    hooks = [
        layer.register_forward_hook(hook) for layer in encoder.modules()
        if isinstance(layer, (SubMConv3d, SparseConv3d, FocalConv3d))
    ]  # fmt: skip
    with torch.no_grad():
        encoder(x)
    for handle in hooks:
        handle.remove()
    return total


def dense_floor_ms(
    network: nn.Module, given: Tensor, dtype: torch.dtype, ceilings: Ceilings
) -> float:
    """Of a network's 2D convolutions."""
    total = 0.0

    def hook(layer, inputs, output):
        nonlocal total
        weights = layer.weight.numel()
        moved = dtype.itemsize * (inputs[0].numel() + output.numel() + weights)
        # Of a transposed convolution, every input meets every weight; else every output does.
        places = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        work = 2 * weights * places.shape[0] * places[0, 0].numel()
        total += max(moved / ceilings.bytes_per_ms, work / ceilings.operations_per_ms[dtype])

    hooks = [
        layer.register_forward_hook(hook) for layer in network.modules()
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
    ]  # fmt: skip
    with torch.no_grad():
        network(given)
    for handle in hooks:
        handle.remove()
    return total
