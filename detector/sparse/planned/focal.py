"""A focal convolution without waiting: its choice, the voxels it adds, its products.

The grown grid has no index of its own. Its rows are the old voxels' and then the added ones', in
any order; the next strided convolution, whose voxels are sorted again, looks both up. So nothing
moves, the table that the old voxels have grows by the added ones' columns, and no grid is scanned
twice.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from detector.ops.cuda_runtime import THREADS, Kernel, blocks
from detector.ops.occupancy.shapes import Triple
from detector.ops.occupancy.tables import TABLE_THREADS, is_known
from detector.ops.sparse_conv.tensor_cores import HALVES
from detector.sparse.conv import SparseConv3d
from detector.sparse.planned.convolution import After, PlannedConvolution
from detector.sparse.planned.levels import Level, Rows, Table
from detector.sparse.planned.network import Block, blocks_of

FOREGROUND, CHOICE, GROWN = (
    Path(__file__).with_name(f"{name}.cu") for name in ("foreground", "choice", "grown")
)
CUT_THREADS = 1024
CELLS_OF_BLOCK = 4096
"""That the voxels may add which a block looks at for important ones: what it remembers in shared
memory."""
WORDS_OF_BLOCK = 8 * TABLE_THREADS // 32
"""Of added voxels, 8 a warp."""
KEYS = 256
"""Counted by the first of their two bytes."""


class PlannedFocal:
    """Call `keep` before anything; one after another `choose`, `mark` and `number`, each of which
    begins while the one before ends; beside the last two, `gate`; `convolve` after all. Scan the
    level below after `mark`, and with the numbers `fill_below`.

    Args:
        block: a `FocalConv3d` with what follows it.
        after: the strided convolution that takes its result.
        here: the level that comes in.
        added: of the same grid, for the voxels that are added.
        below: the level that the strided convolution makes.
        columns: of the rows that come in.
        expected_rows: of the two levels.
    """

    def __init__(
        self, block: Block, after: SparseConv3d, here: Level, added: Level, below: Level,
        dtype: torch.dtype, *, columns: int, expected_rows: tuple[int, int],
    ):  # fmt: skip
        conv = block.conv
        if not is_known(conv.kernel_size):
            raise ValueError(f"a focal kernel of {conv.kernel_size} can't be planned")
        if dtype not in HALVES:
            raise ValueError(f"focal stages are planned in 16-bit floats, not in {dtype}")
        self.here, self.added, self.below, self.columns = here, added, below, columns
        self.kernel_size, self.threshold = conv.kernel_size, conv.threshold
        self.by_own, self.by_neighbours = conv.gate_by_own_importance, conv.mask_kernel
        self.after = after
        self.below_table = Table(
            after.kernel_size, False, below.capacity, below.coordinates.device
        )
        self.below_table.form()
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
        self.table = here.submanifold(self.kernel_size).form()
        self.grown = Rows(here.count.new_zeros(1), here.capacity + added.capacity)
        grown = Table(
            self.kernel_size, False, self.grown.capacity, here.coordinates.device
        )
        grown.forms[False] = self.table
        self.convolution = PlannedConvolution(
            conv.weight.detach(), conv.bias, block.norm, self.grown, grown, dtype,
            columns=columns, relu=block.relu, expected_rows=sum(expected_rows),
        )  # fmt: skip
        self.keys = self.counts = self.cuts = None
        if conv.top_k:
            batch_size, device = here.bitmap.batch_size, here.coordinates.device
            eights = -(-here.capacity // 8) * 8
            self.keys = torch.zeros(eights, dtype=torch.int16, device=device)
            self.counts = torch.zeros(batch_size, KEYS, dtype=torch.int32, device=device)
            self.cuts = torch.zeros(batch_size, 2, dtype=torch.int32, device=device)
        kernel = dict(zip(("KZ", "KY", "KX"), self.kernel_size, strict=True))
        following = dict(zip(("NZ", "NY", "NX"), after.kernel_size, strict=True))
        logits = dict(
            kernel, PITCH=width, TOP_K=int(conv.top_k), BF16=int(dtype == torch.bfloat16)
        )
        self._rows_of_block = rows_of_block(self.kernel_size)
        choice = dict(logits, **following, ROWS=self._rows_of_block)
        self._list_keys = Kernel(FOREGROUND, "list_keys", "PPPiPP", logits)
        self._find_cuts = Kernel(FOREGROUND, "find_cuts", "PPdP", logits)
        self._mark_chosen = Kernel(
            CHOICE, "mark_chosen", "PPPiPf" + "PPPPiP" + "iiii" + "PP" + "i" * 10 + "PPii", choice
        )
        self._gate = Kernel(CHOICE, "gate", "PPPiPfPiiiPi", choice)
        self._number_added = Kernel(
            GROWN, "number_added", "PPPiPPi" + "PPPi" + "iiii" + "Pi" + "PiPi",
            dict(kernel, **following),
        )  # fmt: skip
        self._fill_grown = Kernel(
            GROWN, "fill_grown", "PPPiPPiii" + "Ii" * 3 + "Pi" + "PPi" * 2 + "i" * 10 + "PiPi",
            dict(kernel, **following),
        )  # fmt: skip

    @property
    def out_channels(self) -> int:
        return self.convolution.out_channels

    @property
    def channels(self) -> int:
        return self.convolution.channels

    @property
    def coordinates(self) -> Tensor:
        """(V, 4) of the grown grid, in the order of its rows; waits for the GPU."""
        parts = [level.coordinates[: int(level.count)] for level in (self.here, self.added)]
        return torch.cat(parts)

    @property
    def _given(self) -> tuple[Tensor, Tensor, Tensor, int, Tensor | None, float]:
        here = self.here
        return (
            self.logits, here.coordinates, here.count, here.capacity, self.cuts, self.threshold
        )

    @property
    def _device(self) -> int:
        return self.here.bitmap.device.index

    def keep(self) -> None:
        """What needs no choice: nothing is added yet, and what old voxels mark below."""
        after = self.after
        self.added.bitmap.totals.zero_()
        self.below.bitmap.mark_windows(
            self.here.bitmap, after.kernel_size, after.stride, after.padding, after.dilation
        )

    def choose(self, features: Tensor, after: After) -> None:
        """The logits and, with top-k, where each frame's foreground ends."""
        for convolution in self.branch:
            features = convolution(features, after=after)
            after = "features"
        if self.keys is None:
            return
        self._list_keys(
            (blocks(self.here.capacity),), THREADS, *self._given[:4], self.keys, self.counts,
            device=self._device,
        )  # fmt: skip
        self._find_cuts(
            (len(self.cuts),), CUT_THREADS, self.keys, self.counts, self.threshold, self.cuts,
            device=self._device,
        )  # fmt: skip

    def mark(self) -> None:
        """Marks the chosen neighbours, and the cells below that see them."""
        old, added, below = (level.bitmap for level in (self.here, self.added, self.below))
        masks = self.table.masks
        self._mark_chosen(
            (blocks(self.here.capacity, self._rows_of_block),), THREADS, *self._given, old.words,
            added.words, added.lines, added.listed, len(added.listed), added.totals,
            *added.dimensions, below.words, below.lines, *below.dimensions, *self.after.stride,
            *self.after.padding, self.grown.count, masks, masks.shape[1], masks.numel(),
            device=self._device, overlap=True,
        )  # fmt: skip

    def number(self) -> None:
        """Rows and coordinates of the added voxels, and their part of the table."""
        here, added, table = self.here, self.added, self.table
        bitmap = added.bitmap
        self._number_added(
            (blocks(len(bitmap.listed), WORDS_OF_BLOCK),), TABLE_THREADS, bitmap.words,
            bitmap.rank, bitmap.listed, len(bitmap.listed), bitmap.totals, added.coordinates,
            added.capacity, here.bitmap.words, here.bitmap.rank, here.count, here.capacity,
            *bitmap.dimensions, self.grown.count, self.grown.capacity, table.table,
            table.table.stride(0), table.masks, table.masks.shape[1], device=self._device,
            overlap=True,
        )  # fmt: skip

    def fill_below(self) -> None:
        """The strided convolution's table of grown rows, and the coordinates below."""
        here, added, below = self.here, self.added, self.below
        table = self.below_table.form()
        self._fill_grown(
            (blocks(below.capacity, TABLE_THREADS),), TABLE_THREADS, *below.bitmap.scanned,
            below.coordinates, below.capacity, here.bitmap.words, here.bitmap.rank, here.capacity,
            added.bitmap.words, added.bitmap.rank, self.grown.capacity,
            *here.bitmap.dimensions, *self.after.stride, *self.after.padding, table.table,
            table.table.stride(0), table.masks, table.masks.shape[1], device=self._device,
        )  # fmt: skip

    def gate(self, features: Tensor) -> None:
        """Multiplies the features by the gates, in place."""
        if self.by_own or self.by_neighbours:
            table = self.table.table
            self._gate(
                (blocks(self.here.capacity, self._rows_of_block),), THREADS, *self._given, table,
                table.stride(0), int(self.by_neighbours), int(self.by_own), features,
                self.columns, device=self._device,
            )  # fmt: skip

    def convolve(self, features: Tensor) -> Tensor:
        """The result's rows."""
        return self.convolution(features, after="table")

    def forget(self) -> None:
        """Makes ready for the next frame."""
        if self.counts is not None:
            self.counts.zero_()


def rows_of_block(kernel_size: Triple) -> int:
    """How many voxels a block looks at for important ones."""
    return max(32, CELLS_OF_BLOCK // math.prod(kernel_size) // 32 * 32)
