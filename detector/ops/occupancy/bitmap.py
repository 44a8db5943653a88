"""The bitmap index on a CPU; `cpu.py` describes its layout."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Int32
from torch import Tensor

from detector.ops.occupancy import cpu
from detector.ops.occupancy.shapes import Triple, convolved_shape
from detector.ops.threads import in_threads

BYTES_PER_WORD = 12  # 8 of bits, 4 of rank
LOOKUP_COST = 1  # units of 10 ns, see `in_threads`


class BitmapIndex:
    """Cells of a bounded grid, one bit each. Make one with `of_sorted` or `of_any`."""

    def __init__(self, shape: Triple, batch_size: int):
        self.shape = shape
        self.batch_size = batch_size
        self.line_words = -(-shape[2] // 64)
        line_count = batch_size * shape[0] * shape[1]
        # Zeros come from the system untouched: memory that stays empty is never paid for.
        self.words = np.zeros(line_count * self.line_words, np.uint64)
        self.rank = np.empty(line_count * self.line_words, np.int32)
        self.lines = np.zeros(line_count, np.uint8)
        self.coordinates: Int32[Tensor, "V 4"]

    @staticmethod
    def bytes_needed(shape: Triple, batch_size: int) -> int:
        return batch_size * shape[0] * shape[1] * -(-shape[2] // 64) * BYTES_PER_WORD

    @classmethod
    def of_sorted(
        cls, coordinates: Int32[Tensor, "V 4"], shape: Triple, batch_size: int
    ) -> BitmapIndex:
        """Of coordinates that are sorted, distinct and inside; they are kept, not copied."""
        index = cls(shape, batch_size)
        cpu.mark_sorted(
            coordinates.numpy(), index.words, index.rank, index.lines, *shape[:2], index.line_words
        )
        index.coordinates = coordinates
        return index

    @classmethod
    def of_any(
        cls, coordinates: Int32[Tensor, "N 4"], shape: Triple, batch_size: int
    ) -> BitmapIndex:
        """Of coordinates in any order, repeated or not, inside; rows with b < 0 don't count."""
        index = cls(shape, batch_size)
        index._mark(coordinates)
        index._finish()
        return index

    def union(self, coordinates: Int32[Tensor, "N 4"]) -> BitmapIndex:
        """Of these cells and the given ones, which are as for `of_any`."""
        index = BitmapIndex(self.shape, self.batch_size)
        index._mark(self.coordinates)
        index._mark(coordinates)
        index._finish()
        return index

    def dilate(self, chosen: Bool[Tensor, "V K"], kernel_size: Triple) -> BitmapIndex:
        """Of these cells and the neighbours inside the grid that each chose."""
        index = BitmapIndex(self.shape, self.batch_size)
        index._mark(self.coordinates)
        cpu.mark_chosen(
            self.coordinates.numpy(), chosen.numpy(), index.words, index.lines, *self.shape,
            index.line_words, kernel_size,
        )  # fmt: skip
        index._finish()
        return index

    def windows(
        self, kernel_size: Triple, stride: Triple, padding: Triple, dilation: Triple
    ) -> BitmapIndex:
        """Of the output cells of a strided convolution whose window holds a cell of this one."""
        shape = convolved_shape(self.shape, kernel_size, stride, padding, dilation)
        index = BitmapIndex(shape, self.batch_size)
        cpu.mark_windows(
            self.coordinates.numpy(), index.words, index.lines, *shape, index.line_words,
            kernel_size, stride, padding, dilation,
        )  # fmt: skip
        index._finish()
        return index

    def rows(self, coordinates: Int32[Tensor, "N 4"]) -> Int32[Tensor, " N"]:
        rows = torch.empty(len(coordinates), dtype=torch.int32)
        in_threads(
            cpu.find_rows, len(rows), coordinates.numpy(), self.words, self.rank, self.lines,
            self.batch_size, *self.shape, self.line_words, rows.numpy(), work_per_item=LOOKUP_COST,
        )  # fmt: skip
        return rows

    def table(
        self,
        sites: Int32[Tensor, "N 4"],
        kernel_size: Triple,
        stride: Triple,
        padding: Triple,
        dilation: Triple,
    ) -> Int32[Tensor, "K N"]:
        """Row of cell `site * stride - padding + offset * dilation`, or -1."""
        table = torch.empty(math.prod(kernel_size), len(sites), dtype=torch.int32)
        in_threads(
            cpu.fill_table, len(sites), sites.numpy(), self.words, self.rank, self.lines,
            *self.shape, self.line_words, kernel_size, stride, padding, dilation, table.numpy(),
            work_per_item=LOOKUP_COST * len(table),
        )  # fmt: skip
        return table

    def _mark(self, coordinates: Int32[Tensor, "N 4"]) -> None:
        cpu.mark(
            coordinates.numpy(), self.words, self.lines, *self.shape[:2], self.line_words
        )

    def _finish(self) -> None:
        """Ranks and coordinates from the bits."""
        counts = np.empty(len(self.lines), np.int32)
        in_threads(
            cpu.count_lines, len(counts), self.words, self.lines, self.line_words, counts,
            work_per_item=LOOKUP_COST,
        )  # fmt: skip
        ends = np.cumsum(counts, dtype=np.int64)
        self.coordinates = torch.empty(int(ends[-1]), 4, dtype=torch.int32)
        in_threads(
            cpu.emit_lines, len(ends), self.words, self.rank, self.lines, *self.shape[:2],
            self.line_words, ends, self.coordinates.numpy(),
            work_per_item=LOOKUP_COST,
        )  # fmt: skip
