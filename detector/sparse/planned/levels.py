"""The indices and tables of a whole network, with room for a fixed number of voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from detector.ops.occupancy.gpu import ONE, Bitmap, Bits, new_table
from detector.ops.occupancy.order import OrderedTable
from detector.ops.occupancy.shapes import Triple


@dataclass
class Table:
    """A kernel map with room for `capacity` output rows."""

    table: Tensor
    masks: Tensor
    kernel_size: Triple
    ordered: OrderedTable | None = None
    """For convolutions that gain by it."""

    order = None  # its columns are the rows themselves

    def in_order(self) -> OrderedTable:
        """Room for the table in order; whoever fills the table fills it too."""
        if self.ordered is None:
            self.ordered = OrderedTable.empty(*self.table.shape, self.table.device)
        return self.ordered

    def put_in_order(self, count: Tensor) -> None:
        if self.ordered is not None:
            self.ordered.fill(self.table, count)


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
            self.tables[kernel_size] = make_table(self, kernel_size)
        return self.tables[kernel_size]

    def fill_submanifold(self, *, first: bool = False) -> None:
        """Args:
            first: the coordinates are not there yet, and are written.
        """
        for table in self.tables.values():
            padding = tuple(k // 2 for k in table.kernel_size)
            about = table.table, table.masks, table.kernel_size, ONE, padding, ONE, self.capacity
            if first:
                self.bitmap.fill_scanned(self.bitmap, self.coordinates, *about)
            else:
                self.bitmap.fill_table(self.coordinates, self.count, *about)
            table.put_in_order(self.count)


def make_table(level: Level, kernel_size: Triple) -> Table:
    """Room for a map whose output rows are a level's."""
    table, masks = new_table(math.prod(kernel_size), level.capacity, level.coordinates.device)
    return Table(table, masks, kernel_size)


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
        """The table and the coarser level's coordinates, after its scan."""
        self.finer.bitmap.fill_scanned(
            self.coarser.bitmap, self.coarser.coordinates, self.table.table, self.table.masks,
            self.table.kernel_size, self.stride, self.padding, self.dilation,
            self.finer.capacity,
        )  # fmt: skip
        self.table.put_in_order(self.coarser.count)
