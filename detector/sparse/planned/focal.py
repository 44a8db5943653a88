"""A focal convolution without waiting: its choice, the grid that grows from it, its products.

Its features never move to the grown grid's rows: the convolution reads the old rows through a
table whose sites are the grown grid's.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from detector.ops.cuda_runtime import Kernel
from detector.ops.occupancy.gpu import ONE, THREADS, blocks
from detector.sparse.planned.convolution import PlannedConvolution
from detector.sparse.planned.levels import Level, make_table
from detector.sparse.planned.network import Block, blocks_of

SOURCE = Path(__file__).with_name("focal.cu")
CUT_THREADS, GATE_ROWS, ROWS_OF_WARP = 1024, 128, 8
KEYS = 256
"""Counted by the first of their two bytes."""


class PlannedFocal:
    """Call `choose` and `gate`, and `mark` between them or beside `gate`; scan the grown level's
    bitmap and emit its coordinates; call `fill`; then `convolve`.

    Args:
        block: a `FocalConv3d` with what follows it.
        here: the level that comes in.
        grown: the level that goes out; another bitmap of the same grid.
        columns: of the rows that come in.
        expected_rows: of the two levels.
    """

    def __init__(
        self, block: Block, here: Level, grown: Level, dtype: torch.dtype, *, columns: int,
        expected_rows: tuple[int, int],
    ):  # fmt: skip
        conv = block.conv
        self.here, self.grown, self.columns = here, grown, columns
        self.kernel_size, self.threshold = conv.kernel_size, conv.threshold
        self.by_own, self.by_neighbours = conv.gate_by_own_importance, conv.mask_kernel
        self.branch = []
        width = columns
        importance = Block(conv.importance, None, False)
        for part in [*(blocks_of(conv.enlarge) if conv.enlarge else []), importance]:
            made = PlannedConvolution(
                part.conv.weight.detach(), part.conv.bias, part.norm, here,
                here.submanifold(part.conv.kernel_size), dtype, columns=width, relu=part.relu,
                expected_rows=expected_rows[0],
            )  # fmt: skip
            self.branch.append(made)
            width = made.out_channels
        self.logits = self.branch[-1].out
        """(capacity, PITCH): of the last frame."""
        # Of the gate: who chose a voxel is among its neighbours.
        self.seen = here.submanifold(self.kernel_size) if self.by_neighbours else None
        self.table = make_table(grown, self.kernel_size)
        self.conv = PlannedConvolution(
            conv.weight.detach(), conv.bias, block.norm, grown, self.table, dtype,
            columns=columns, relu=block.relu, expected_rows=expected_rows[1],
        )  # fmt: skip
        batch_size, device = here.bitmap.batch_size, here.coordinates.device
        self.keys = self.counts = self.cuts = None
        if conv.top_k:
            eights = -(-here.capacity // 8) * 8
            self.keys = torch.zeros(eights, dtype=torch.int16, device=device)
            self.counts = torch.zeros(batch_size, KEYS, dtype=torch.int32, device=device)
            self.cuts = torch.zeros(batch_size, 2, dtype=torch.int32, device=device)
        defines = dict(
            zip(("KZ", "KY", "KX"), self.kernel_size, strict=True), PITCH=width,
            TOP_K=int(conv.top_k), BF16=int(dtype == torch.bfloat16),
        )  # fmt: skip
        self._list_keys = Kernel(SOURCE, "list_keys", "PPPiPP", defines)
        self._find_cuts = Kernel(SOURCE, "find_cuts", "PPdP", defines)
        self._mark_chosen = Kernel(SOURCE, "mark_chosen", "PPPiPfPiiii", defines)
        self._gate = Kernel(SOURCE, "gate", "PPPiPfPiiiPi", defines)

    @property
    def out_channels(self) -> int:
        return self.conv.out_channels

    @property
    def channels(self) -> int:
        return self.conv.channels

    @property
    def _rows(self) -> tuple[Tensor, Tensor, Tensor, int]:
        here = self.here
        return self.logits, here.coordinates, here.count, here.capacity

    def choose(self, features: Tensor) -> None:
        """The logits and, with top-k, where each frame's foreground ends."""
        for convolution in self.branch:
            features = convolution(features)
        if self.keys is None:
            return
        device = self.here.bitmap.device.index
        self._list_keys(
            (blocks(self.here.capacity),), THREADS, *self._rows, self.keys, self.counts,
            device=device,
        )  # fmt: skip
        self._find_cuts(
            (len(self.cuts),), CUT_THREADS, self.keys, self.counts, self.threshold, self.cuts,
            device=device,
        )  # fmt: skip

    def keep(self) -> None:
        """Marks the old voxels in the grown level, whose bits are clear before; needs no choice."""
        self.grown.bitmap.mark(self.here.coordinates, self.here.count)

    def mark(self) -> None:
        """Marks the chosen neighbours in the grown level."""
        bitmap = self.grown.bitmap
        self._mark_chosen(
            (blocks(self.here.capacity, THREADS // 32 * ROWS_OF_WARP),), THREADS, *self._rows,
            self.cuts, self.threshold, bitmap.words, *bitmap.dimensions,
            device=bitmap.device.index,
        )  # fmt: skip
        if self.counts is not None:
            self.counts.zero_()  # for the next frame

    def gate(self, features: Tensor) -> None:
        """Multiplies the features by the gates, in place."""
        if not (self.by_own or self.by_neighbours):
            return
        table = self.seen.table if self.seen else None
        self._gate(
            (blocks(self.here.capacity, GATE_ROWS),), GATE_ROWS, *self._rows, self.cuts,
            self.threshold, table, table.stride(0) if self.seen else 0, int(self.by_neighbours),
            int(self.by_own), features, self.columns, device=self.here.bitmap.device.index,
        )  # fmt: skip

    def fill(self) -> None:
        """The grown sites' table of old rows."""
        padding = tuple(size // 2 for size in self.kernel_size)
        self.here.bitmap.fill_table(
            self.grown.coordinates, self.grown.count, self.table.table, self.table.masks,
            self.kernel_size, ONE, padding, ONE, self.here.capacity,
        )  # fmt: skip

    def convolve(self, features: Tensor) -> Tensor:
        """Rows of the grown level."""
        return self.conv(features)
