"""How the kernels of `conv.cu`, `conv_split.cu` and `conv_sm90.cu` are set up and started."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from detector.ops.cuda_runtime import Kernel, Memory, multiprocessors, shared_memory_limit
from detector.ops.occupancy.tables import ORDERED
from detector.ops.sparse_conv.divisions import (
    MULTIPROCESSORS,
    Division,
    Ring,
    measured,
    of_shared_tiles,
    usual,
)

CONV = Path(__file__).with_name("conv.cu")
CONV_SPLIT = Path(__file__).with_name("conv_split.cu")
CONV_SM90 = Path(__file__).with_name("conv_sm90.cu")
IN_CHANNELS = (4, 8, 16, 32, 64, 128)
OUT_CHANNELS = (16, 32, 64, 128)
HALVES = (torch.float16, torch.bfloat16)
FRAGMENT_BYTES = 512
BARRIER_BYTES = 8
LEAST_SHARED = 27
"""Offsets."""
FOLLOWS = {None: 0, "pack": 0, "features": 1, "table": 2}


@functools.cache
def padded_channels(channels: int, sizes: tuple[int, ...]) -> int | None:
    """The smallest size that holds so many channels."""
    return next((size for size in sizes if size >= channels), None)


def fits(
    dtype: torch.dtype, in_channels: int, out_channels: int, offsets: int, device: int
) -> bool:
    """Are there tensor-core kernels for these sizes, filled up?"""
    if dtype not in HALVES or max(in_channels, out_channels) > IN_CHANNELS[-1]:
        return False
    wide_in = padded_channels(in_channels, IN_CHANNELS)
    wide_out = padded_channels(out_channels, OUT_CHANNELS)
    return _tile(wide_in, wide_out, offsets, device) is not None


def convolves(
    dtype: torch.dtype, in_channels: int, out_channels: int, offsets: int, device: int
) -> bool:
    """As `fits`, for convolutions alone: they also multiply float32 as TF32, where torch is set
    to."""
    if dtype != torch.float32 or not torch.backends.cuda.matmul.allow_tf32:
        return fits(dtype, in_channels, out_channels, offsets, device)
    if max(in_channels, out_channels) > IN_CHANNELS[-1]:
        return False
    wide_in = padded_channels(in_channels, IN_CHANNELS)
    wide_out = padded_channels(out_channels, OUT_CHANNELS)
    return _tile(2 * wide_in, wide_out, offsets, device) is not None


def _weight_bytes(in_channels: int, tile: int, offsets: int) -> int:
    steps = -(-offsets // max(1, 16 // in_channels))
    return steps * (tile // 16) * max(1, in_channels // 16) * FRAGMENT_BYTES


@functools.cache
def _tile(in_channels: int, out_channels: int, offsets: int, device: int) -> int | None:
    """Output channels of a block: as many as leave room for all weights in shared memory."""
    steps = -(-offsets // max(1, 16 // in_channels))
    limit = shared_memory_limit(device) - 2048 - steps * BARRIER_BYTES
    for tile in (64, 32, 16):
        if out_channels % tile == 0 and _weight_bytes(in_channels, tile, offsets) <= limit:
            return tile
    return None


@dataclass(frozen=True)
class Convolution:
    """The kernels of one shape; a block makes `tile` output channels."""

    convolve: Kernel
    pack: Kernel
    division: Division | Ring
    tile: int
    threads: int
    packed_words: int
    in_channels: int
    out_channels: int
    device: int

    def packed(
        self,
        weight: Tensor,
        *,
        turned: bool = False,
        flipped: bool = False,
        scale: Tensor | None = None,
    ) -> Tensor:
        """Weights (K, in, out) in the kernel's order; where they have fewer channels than the
        kernel, zeros fill up. The kernel counts in their memory: one stream at a time may use it.

        Args:
            turned: the given weights are (K, out, in).
            flipped: they are numbered backwards.
            scale: (out,) float32, a factor of each output channel.
        """
        packed = torch.empty(self.packed_words, dtype=torch.int32, device=weight.device)
        self.start_pack(weight, packed, turned=turned, flipped=flipped, scale=scale)
        return packed

    def start_pack(
        self, weight: Tensor, packed: Memory, *, turned: bool = False, flipped: bool = False,
        scale: Tensor | None = None,
    ) -> None:  # fmt: skip
        """`packed` into memory that is given, `packed_words` of 4 bytes; the weights may come as
        (kz, ky, kx, in, out)."""
        source, target = weight.shape[:-3:-1] if turned else weight.shape[-2:]
        self.pack(
            (-(-self.packed_words // 256),), 256, weight, int(weight.dtype == torch.float32),
            int(turned), int(flipped), scale, source, target, packed, device=self.device,
        )  # fmt: skip

    def __call__(
        self,
        features: Memory,
        packed: Memory,
        table: Tensor,
        masks: Memory,
        count: Memory,
        capacity: int,
        out: Memory,
        *,
        order: Memory = None,
        tiles: Memory = None,
        bias: Memory = None,
        residual: Memory = None,
        relu: bool = False,
        after: Literal["pack", "features", "table"] | None = None,
    ) -> None:
        """out[o] = act(bias + sum + residual[o]) for o < min(count, capacity); `out` may be the
        residual's own memory.

        Args:
            order: the table's column p stands for row order[p]; None: for row p.
            tiles: of 64 columns, as they are to be dealt out; None: one after another.
            after: what the kernel started just before makes - `pack` the weights, another the
                features and the residual, or the table, too; this one then begins before it ends.
        """
        if capacity == 0:
            return
        columns = self.out_channels // self.tile
        most = -(-capacity // self.division.tile_rows)
        resident, in_turn = 1, False
        if isinstance(self.division, Division):
            resident, in_turn = self.division.resident, self.division.dealt or self.division.listed
        grid = min(most, max(1, multiprocessors(self.device) * resident // columns))
        self.convolve(
            (grid, columns), self.threads, features, packed, table, table.stride(0), masks, order,
            tiles if in_turn else None, count, capacity, bias, residual, int(relu), out,
            FOLLOWS[after], device=self.device, overlap=after is not None,
        )  # fmt: skip


def best_convolution(
    dtype: torch.dtype, in_channels: int, out_channels: int, offsets: int, device: int, rows: int,
    *, in_order: bool = False, sharing: bool = False,
) -> Convolution:  # fmt: skip
    """The kernels that measured fastest for about so many output rows; how they divide the work
    changes no result beyond rounding.

    Args:
        in_order: the table is, so that its tiles' work differs much.
        sharing: warps may share tiles, so that sums are added up in a sequence that depends on
            `rows`.
    """
    wide = dtype == torch.float32
    words = 2 * in_channels if wide else in_channels
    tile = _tile(words, out_channels, offsets, device)
    shape = words, out_channels, tile, rows, in_order
    division = None
    if sharing and not wide and offsets >= LEAST_SHARED:
        # Fewer multiprocessors have room for fewer tiles.
        alike = rows * MULTIPROCESSORS // multiprocessors(device)
        division = of_shared_tiles(words, out_channels, tile, alike)
    if division is None and not wide:
        division = measured(*shape)
    if division is None or (isinstance(division, Ring) and not _is_hopper(device)):
        division = usual(*shape, wide)
    if isinstance(division, Ring):
        tile = out_channels
    return convolution(dtype, in_channels, out_channels, offsets, device, tile, division)


def gains_by_order(in_channels: int, offsets: int, rows: int) -> bool:
    """Whether convolutions of about so many output rows save more time by a table in order
    (`detector.ops.occupancy.tables`) than making it takes."""
    least = 100_000 if in_channels < 64 else 40_000
    return offsets in ORDERED and in_channels >= 32 and rows >= least


@functools.cache
def _is_hopper(device: int) -> bool:
    return torch.cuda.get_device_capability(device) == (9, 0)


@functools.cache
def convolution(
    dtype: torch.dtype, in_channels: int, out_channels: int, offsets: int, device: int,
    tile: int, division: Division | Ring,
) -> Convolution:  # fmt: skip
    """Kernels for features of `in_channels` (rows of exactly so many) and `offsets` offsets;
    float32 is multiplied as TF32, by a `Division` alone.

    Args:
        tile: output channels of a block; a `Ring` takes all there are, or more tiles.
    """
    wide = dtype == torch.float32
    words = 2 * in_channels if wide else in_channels
    defines = dict(
        CIN=words, COUT=out_channels, TILE=tile, OFFSETS=offsets, DEPTH=division.depth,
        BF16=int(dtype == torch.bfloat16),
    )  # fmt: skip
    packed_words = _weight_bytes(words, tile, offsets) // 4
    if isinstance(division, Ring):
        step_bytes = tile // 16 * max(1, min(in_channels, 64) // 16) * FRAGMENT_BYTES
        room = shared_memory_limit(device) - 2048
        stages = min(division.stages, room // (step_bytes + 2 * BARRIER_BYTES))
        defines |= dict(GROUPS_OF_WARPS=division.warps // 4, STAGES=stages)
        source, threads = CONV_SM90, (division.warps + 4) * 32
        shared = stages * (step_bytes + 2 * BARRIER_BYTES)
    else:
        steps = -(-offsets // max(1, 16 // words))
        eights = division.tile_rows // 8
        defines |= dict(
            NB=eights, WARPS=division.warps, RESIDENT=division.resident,
            DEALT=int(division.dealt), TF32=int(wide),
        )  # fmt: skip
        source, threads = CONV, division.warps * 32
        shared = 4 * packed_words
        if division.split > 1:
            source = CONV_SPLIT
            defines["SPLIT"] = division.split
            shared = max(shared, division.warps * eights * (tile // 16) * FRAGMENT_BYTES)
        shared += steps * BARRIER_BYTES
        packed_words += 2  # counters
    exact = source == CONV_SM90
    return Convolution(
        convolve=Kernel(source, "convolve", "PPPiPPPPiPPiPi", defines, shared, exact=exact),
        pack=Kernel(source, "pack", "PiiiPiiP", defines, exact=exact),
        division=division, tile=tile, threads=threads,
        packed_words=out_channels // tile * packed_words,
        in_channels=in_channels, out_channels=out_channels, device=device,
    )  # fmt: skip
