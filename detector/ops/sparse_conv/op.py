"""Sparse convolution: checks, dispatch, autograd."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from detector.ops.occupancy import KernelMap
from detector.ops.threads import in_threads

OPERATIONS_PER_UNIT = 1000
"""Multiplications in 10 ns, the unit of `in_threads`, at the density of a LiDAR scan's tables."""


def sparse_conv(
    features: Float[Tensor, "V_in Cin"],
    weight: Float[Tensor, "kz ky kx Cin Cout"],
    kernel_map: KernelMap,
    bias: Float[Tensor, " Cout"] | None = None,
) -> Float[Tensor, "V_out Cout"]:
    """out[o] = bias + sum over offsets k of features[table[k, o]] @ weight[k].

    Differentiable once, in features, weight and bias. The result does not depend on the number of
    threads. On a CPU half precisions are computed in float32.

    Raises:
        ValueError: shapes that don't fit the map or one another.
    """
    _check(features, weight, kernel_map, bias)
    if features.is_cuda:
        from detector.ops.sparse_conv import gpu

        return gpu.sparse_conv(features, weight, kernel_map, bias)
    dtype = torch.promote_types(features.dtype, weight.dtype)
    compute = torch.promote_types(dtype, torch.float32)
    if kernel_map.is_identity:
        out = features.to(compute) @ weight[0, 0, 0].to(compute)
    else:
        out = _SparseConv.apply(features.to(compute), weight.to(compute), kernel_map)
    if bias is not None:
        out = out + bias
    return out.to(dtype)


class _SparseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.kernel_map = kernel_map
        return _convolve(features, weight.flatten(0, 2), kernel_map)

    @staticmethod
    @once_differentiable
    def backward(ctx, out_gradient: Tensor):
        features, weight = ctx.saved_tensors
        kernel_map = ctx.kernel_map
        feature_gradient = weight_gradient = None
        if ctx.needs_input_grad[0]:
            turned = weight.flatten(0, 2).transpose(1, 2)  # (K, Cout, Cin)
            if kernel_map.mirrored:
                # The table undoes itself when its offsets are counted backwards.
                feature_gradient = _convolve(out_gradient, turned.flip(0), kernel_map)
            else:
                feature_gradient = _convolve(out_gradient, turned, kernel_map.transposed())
        if ctx.needs_input_grad[1]:
            weight_gradient = _weight_gradient(features, out_gradient, kernel_map)
            weight_gradient = weight_gradient.view_as(weight)
        return feature_gradient, weight_gradient, None


def _convolve(features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    from detector.ops.sparse_conv import cpu

    padded = _padded(weight, cpu.VECTOR_BYTES // weight.itemsize)
    out = features.new_zeros(kernel_map.rows_out, padded.shape[2])
    in_threads(
        cpu.convolve, len(out), _array(features), _array(padded), kernel_map.table.numpy(),
        out.numpy(), work_per_item=_cost(weight), grain=cpu.TILE,
    )  # fmt: skip
    return out[:, : weight.shape[2]].contiguous()


def _weight_gradient(features: Tensor, out_gradient: Tensor, kernel_map: KernelMap) -> Tensor:
    from detector.ops.sparse_conv import cpu

    sources = _padded(features, cpu.ROWS)
    gradients = _padded(out_gradient, cpu.VECTOR_BYTES // out_gradient.itemsize)
    gradient = features.new_zeros(
        len(kernel_map.table), sources.shape[1], gradients.shape[1]
    )
    in_threads(
        cpu.weight_gradient, len(gradient), _array(sources), _array(gradients),
        kernel_map.table.numpy(), gradient.numpy(),
        work_per_item=_cost(gradient[0]) * len(features),
    )  # fmt: skip
    return gradient[:, : features.shape[1], : out_gradient.shape[1]].contiguous()


def _padded(tensor: Tensor, multiple: int) -> Tensor:
    """With zeros appended until the channels are a multiple of a number."""
    missing = -tensor.shape[-1] % multiple
    return functional.pad(tensor, (0, missing)) if missing else tensor


def _cost(matrices: Tensor) -> int:
    return 1 + matrices.numel() // OPERATIONS_PER_UNIT


def _array(tensor: Tensor):
    return tensor.detach().contiguous().numpy()


def _check(features: Tensor, weight: Tensor, kernel_map: KernelMap, bias: Tensor | None) -> None:
    if weight.ndim != 5 or tuple(weight.shape[:3]) != kernel_map.kernel_size:
        raise ValueError(
            f"weight must be (kz, ky, kx, in, out) with kernel size {kernel_map.kernel_size}, "
            f"got shape {tuple(weight.shape)}"
        )
    if features.shape != (kernel_map.rows_in, weight.shape[3]):
        raise ValueError(
            f"features must be ({kernel_map.rows_in} rows of the map, {weight.shape[3]} input "
            f"channels of the weight), got shape {tuple(features.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[4:]:
        raise ValueError(
            f"bias must have {weight.shape[4]} entries, got shape {tuple(bias.shape)}"
        )
