"""How convolutions on tensor cores divide their work, which changes no result beyond rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

MULTIPROCESSORS = 132
"""Of the GPU that was measured, an H100."""
TINY, FEW, SOME, MANY = 10_000, 25_000, 100_000, 150_000


@dataclass(frozen=True)
class Division:
    """Of `conv.cu`, whose macros say more."""

    tile_rows: int
    """Rows of a warp: 16, 32 or 64."""
    warps: int
    """Of a block."""
    depth: int = 2
    """Steps whose features are on their way or in use."""
    resident: int = 1
    """Blocks on a multiprocessor."""
    dealt: bool = False
    """Tiles are given out as warps ask for them, of a table in order those with most offsets
    first."""
    split: int = 1
    """Warps that share a tile. More than one is for `conv_split.cu`, where `dealt`, `listed` and
    `resident` mean nothing."""
    listed: bool = False
    """Of a table in order, tiles are taken in that sequence, too, where they aren't dealt."""


@dataclass(frozen=True)
class Ring:
    """Of `conv_sm90.cu`, for Hopper GPUs: a block makes all output channels."""

    warps: int = 8
    """Of a block, with 16 rows each."""
    depth: int = 3
    """Steps whose features are on their way or in use."""
    stages: int = 6
    """Steps whose weights are in shared memory."""

    @property
    def tile_rows(self) -> int:
        return 16 * self.warps


listed = partial(Division, listed=True)
dealt = partial(Division, dealt=True)
shared = partial(Division, split=2)

# 16-bit words that come in, channels that go out, channels of a block: up to so many output rows,
# by a table as it is and (where it is another) by one in order. Above each line: rows of simulated
# frames and the microseconds of the convolution alone for them (float16, 27 offsets unless another
# number is said, an H100); behind a stroke those by a table in order.
MEASURED = {
    (4, 16, 16): [
        # 18,564: 5.5
        (FEW, Division(32, 16)),
        # 78,391: 7.5; 117,011: 8.3; 306,454: 17.7
        (math.inf, Division(64, 16)),
    ],
    (8, 16, 16): [
        # 18,564: 7.3
        (FEW, Division(32, 16)),
        # 71,499: 9.5; 78,391: 9.6; 117,011: 10.4; 306,454: 25.0; 459,595: 38.5
        (math.inf, Division(64, 16)),
    ],
    (16, 16, 16): [
        # 18,564: 8.0
        (FEW, Division(32, 16, depth=3)),
        # 71,499: 13.4; 78,391: 13.6; 117,011: 15.5; 306,454: 36.3; 459,595: 50.5
        (math.inf, Division(64, 16, depth=3)),
    ],
    (16, 32, 32): [
        # 21,506: 8.9; 78,636: 14.5; 88,293: 16.2; 110,596: 15.9
        (MANY, Division(32, 16, depth=3)),
        # 353,340: 47.2; 444,421: 53.4
        (math.inf, dealt(32, 16, depth=3)),
    ],
    (32, 16, 16): [
        # 18,564: 8.9; 78,391: 14.3; 117,011: 12.9; 306,454: 41.0
        (math.inf, Division(32, 16, depth=3)),
    ],
    (32, 32, 32): [
        # 21,506: 9.2
        (FEW, Division(16, 16, depth=3)),
        # 78,636: 17.6/18.6; 88,293: 21.6/22.2; 110,596: -/21.5
        (MANY, Division(32, 8, depth=3, resident=2), Division(32, 16, depth=3)),
        # 353,340: 76.2/63.0; 444,421: 83.8/70.5
        (math.inf, Division(32, 16), dealt(32, 8, depth=3, resident=2)),
    ],
    (32, 64, 64): [
        # 13,043: 9.9
        (FEW, Division(16, 16, depth=3)),
        # 39,425: 17.9/15.7; 44,921: 16.9/15.0; 45,448: 17.5/16.2
        (SOME, Division(32, 12), listed(32, 12)),
        # 160,735: 54.0/39.0; 188,863: 54.3/46.7
        (math.inf, Division(32, 16), dealt(32, 12, depth=3)),
    ],
    (64, 32, 32): [
        # 21,506: 10.8
        (FEW, Division(16, 12, depth=3)),
        # 88,293: 21.6; 110,596: 21.6; 353,340: 63.7
        (math.inf, Division(32, 16)),
    ],
    (64, 64, 64): [
        # 13,043: 13.5; 18,564: 12.8
        (FEW, Division(16, 12, depth=3)),
        # 39,425: 26.8/24.7; 44,921: 25.9/21.8; 45,448: 26.8/26.1; 78,391: 35.5/27.7
        (SOME, Division(32, 12), listed(32, 12)),
        # 117,011: 53.3/41.5; 160,735: 86.2/71.8; 188,863: 92.5/81.0
        (math.inf, Division(32, 12), dealt(32, 12)),
    ],
    (64, 128, 64): [
        # 5,803: 12.9; of 3 offsets 5,065: 4.8
        (TINY, Division(16, 12, depth=3)),
        # 15,606: 21.3; 16,907: 21.9; 20,029: 23.8; 63,986: 67.6/47.5; 69,837: 68.4/52.0
        (math.inf, Division(32, 12), dealt(32, 12)),
    ],
    (128, 64, 32): [
        # 13,043: 21.3
        (FEW, Division(16, 12, depth=3)),
        # 39,425: 38.2; 45,448: 43.2; 160,735: 133.0
        (math.inf, Division(32, 12)),
    ],
    (128, 128, 32): [
        # 5,803: 23.7
        (TINY, Division(16, 16, depth=3)),
        # 15,606: 33.7; 16,907: 43.4; 20,029: 52.7; 63,986: 134.6/121.6; 69,837: 135.7/130.7
        (math.inf, Ring()),
    ],
    (128, 128, 64): [
        # of 3 offsets 5,065: 6.2
        (TINY, Division(16, 16)),
        # of 3 offsets 13,957: 8.5; 15,736: 8.4; 56,765: 23.8
        (math.inf, Division(32, 8)),
    ],
}  # fmt: skip

# For few rows, where warps may share tiles; 27 offsets and more. There may be half as many rows
# again before a block has a second tile, which costs it a lot: plans don't know how many there will
# be. Above each line the same as there.
SHARED = {
    (4, 16, 16): [
        # 18,564: 4.5
        (22_000, shared(32, 16, depth=3)),
    ],
    (8, 16, 16): [
        # 18,564: 5.1
        (22_000, shared(32, 16, depth=3)),
    ],
    (16, 16, 16): [
        # 18,564: 5.8
        (22_000, shared(32, 16, depth=3)),
    ],
    (16, 32, 32): [
        # 21,506: 6.8
        (22_000, shared(32, 16, depth=3)),
    ],
    (32, 16, 16): [
        # 18,564: 6.2
        (22_000, shared(32, 16, depth=3)),
    ],
    (32, 32, 32): [
        # 21,506: 7.7
        (22_000, shared(32, 16)),
    ],
    (32, 64, 64): [
        # 13,043: 8.0
        (TINY, shared(16, 16)),
        # 13,043: 8.8
        (16_000, shared(32, 12)),
    ],
    (64, 16, 16): [
        # 13,043: 7.4; 21,506: 7.3
        (22_000, shared(32, 16)),
    ],
    (64, 32, 32): [
        # 13,043: 7.3
        (TINY, shared(16, 16)),
        # 13,043: 8.2; 21,506: 8.7
        (16_000, shared(32, 12)),
    ],
    (64, 64, 64): [
        # 5,803: 8.3
        (5_000, Division(16, 12, depth=3, split=3)),
        # 13,043: 11.8
        (TINY, shared(16, 16)),
        # 13,043: 12.5; 15,606: 13.3; 16,907: 13.4
        (16_000, shared(32, 12)),
    ],
    (64, 128, 64): [
        # 5,803: 10.5
        (5_000, shared(16, 16)),
    ],
    (128, 32, 32): [
        # 13,043: 15.3; 21,506: 16.1
        (22_000, shared(32, 16)),
    ],
    (128, 64, 32): [
        # 5,803: 13.1
        (5_000, shared(16, 16)),
        # 13,043: 18.5
        (11_000, shared(32, 16)),
    ],
    (128, 128, 32): [
        # 5,803: 18.4
        (5_000, shared(32, 16)),
    ],
}


def of_shared_tiles(words: int, out_channels: int, tile: int, rows: int) -> Division | None:
    """None: sharing gains nothing, or was not measured. Arguments as of `measured`."""
    divisions = _line(SHARED.get((words, out_channels, tile), ()), rows)
    return divisions[0] if divisions else None


def measured(
    words: int, out_channels: int, tile: int, rows: int, in_order: bool
) -> Division | Ring | None:
    """None: these were not measured.

    Args:
        words: 16-bit words that come in.
        tile: output channels of a block.
        in_order: by a table in order.
    """
    divisions = _line(MEASURED.get((words, out_channels, tile), ()), rows)
    return divisions[-1 if in_order else 0] if divisions else None


def _line(lines: Sequence[tuple], rows: int) -> list[Division | Ring]:
    """The divisions of the first line for so many rows, or none."""
    return next((divisions for up_to, *divisions in lines if rows <= up_to), [])


def usual(
    words: int, out_channels: int, tile: int, rows: int, in_order: bool, wide: bool
) -> Division:
    """For what else there is, by what measured fastest in earlier versions of the kernel.

    Args:
        wide: float32, as TF32.
        others: see `measured`.
    """
    is_dealt = in_order or (words >= 16 and rows >= MANY)
    tile_rows, warps, resident = 32, 8, 1
    if tile == 16 and words >= 64:
        warps = 12
    elif tile == 16:
        tile_rows, warps = (32 if rows < FEW else 64), 16
    elif tile == 32 and words <= 32 and rows < FEW:
        tile_rows, warps = 16, 16
    elif tile == 32 and words == 16 and is_dealt:
        tile_rows, warps = 64, 16
    elif tile == 32 and words <= 32:
        resident = 2
    elif tile == 32 and words == 128:
        tile_rows, warps = (16, 12) if rows < TINY else (32, 16) if rows < FEW else (64, 8)
    elif tile == 64 and rows < (FEW if out_channels < 128 else TINY):
        tile_rows, warps = 16, 12
    elif tile == 64 and out_channels < 128 and (words == 32 or rows < 60_000):
        warps = 8 if is_dealt and words == 64 else 12
    elif tile == 32 and words == 64 and wide:
        warps = 16
    return Division(tile_rows, warps, resident=resident, dealt=is_dealt)
