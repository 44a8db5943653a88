"""The indices and tables of a whole network, with room for a fixed number of voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from detector.ops.occupancy.gpu_bitmap import Bitmap, Bits
from detector.ops.occupancy.shapes import ONE, Triple
from detector.ops.occupancy.tables import ConvTable, can_be_ordered, fill_scanned, fill_table


class Table:
    """A kernel map with room for so many output rows, in the forms that are asked for before it is
    filled.

    Args:
        orderable: it can be filled in order.
    """

    def __init__(
        self, kernel_size: Triple, orderable: bool, columns: int, device: torch.device
    ):
        self.kernel_size, self.orderable = kernel_size, orderable
        self.forms: dict[bool, ConvTable] = {}
        """By whether they are in order."""
        self._size = math.prod(kernel_size), columns, device

    def form(self, *, in_order: bool = False) -> ConvTable:
        in_order &= self.orderable
        if in_order not in self.forms:
            self.forms[in_order] = ConvTable.empty(*self._size, in_order=in_order)
        return self.forms[in_order]


@dataclass
class Rows:
    """How many rows a convolution makes."""

    count: Tensor
    """(1,) int32 on the GPU."""
    capacity: int


@dataclass
class Level:
    """One grid: its index, its voxels' coordinates and how many there are."""

    bitmap: Bitmap
    coordinates: Tensor
    """(capacity, 4) int32, written with the first table whose sites they are; rows beyond the count
    mean nothing."""
    name: str
    """For messages."""
    tables: dict[Triple, Table] = field(default_factory=dict)
    """Submanifold maps by kernel size."""
    added: int = 0
    """Columns that submanifold tables have for a focal stage's new voxels."""

    @property
    def capacity(self) -> int:
        return len(self.coordinates)

    @property
    def count(self) -> Tensor:
        """(1,) int32 on the GPU; larger than the capacity if that was too small."""
        return self.bitmap.count

    def submanifold(self, kernel_size: Triple) -> Table:
        """Room for the map; `fill_submanifold` fills it."""
        if kernel_size not in self.tables:
            self.tables[kernel_size] = make_table(self, kernel_size, ONE, self.added)
        return self.tables[kernel_size]

    def fill_submanifold(self, *, first: bool = False) -> None:
        """Args:
            first: the coordinates are not there yet, and are written.
        """
        for table in self.tables.values():
            padding = tuple(k // 2 for k in table.kernel_size)
            about = table.forms.values(), table.kernel_size, ONE, padding, ONE, self.capacity
            if first:
                fill_scanned(self.bitmap, self.bitmap, self.coordinates, *about)
            else:
                fill_table(self.bitmap, self.coordinates, self.count, *about)


def make_table(
    level: Level, kernel_size: Triple, dilation: Triple = ONE, more: int = 0
) -> Table:
    """Room for a map whose output rows are a level's and so many more."""
    orderable = can_be_ordered(kernel_size, dilation)
    columns = level.capacity + more
    return Table(kernel_size, orderable, columns, level.coordinates.device)


class Levels:
    """All grids of a network; one call clears their bits."""

    def __init__(
        self, shapes: Sequence[Triple], capacities: Sequence[int], batch_size: int,
        device: torch.device, names: Sequence[str],
    ):  # fmt: skip
        self.bits = Bits(shapes, batch_size, device)
        self.totals = torch.zeros(len(shapes), 2, dtype=torch.int32, device=device)
        """Voxels, and words that hold any, of each level."""
        self.most = torch.zeros_like(self.totals)
        """The largest since they were last looked at."""
        self.levels = []
        parts = zip(shapes, capacities, names, self.bits.parts, strict=True)
        for number, (shape, capacity, name, bits) in enumerate(parts):
            bitmap = Bitmap(shape, batch_size, device, capacity, bits, self.totals[number])
            most = batch_size * math.prod(shape)
            coordinates = torch.empty(
                min(capacity, most), 4, dtype=torch.int32, device=device
            )
            self.levels.append(Level(bitmap, coordinates, name))

    def __getitem__(self, number: int) -> Level:
        return self.levels[number]

    def clear(self) -> None:
        """All bits to 0, for the next frame."""
        self.bits.clear()


@dataclass
class Step:
    """A strided convolution's way from one level to the next."""

    finer: Level
    coarser: Level
    table: Table
    stride: Triple
    padding: Triple
    dilation: Triple

    def mark(self) -> None:
        self.coarser.bitmap.mark_windows(
            self.finer.bitmap, self.table.kernel_size, self.stride, self.padding, self.dilation
        )  # fmt: skip

    def fill(self) -> None:
        """The table and the coarser level's coordinates, right after its scan."""
        fill_scanned(
            self.finer.bitmap, self.coarser.bitmap, self.coarser.coordinates,
            self.table.forms.values(), self.table.kernel_size, self.stride, self.padding,
            self.dilation, self.finer.capacity,
        )  # fmt: skip
