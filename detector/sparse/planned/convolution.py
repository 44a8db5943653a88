"""A convolution with what follows it - batch norm, residual, ReLU - in one kernel."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from detector.ops.sparse_conv import tensor_cores
from detector.sparse.planned.levels import Level, Rows, Table

After = Literal["features", "table"]


class PlannedConvolution:
    """Weights folded and packed, with its output buffer.

    Args:
        weight: (kz, ky, kx, in, out).
        bias: (out,) or None.
        norm: batch norm after the convolution, in evaluation mode; None is none.
        columns: of the rows that come in, which may be wider than the weight's channels.

    Raises:
        ValueError: more than 128 channels, or float32 that is not to be TF32, for which there are
            no such kernels.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, norm: nn.Module | None, sites: Level | Rows,
        table: Table, dtype: torch.dtype, *, columns: int, relu: bool, expected_rows: int,
    ):  # fmt: skip
        offsets = weight.shape[:3].numel()
        device = weight.get_device()
        source, target = weight.shape[3:]
        if not tensor_cores.convolves(dtype, source, target, offsets, device):
            raise ValueError(
                f"a planned convolution takes 16-bit floats or, where torch multiplies it as TF32, "
                f"float32, and up to 128 channels, got {dtype}, {source} to {target}; run the "
                f"network without a plan"
            )
        self.channels = target
        self.in_channels = tensor_cores.padded_channels(
            max(source, columns), tensor_cores.IN_CHANNELS
        )
        self.out_channels = tensor_cores.padded_channels(target, tensor_cores.OUT_CHANNELS)
        gains = tensor_cores.gains_by_order(self.in_channels, offsets, expected_rows)
        self.table = table.form(in_order=gains)
        self.kernels = tensor_cores.best_convolution(
            dtype, self.in_channels, self.out_channels, offsets, device, expected_rows,
            in_order=self.table.order is not None, sharing=True,
        )  # fmt: skip
        self.sites, self.relu = sites, relu
        scale, shift = _folded(norm, bias, target, device)
        self.packed = self.kernels.packed(weight.float().flatten(0, 2).contiguous(), scale=scale)
        self.bias = functional.pad(shift, (0, self.out_channels - target)).contiguous()
        self.out = torch.zeros(sites.capacity, self.out_channels, dtype=dtype, device=device)

    def __call__(
        self, features: Tensor, residual: Tensor | None = None, *, after: After = "features"
    ) -> Tensor:
        """Rows (capacity, in_channels) -> rows (capacity, out_channels), always the same memory.

        Args:
            after: what may still be in the making: features and residual alone, by the kernel
                started just before, or the table, too, by that one or another that its stream has
                just been told to wait for.
        """
        self.kernels(
            features, self.packed, self.table.table, self.table.masks, self.sites.count,
            self.sites.capacity, self.out, order=self.table.order, tiles=self.table.tiles,
            bias=self.bias, residual=residual, relu=self.relu, after=after,
        )  # fmt: skip
        return self.out


def _folded(
    norm: nn.Module | None, bias: Tensor | None, channels: int, device: int
) -> tuple[Tensor, Tensor]:
    """Factor and summand of each output channel that stand for bias and batch norm."""
    place = torch.device("cuda", device)
    shift = torch.zeros(channels, device=place) if bias is None else bias.detach().float()
    if norm is None:
        return torch.ones(channels, device=place), shift
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = (shift.double() - norm.running_mean.double()) * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    return scale.float().contiguous(), shift.float().contiguous()
