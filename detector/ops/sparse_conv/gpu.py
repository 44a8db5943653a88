"""Sparse convolution on a GPU: which kernels serve which numbers, and autograd.

    float16, bfloat16, up to 128 channels    tensor cores (`conv.cu`, `weight_gradient.cu`)
    float32 as TF32, the same, forward       tensor cores (`conv.cu`)
    what is left of these                    Triton (`triton.py`)
    float64, or without Triton               gather, multiply, add (`gathered.py`)

Sums are accumulated in float32 at least, in an order that never changes. float32 is multiplied as
TF32 where torch is set to (`torch.backends.cuda.matmul.allow_tf32`).
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from detector.ops.occupancy import KernelMap
from detector.ops.occupancy.tables import conv_table, tile_masks
from detector.ops.sparse_conv import gathered, tensor_cores
from detector.ops.sparse_conv.weight_gradient import gradient_kernels


def sparse_conv(
    features: Tensor, weight: Tensor, kernel_map: KernelMap, bias: Tensor | None
) -> Tensor:
    """See `detector.ops.sparse_conv.sparse_conv`. Under autocast, in its dtype; parameters stay
    float32 and are rounded on the way into the kernel."""
    learns = torch.is_grad_enabled() and (features.requires_grad or weight.requires_grad)
    return _SparseConv.apply(
        features.to(compute_dtype(features, weight)), weight, bias, kernel_map, not learns
    )


def compute_dtype(features: Tensor, weight: Tensor) -> torch.dtype:
    """In which numbers are multiplied."""
    if torch.is_autocast_enabled("cuda"):
        return torch.get_autocast_dtype("cuda")
    return torch.promote_types(features.dtype, weight.dtype)


class _SparseConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, features: Tensor, weight: Tensor, bias: Tensor | None, kernel_map: KernelMap,
        in_order: bool,
    ):  # fmt: skip
        ctx.save_for_backward(features, weight)
        ctx.kernel_map = kernel_map
        return convolve(
            features, weight.flatten(0, 2), kernel_map, bias, in_order=in_order
        )

    @staticmethod
    @once_differentiable
    def backward(ctx, out_gradient: Tensor):
        features, weight = ctx.saved_tensors
        out_gradient = out_gradient.to(features.dtype).contiguous()
        feature_gradient, weight_gradient = gradients(
            features, weight, out_gradient, ctx.kernel_map, *ctx.needs_input_grad[:2]
        )
        bias_gradient = None
        if ctx.needs_input_grad[2]:
            bias_gradient = out_gradient.sum(0, dtype=torch.promote_types(
                out_gradient.dtype, torch.float32
            ))  # fmt: skip
        return feature_gradient, weight_gradient, bias_gradient, None, None


def gradients(
    features: Tensor, weight: Tensor, out_gradient: Tensor, kernel_map: KernelMap,
    of_features: bool, of_weight: bool,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Of a convolution's features and weight (kz, ky, kx, in, out); None where not wanted."""
    feature_gradient = weight_gradient = None
    if of_features:
        # A mirrored table undoes itself when its offsets are counted backwards.
        back = kernel_map if kernel_map.mirrored else kernel_map.transposed()
        feature_gradient = convolve(
            out_gradient, weight.flatten(0, 2), back, turned=True, flipped=kernel_map.mirrored
        )
    if of_weight:
        weight_gradient = _weight_gradient(features, out_gradient, kernel_map)
        weight_gradient = weight_gradient.view_as(weight).to(weight.dtype)
    return feature_gradient, weight_gradient


def convolve(
    features: Tensor,
    weight: Tensor,
    kernel_map: KernelMap,
    bias: Tensor | None = None,
    *,
    turned: bool = False,
    flipped: bool = False,
    in_order: bool = False,
) -> Tensor:
    """out[o] = bias + sum over k of features[table[k, o]] @ weight[k], with weights (K, in, out),
    or turned (K, out, in).

    Args:
        in_order: the table may be put in order where that pays; it then takes memory twice.
    """
    features = features.contiguous()
    weight = weight.contiguous()
    table = kernel_map.table
    offsets, in_channels = len(table), features.shape[1]
    out_channels = weight.shape[1] if turned else weight.shape[2]
    rows, device = table.shape[1], features.get_device()
    if tensor_cores.convolves(features.dtype, in_channels, out_channels, offsets, device):
        wide_in = tensor_cores.padded_channels(in_channels, tensor_cores.IN_CHANNELS)
        wide_out = tensor_cores.padded_channels(out_channels, tensor_cores.OUT_CHANNELS)
        in_order = in_order and tensor_cores.gains_by_order(wide_in, offsets, rows)
        kernels = tensor_cores.best_convolution(
            features.dtype, wide_in, wide_out, offsets, device, rows, in_order=in_order
        )
        if weight.dtype not in (torch.float32, features.dtype):
            weight = weight.to(features.dtype)
        out = features.new_empty(rows, wide_out)
        if bias is not None:
            bias = functional.pad(bias.float(), (0, wide_out - out_channels))
        count = _count(rows, device)
        read = conv_table(table, count, in_order=in_order)
        features = _widened(features, wide_in)
        packed = kernels.packed(weight, turned=turned, flipped=flipped)
        kernels(
            features, packed, read.table, read.masks, count, rows, out,
            order=read.order, tiles=read.tiles, bias=bias, after="pack",
        )  # fmt: skip
        return out if wide_out == out_channels else out[:, :out_channels]
    weight = weight.to(features.dtype)
    if turned:
        weight = weight.transpose(1, 2)
    if flipped:
        weight = weight.flip(0)
    if has_triton() and features.dtype != torch.float64:
        from detector.ops.sparse_conv import triton

        return triton.convolve(features, weight.contiguous(), table, tile_masks(table), bias)
    out = gathered.convolve(features, weight, table)
    return out if bias is None else out + bias.to(out.dtype)


def _weight_gradient(features: Tensor, out_gradient: Tensor, kernel_map: KernelMap) -> Tensor:
    """(K, in, out)."""
    table = kernel_map.table
    offsets, in_channels = len(table), features.shape[1]
    out_channels = out_gradient.shape[1]
    rows, device = table.shape[1], features.get_device()
    if tensor_cores.fits(features.dtype, in_channels, out_channels, offsets, device):
        sizes = tensor_cores.OUT_CHANNELS
        wide_in = tensor_cores.padded_channels(in_channels, sizes)
        wide_out = tensor_cores.padded_channels(out_channels, sizes)
        kernels = gradient_kernels(features.dtype, wide_in, wide_out, offsets, device)
        gradient = kernels(
            _widened(features, wide_in), _widened(out_gradient, wide_out), table,
            _count(rows, device), in_channels, kernel_map.mirrored,
        )  # fmt: skip
        return gradient if wide_out == out_channels else gradient[..., :out_channels]
    if has_triton() and features.dtype != torch.float64:
        from detector.ops.sparse_conv import triton

        return triton.weight_gradient(features, out_gradient, table, tile_masks(table))
    return gathered.weight_gradient(features, out_gradient, table)


@functools.cache
def has_triton() -> bool:
    """Whether Triton is installed; torch's Linux wheels for CUDA bring it."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


def _widened(features: Tensor, channels: int) -> Tensor:
    missing = channels - features.shape[1]
    return functional.pad(features, (0, missing)) if missing else features.contiguous()


@functools.lru_cache(maxsize=4096)
def _count(rows: int, device: int) -> Tensor:
    """The number on the GPU, where the kernels read it."""
    return torch.full((1,), rows, dtype=torch.int32, device=torch.device("cuda", device))
