"""How convolutions on tensor cores divide their work, which changes no result beyond rounding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

TINY, FEW, SOME, MANY = 10_000, 30_000, 60_000, 150_000


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
    listed: bool = False
    """Of a table in order, tiles are taken in that sequence, too, where they aren't dealt."""
    steady: bool = False
    """No way out of the loop between the steps of a turn."""
    spread: bool = False
    """A block begins with tiles from all over, not with adjacent ones."""


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


steady = partial(Division, steady=True, spread=True)
dealt = partial(steady, dealt=True)

# By 16-bit words that come in, channels that go out and channels of a block: up to so many output
# rows, by a table as it is and (where it is another) by one in order. Behind each line: for so many
# rows of simulated frames (thousands) the microseconds of the convolution alone; float16, 27
# offsets, an H100 80 GB, 2026-11-25.
MEASURED = {
    (4, 16, 16): [
        (FEW, steady(32, 16)),  # 19: 5.5
        (math.inf, steady(64, 16)),  # 78: 7.5, 117: 8.3, 306: 17.7
    ],
    (8, 16, 16): [
        (FEW, steady(32, 16)),  # 19: 7.3
        (math.inf, steady(64, 16)),  # 78: 9.6, 117: 10.4, 306: 25.0, 460: 38.5
    ],
    (16, 16, 16): [
        (FEW, steady(32, 16, depth=3)),  # 19: 8.0
        (MANY, steady(64, 16)),  # 78: 13.3, 117: 15.0
        (math.inf, steady(64, 16, depth=3)),  # 306: 36.3, 460: 50.5
    ],
    (16, 32, 32): [
        (MANY, steady(32, 16, depth=3)),  # 22: 8.9, 88: 16.2, 111: 15.9
        (math.inf, dealt(32, 16, depth=3)),  # 353: 47.2, 444: 53.4
    ],
    (32, 16, 16): [(math.inf, steady(32, 16, depth=3))],  # 19: 8.9, 117: 12.9, 306: 41.0
    (32, 32, 32): [
        (FEW, steady(16, 16, depth=3)),  # 22: 9.2
        (MANY, steady(32, 16, depth=3)),  # in order 79: 17.4, 111: 21.5
        (math.inf, dealt(32, 8, depth=3, resident=2)),  # in order 353: 63.0, 444: 70.5
    ],
    (32, 64, 64): [
        (FEW, steady(16, 16, depth=3)),  # 13: 9.9
        (SOME, steady(32, 12), steady(32, 12, listed=True)),  # in order 39: 15.7, 45: 15.0, 16.2
        (math.inf, dealt(32, 12, depth=3)),  # in order 161: 39.0, 189: 46.7
    ],
    (64, 32, 32): [
        (FEW, steady(16, 12, depth=3)),  # 22: 10.8
        (math.inf, steady(32, 16)),  # 88: 21.6, 111: 21.6, 353: 63.7
    ],
    (64, 64, 64): [
        (FEW, steady(16, 12, depth=3)),  # 13: 13.5, 19: 12.8
        (SOME, steady(32, 12), steady(32, 12, listed=True)),  # in order 39: 24.7, 45: 21.8, 26.1
        # As it is 78: 35.5; in order 27.5.
        (100_000, steady(32, 12), dealt(32, 8, depth=3)),
        # As it is 117: 53.3; in order 41.5, 161: 71.8, 189: 81.0.
        (math.inf, steady(32, 12), dealt(32, 12)),
    ],
    (64, 128, 64): [
        (TINY, steady(16, 12, depth=3)),  # 6: 12.9
        (FEW, steady(32, 12)),  # 16: 21.3, 17: 21.9, 20: 23.8
        (math.inf, steady(32, 12), dealt(32, 12)),  # in order 64: 47.5, 70: 52.0
    ],
    (128, 64, 32): [
        (FEW, steady(16, 12, depth=3)),  # 13: 21.3
        (math.inf, steady(32, 12)),  # 39: 38.2, 45: 43.2, 161: 133
    ],
    (128, 128, 32): [
        (TINY, steady(16, 16, depth=3)),  # 6: 23.9
        (math.inf, Ring()),  # 16: 33.5, 17: 42.1, in order 64: 135
    ],
}  # fmt: skip


def measured(
    words: int, out_channels: int, tile: int, rows: int, in_order: bool
) -> Division | Ring | None:
    """None: these were not measured.

    Args:
        words: 16-bit words that come in.
        tile: output channels of a block.
        in_order: by a table in order.
    """
    for up_to, *divisions in MEASURED.get((words, out_channels, tile), ()):
        if rows <= up_to:
            return divisions[-1 if in_order else 0]
    return None


def usual(
    words: int, out_channels: int, tile: int, rows: int, in_order: bool, wide: bool
) -> Division:
    """For what else there is, by what was fastest before loops were steady. Arguments as of
    `measured`, and `wide`: float32, as TF32."""
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
    elif tile == 64 and out_channels < 128 and (words == 32 or rows < SOME):
        warps = 8 if is_dealt and words == 64 else 12
    elif tile == 32 and words == 64 and wide:
        warps = 16
    return Division(tile_rows, warps, resident=resident, dealt=is_dealt)
