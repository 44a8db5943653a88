"""A sparse convolution with a training batch norm, a summand and ReLU, as one step of autograd.

What the layers compute one by one, in fewer launches and calls: training on small frames waits for
the host, not for the GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from detector.ops.occupancy import KernelMap
from detector.ops.sparse_conv import gpu, tensor_cores
from detector.ops.sparse_norm.gpu import CHANNELS, norm_fits, norm_kernels


def takes(features: Tensor, weight: Tensor, kernel_map: KernelMap, norm: nn.BatchNorm1d) -> bool:
    """Whether these can be one step: on a GPU, in 16-bit floats."""
    if not features.is_cuda or kernel_map.rows_out < 2 or not norm_fits(norm):
        return False
    channels = weight.shape[4]
    return (
        channels in CHANNELS and channels in tensor_cores.OUT_CHANNELS
        and norm.num_features == channels
        and tensor_cores.fits(
            gpu.compute_dtype(features, weight), weight.shape[3], channels, len(kernel_map.table),
            features.get_device(),
        )
    )  # fmt: skip


def sparse_conv_norm(
    features: Tensor, weight: Tensor, kernel_map: KernelMap, norm: nn.BatchNorm1d,
    residual: Tensor | None = None, *, relu: bool = False,
) -> Tensor:  # fmt: skip
    """relu(norm(sparse_conv(features, weight)) + residual), where `takes` says so; `residual` is in
    the dtype that is computed in."""
    dtype = gpu.compute_dtype(features, weight)
    if residual is not None:
        residual = residual.contiguous()
    return _ConvNorm.apply(
        features.to(dtype), weight, norm.weight, norm.bias, residual, kernel_map, norm, relu
    )


class _ConvNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, weight, scale, shift, residual, kernel_map, norm, relu):
        x = gpu.convolve(features, weight.flatten(0, 2), kernel_map)
        kernels = norm_kernels(x.shape[1], x.dtype, relu, residual is not None)
        y, statistics = kernels.forward(x, norm, residual)
        ctx.save_for_backward(features, weight, scale, x, y, statistics)
        ctx.kernel_map, ctx.kernels = kernel_map, kernels
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, y_gradient: Tensor):
        features, weight, scale, x, y, statistics = ctx.saved_tensors
        out_gradient, residual_gradient, parameters = ctx.kernels.backward(
            y_gradient.to(y.dtype).contiguous(), x, y, scale, statistics
        )
        feature_gradient, weight_gradient = gpu.gradients(
            features, weight, out_gradient, ctx.kernel_map, *ctx.needs_input_grad[:2]
        )
        scale_gradient, shift_gradient = parameters.unbind()
        return (
            feature_gradient, weight_gradient, scale_gradient, shift_gradient, residual_gradient,
            None, None, None,
        )  # fmt: skip
