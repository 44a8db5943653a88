"""How the kernels of `weight_gradient.cu` are set up and started."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from detector.ops.cuda_runtime import Kernel, Memory, multiprocessors, shared_memory_limit

SOURCE = Path(__file__).with_name("weight_gradient.cu")
QUEUE_BYTES = 2048
ROWS_PER_TURN = 128
HEAVY = 3


@dataclass(frozen=True)
class WeightGradient:
    """The kernels of one shape."""

    gradient: Kernel
    reduce: Kernel
    in_channels: int
    out_channels: int
    tiles: int
    share: int
    team: int
    device: int

    def __call__(
        self, features: Tensor, out_gradient: Tensor, table: Tensor, count: Tensor, source: int,
        centred: bool,
    ) -> Tensor:  # fmt: skip
        """(K, source, out) float32; `source` of the features' channels are real.

        Args:
            centred: every voxel sees itself through the middle offset, as in submanifold maps.
        """
        partial = torch.empty(self.partial_sums(table, centred), device=features.device)
        total = torch.empty(len(table), source, self.out_channels, device=features.device)
        self.start(features, out_gradient, table, count, source, centred, partial, total)
        return total

    def partial_sums(self, table: Tensor, centred: bool) -> int:
        """How many float32 numbers `partial` holds."""
        slices = max(self._slices(table, centred))
        return slices * len(table) * self.in_channels * self.out_channels

    def start(
        self, features: Memory, out_gradient: Memory, table: Tensor, count: Memory, source: int,
        centred: bool, partial: Memory, total: Memory,
    ) -> None:  # fmt: skip
        """The same into memory that is given."""
        offsets, rows = table.shape
        groups = -(-offsets // self.share)
        heavy = offsets // 2 // self.share if centred else -1
        slices, heavy_slices = self._slices(table, centred)
        jobs = (groups - centred) * slices + heavy_slices
        self.gradient(
            (jobs, self.tiles), self.share * self.team * 32, features, out_gradient, table,
            table.stride(0), count, rows, offsets, slices, heavy, heavy_slices, partial,
            device=self.device,
        )  # fmt: skip
        self.reduce(
            (-(-offsets * source * self.out_channels // 256),), 256, partial, slices, heavy,
            heavy_slices, offsets, source, total, device=self.device,
        )  # fmt: skip

    def _slices(self, table: Tensor, centred: bool) -> tuple[int, int]:
        """Into how many parts the rows are divided, and those of the centre's group, which holds
        about as many pairs as three others."""
        offsets, rows = table.shape
        groups, weight = -(-offsets // self.share), HEAVY if centred else 0
        most = max(1, -(-rows // (ROWS_PER_TURN * self.team)))
        share = max(1, multiprocessors(self.device) // self.tiles // (groups - centred + weight))
        return min(most, share), min(most, share * weight)


@functools.cache
def gradient_kernels(
    dtype: torch.dtype, in_channels: int, out_channels: int, offsets: int, device: int
) -> WeightGradient:
    """Kernels for features of `in_channels`, at least 16."""
    tile_in, tile_out = min(64, in_channels), min(64, out_channels)
    share = 3 if offsets % 3 == 0 else 1
    team = 4 if share == 3 else 12
    stage = 32 * (tile_in + tile_out)
    limit = shared_memory_limit(device) - 1024 - share * team * QUEUE_BYTES
    stages = max(2, min(4, limit // (share * team * stage)))
    while share * team * stages * stage > limit:
        team -= 1
    defines = dict(
        CIN=in_channels, COUT=out_channels, TIN=tile_in, TOUT=tile_out, SHARE=share, TEAM=team,
        STAGES=stages, BF16=int(dtype == torch.bfloat16),
    )  # fmt: skip
    shared = share * team * (stages * stage + QUEUE_BYTES)
    return WeightGradient(
        gradient=Kernel(SOURCE, "weight_gradient", "PPPiPiiiiiP", defines, shared),
        reduce=Kernel(SOURCE, "reduce", "PiiiiiP", defines),
        in_channels=in_channels, out_channels=out_channels,
        tiles=(in_channels // tile_in) * (out_channels // tile_out),
        share=share, team=team, device=device,
    )  # fmt: skip
