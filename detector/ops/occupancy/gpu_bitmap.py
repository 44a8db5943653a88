"""Bitmaps on a GPU; `index.cu` describes their layout.

Nothing here waits for the GPU: fixed-capacity inference uses them as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from detector.ops.cuda_runtime import THREADS, Kernel, blocks
from detector.ops.occupancy import lent
from detector.ops.occupancy.shapes import ONE, Triple

INDEX = Path(__file__).with_name("index.cu")
SPAN, LINES_PER_SPAN = 1024, 32  # words and lines
SPANS_PER_BLOCK = 4  # of the scan
BYTES_PER_WORD = 8  # 4 of bits, 4 of rank
USUAL_WINDOWS = {(3, 3, 3), (2, 2, 2), (3, 1, 1)}

_mark = Kernel(INDEX, "mark", "PPiPPiiiiiPP")
_mark_neighbours = Kernel(INDEX, "mark_neighbours", "PPiPPP" + "i" * 7)
_scan = Kernel(INDEX, "scan", "PPiPPPiPiP")
_emit = Kernel(INDEX, "emit", "PPPPiPiiii")
_clear = Kernel(INDEX, "clear", "PPiPi")
_find_rows = Kernel(INDEX, "find_rows", "PPiPPiiiiiP")


@functools.cache
def _mark_windows(kernel_size: Triple, stride: Triple, dilation: Triple) -> Kernel:
    """Compiled for just these numbers if they are usual; for others compiling takes longer than it
    saves."""
    defines = {}
    if kernel_size in USUAL_WINDOWS and max(stride) <= 2 and dilation == ONE:
        names = [f"{kind}{axis}" for kind in "KSD" for axis in "ZYX"]
        defines = dict(zip(names, (*kernel_size, *stride, *dilation), strict=True))
    return Kernel(INDEX, "mark_windows", "PPPiiiiPP" + "i" * 16, defines)


class Bits:
    """The bits of some grids, zero at first, in one stretch of memory with what goes with them.

    `parts[i]` are grid i's words, a byte for each of their lines and the state of its scan.
    """

    def __init__(self, shapes: Sequence[Triple], batch_size: int, device: torch.device):
        spans = [max(1, -(-words_of(shape, batch_size) // SPAN)) for shape in shapes]
        states = [2 * blocks(count, SPANS_PER_BLOCK) for count in spans]
        total = sum(spans)
        memory = lent.zeros(total * (SPAN + LINES_PER_SPAN // 4) + sum(states), device)
        self.words = memory[: total * SPAN]
        self.lines = memory[total * SPAN : -sum(states)].view(torch.uint8)
        self.state = memory[-sum(states) :]
        self.device = memory.get_device()
        self.parts = list(zip(
            self.words.split([count * SPAN for count in spans]),
            self.lines.split([count * LINES_PER_SPAN for count in spans]),
            self.state.split(states), strict=True,
        ))  # fmt: skip

    def clear(self) -> None:
        """All zero again; touches only what was set."""
        _clear(
            (blocks(len(self.lines)),), THREADS, self.words, self.lines,
            len(self.lines) // LINES_PER_SPAN, self.state, len(self.state) // 2,
            device=self.device,
        )  # fmt: skip


def words_of(shape: Triple, batch_size: int) -> int:
    return batch_size * shape[0] * shape[1] * -(-shape[2] // 32)


def divisor(by: int) -> tuple[int, int]:
    """What `over` in `sight.cuh` takes to divide numbers below 2**31."""
    if by == 1:
        return 0, -1
    bits = (by - 1).bit_length()
    return -(-(1 << (31 + bits)) // by), bits - 1


class Bitmap:
    """Bits, ranks and the number of rows of one grid, all on the GPU.

    Args:
        most_rows: how many rows there can be; of more, only the count is right.
        bits: of `Bits.parts`; None takes new ones.
        totals: (2,) int32 to count in; None takes new ones.
    """

    def __init__(
        self, shape: Triple, batch_size: int, device: torch.device, most_rows: int,
        bits: tuple[Tensor, Tensor, Tensor] | None = None, totals: Tensor | None = None,
    ):  # fmt: skip
        self.shape = shape
        self.batch_size = batch_size
        self.line_words = -(-shape[2] // 32)
        if bits is None:
            bits = Bits([shape], batch_size, device).parts[0]
        self.words, self.lines, self.state = bits
        self.rank = lent.empty(len(self.words), device)
        self.listed = torch.empty(
            max(1, min(most_rows, words_of(shape, batch_size))), dtype=torch.int32, device=device
        )
        self.tile_words = torch.empty(
            -(-max(1, most_rows) // 32), dtype=torch.int32, device=device
        )
        if totals is None:
            totals = torch.empty(2, dtype=torch.int32, device=device)
        self.totals = totals
        self.count = totals[:1]
        self.device = torch.device("cuda", self.words.get_device())

    @property
    def dimensions(self) -> tuple[int, int, int, int]:
        return *self.shape, self.line_words

    @property
    def scanned(self) -> tuple:
        """What kernels take to find the cell of each row, after `scan`."""
        sizes = *self.shape[:2], self.line_words
        return (
            self.words, self.rank, self.listed, len(self.listed), self.tile_words, self.totals,
            *sizes, *(number for size in sizes for number in divisor(size)),
        )  # fmt: skip

    def mark(
        self,
        coordinates: Tensor,
        count: Tensor | None = None,
        outside: Tensor | None = None,
        unsorted: Tensor | None = None,
    ) -> None:
        """Sets bits; rows with b < 0, and beyond `count` where given, don't count."""
        if len(coordinates):
            _mark(
                (blocks(len(coordinates)),), THREADS, coordinates, count, len(coordinates),
                self.words, self.lines, self.batch_size, *self.dimensions, outside, unsorted,
                device=self.device.index,
            )  # fmt: skip

    def mark_windows(
        self, finer: Bitmap, kernel_size: Triple, stride: Triple, padding: Triple, dilation: Triple
    ) -> None:
        """Sets bits of the output cells of a strided convolution of a finer grid's voxels, after
        its `scan`."""
        _mark_windows(kernel_size, stride, dilation)(
            (blocks(len(finer.listed) * kernel_size[0]),), THREADS, finer.words, finer.listed,
            finer.totals[1:], len(finer.listed), *finer.shape[:2], finer.line_words, self.words,
            self.lines, *self.dimensions, *kernel_size, *stride, *padding, *dilation,
            device=self.device.index,
        )  # fmt: skip

    def mark_neighbours(
        self, coordinates: Tensor, count: Tensor, chosen: Tensor, kernel_size: Triple
    ) -> None:
        """Sets bits of the chosen neighbours (V, K) of each row."""
        if len(coordinates):
            _mark_neighbours(
                (blocks(len(coordinates)),), THREADS, coordinates, count, len(coordinates),
                chosen, self.words, self.lines, *self.dimensions, *kernel_size,
                device=self.device.index,
            )  # fmt: skip

    def scan(self, coordinates: Tensor | None = None) -> None:
        """Ranks and the count of the bits set; the first coordinates, as many as fit. On the stream
        on which they were set last: it begins while that still runs."""
        spans = len(self.lines) // LINES_PER_SPAN
        _scan(
            (blocks(spans, SPANS_PER_BLOCK),), THREADS, self.words, self.lines, spans, self.state,
            self.rank, self.listed, len(self.listed), self.tile_words, len(self.tile_words),
            self.totals, device=self.device.index, overlap=True,
        )  # fmt: skip
        if coordinates is not None:
            self.emit(coordinates)

    def emit(self, coordinates: Tensor) -> None:
        """The first coordinates, as many as fit, after `scan`."""
        if len(coordinates):
            most = min(len(self.listed), len(coordinates))
            _emit(
                (blocks(most),), THREADS, self.words, self.rank, self.listed, self.totals[1:],
                most, coordinates, len(coordinates), *self.shape[:2], self.line_words,
                device=self.device.index,
            )  # fmt: skip

    def find_rows(
        self, coordinates: Tensor, rows: Tensor, count: Tensor | None = None
    ) -> None:
        """Row of each cell, or -1."""
        if len(coordinates):
            _find_rows(
                (blocks(len(coordinates)),), THREADS, coordinates, count, len(coordinates),
                self.words, self.rank, self.batch_size, *self.dimensions, rows,
                device=self.device.index,
            )  # fmt: skip
