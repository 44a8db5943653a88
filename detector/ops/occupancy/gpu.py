"""The bitmap index on a GPU, with the methods of the CPU's.

Making one whose size is not known waits for the GPU once, `windows_chain` once for a whole network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int32
from torch import Tensor

from detector.ops.occupancy import lent
from detector.ops.occupancy.gpu_bitmap import BYTES_PER_WORD, Bitmap, Bits, words_of
from detector.ops.occupancy.shapes import Triple, shapes_along
from detector.ops.occupancy.tables import ConvTable, fill_table


class BitmapIndex:
    """Cells of a bounded grid, one bit each. Make one with `of_sorted` or `of_any`."""

    def __init__(self, bitmap: Bitmap, coordinates: Int32[Tensor, "V 4"]):
        self._bitmap: Bitmap | None = bitmap
        self.shape = bitmap.shape
        self.batch_size = bitmap.batch_size
        self.count = bitmap.count
        self.coordinates = coordinates

    @property
    def bitmap(self) -> Bitmap:
        if self._bitmap is None:
            self._bitmap = self.of_sorted(self.coordinates, self.shape, self.batch_size).bitmap
        return self._bitmap

    def release(self) -> None:
        """Gives the bitmap's memory back; it is made again when asked for."""
        self._bitmap = None

    @staticmethod
    def bytes_needed(shape: Triple, batch_size: int) -> int:
        return words_of(shape, batch_size) * BYTES_PER_WORD

    @classmethod
    def of_sorted(
        cls, coordinates: Int32[Tensor, "V 4"], shape: Triple, batch_size: int
    ) -> BitmapIndex:
        """Of coordinates that are sorted, distinct and inside; they are kept, not copied."""
        bitmap = Bitmap(shape, batch_size, coordinates.device, len(coordinates))
        bitmap.mark(coordinates)
        bitmap.scan()
        return cls(bitmap, coordinates)

    @classmethod
    def of_any(
        cls, coordinates: Int32[Tensor, "N 4"], shape: Triple, batch_size: int
    ) -> BitmapIndex:
        """Of coordinates in any order, repeated or not, inside; rows with b < 0 don't count."""
        bitmap = Bitmap(shape, batch_size, coordinates.device, len(coordinates))
        bitmap.mark(coordinates)
        return cls._finished(bitmap, len(coordinates))

    @classmethod
    def of_unchecked(
        cls, coordinates: Int32[Tensor, "N 4"], shape: Triple, batch_size: int
    ) -> tuple[BitmapIndex, bool, bool]:
        """As `of_any`, and whether a row lies outside, and whether the rows are in order and
        distinct; with one wait for all."""
        with lent.borrowing() as loan:
            bitmap = Bitmap(shape, batch_size, coordinates.device, len(coordinates))
        facts = torch.zeros(2, dtype=torch.int32, device=coordinates.device)
        bitmap.mark(coordinates, None, facts[:1], facts[1:])
        emitted = coordinates.new_empty(len(coordinates), 4)
        bitmap.scan(emitted)
        rows, outside, unsorted = torch.cat([bitmap.count, facts]).tolist()
        index = cls(bitmap, emitted[:rows])
        loan.to(index)
        return index, bool(outside), not unsorted

    @classmethod
    def _finished(cls, bitmap: Bitmap, most_rows: int) -> BitmapIndex:
        coordinates = bitmap.words.new_empty(most_rows, 4)
        bitmap.scan(coordinates)
        return cls(bitmap, coordinates[: int(bitmap.count)])

    def union(self, coordinates: Int32[Tensor, "N 4"]) -> BitmapIndex:
        """Of these cells and the given ones, which are as for `of_any`."""
        most = len(self.coordinates) + len(coordinates)
        bitmap = Bitmap(self.shape, self.batch_size, coordinates.device, most)
        bitmap.mark(self.coordinates)
        bitmap.mark(coordinates)
        return self._finished(bitmap, most)

    def dilate(self, chosen: Bool[Tensor, "V K"], kernel_size: Triple) -> BitmapIndex:
        """Of these cells and the neighbours inside the grid that each chose."""
        most = len(self.coordinates) * chosen.shape[1]
        bitmap = Bitmap(self.shape, self.batch_size, chosen.device, most)
        bitmap.mark(self.coordinates)
        bitmap.mark_neighbours(self.coordinates, self.bitmap.count, chosen, kernel_size)
        bitmap.scan()
        return self._emitted([bitmap], bitmap.totals[None])[0]

    def windows(
        self, kernel_size: Triple, stride: Triple, padding: Triple, dilation: Triple
    ) -> BitmapIndex:
        """Of the output cells of a strided convolution whose window holds a cell of this one."""
        return self.windows_chain([(kernel_size, stride, padding, dilation)])[0]

    def windows_chain(self, steps: Sequence[tuple[Triple, ...]]) -> list[BitmapIndex]:
        """The indices of strided convolutions one after another, with one wait for all."""
        shapes = shapes_along(self.shape, steps)[1:]
        bits = Bits(shapes, self.batch_size, self.coordinates.device)
        totals = torch.empty(len(steps), 2, dtype=torch.int32, device=self.coordinates.device)
        bitmaps, finer = [], self.bitmap
        most = len(self.coordinates)
        for step, shape, part, total in zip(
            steps, shapes, bits.parts, totals.unbind(), strict=True
        ):
            # A voxel lies in so many windows at most; a grid has so many cells.
            windows = math.prod(-(-k // s) for k, s in zip(*step[:2], strict=True))
            most = min(most * windows, self.batch_size * math.prod(shape))
            bitmap = Bitmap(
                shape, self.batch_size, self.coordinates.device, most, part, total
            )
            bitmap.mark_windows(finer, *step)
            bitmap.scan()
            bitmaps.append(bitmap)
            finer = bitmap
        return self._emitted(bitmaps, totals)

    @classmethod
    def _emitted(cls, bitmaps: Sequence[Bitmap], totals: Tensor) -> list[BitmapIndex]:
        """Indices with exactly as many rows as the bitmaps have bits; waits for their `totals`."""
        made = []
        for bitmap, (rows, _) in zip(bitmaps, totals.tolist(), strict=True):
            coordinates = bitmap.words.new_empty(rows, 4)
            bitmap.emit(coordinates)
            made.append(cls(bitmap, coordinates))
        return made

    def rows(self, coordinates: Int32[Tensor, "N 4"]) -> Int32[Tensor, " N"]:
        rows = coordinates.new_empty(len(coordinates))
        self.bitmap.find_rows(coordinates, rows)
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
        made = ConvTable.empty(math.prod(kernel_size), len(sites), sites.device)
        count = torch.full((1,), len(sites), dtype=torch.int32, device=sites.device)
        fill_table(
            self.bitmap, sites, count, [made], kernel_size, stride, padding, dilation
        )
        made.table.tile_masks = made.masks
        return made.table
