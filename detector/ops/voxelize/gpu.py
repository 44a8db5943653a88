"""Starts the kernels of `voxelize.cu`. One wait for the GPU; with a limit of voxels that a batch of
several frames exceeds in all, another to see whether one of them does."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from detector.geometry import VoxelGrid
from detector.ops.cuda_runtime import THREADS, Kernel, blocks
from detector.ops.occupancy import Occupancy
from detector.ops.occupancy.gpu import BitmapIndex
from detector.ops.occupancy.gpu_bitmap import Bitmap
from detector.ops.voxelize.op import Voxels

SOURCE = Path(__file__).with_name("voxelize.cu")
CROWDED_BLOCKS = 264
BUCKET, TOTALS = 8, 3  # as in the source
TYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}

_mark_points = Kernel(SOURCE, "mark_points", "PiiPPi" + "f" * 6 + "i" * 7 + "PPPPi")
_count_points = Kernel(SOURCE, "count_points", "PPiPPiPPPPP")
_first_points = Kernel(SOURCE, "first_points", "PiP")
_average = Kernel(SOURCE, "average", "PiiPPiiPPPPPPii")
_list_late = Kernel(SOURCE, "list_late", "PPPPP")
_average_crowded = Kernel(SOURCE, "average_crowded", "PiiPPPPPPiPPPii")


def mark_points(
    points: Tensor, grid: VoxelGrid, bitmap: Bitmap, cells: Tensor, frames: Tensor | None,
    count: Tensor | None = None, zeros: Tensor | None = None,
) -> None:  # fmt: skip
    """Sets the bits of the points' cells and writes the cells (P,) int64, numbered as the bits.
    The bitmap's grid may have more layers than the points'. `zeros` are cleared beside it."""
    _mark_points(
        (blocks(len(points)),), THREADS, points, int(points.dtype == torch.float64),
        points.shape[1], frames, count, len(points), *grid.minimum, *grid.voxel_size,
        *grid.shape, bitmap.batch_size, *bitmap.shape[:2], bitmap.line_words, bitmap.words,
        bitmap.lines, cells, zeros, 0 if zeros is None else len(zeros),
        device=bitmap.device.index,
    )  # fmt: skip


@dataclass(frozen=True)
class PointLists:
    """Which points each voxel has. All buffers have room for `rows` voxels or all points."""

    voxel_of_point: Tensor
    counts: Tensor
    """(rows,), then `TOTALS` numbers of the kernels' own; zeros before `fill`."""
    buckets: Tensor
    """(rows, BUCKET) the first points that came."""
    late: Tensor
    """Those that came later; then lists too long to be sorted in shared memory."""
    members: Tensor
    starts: Tensor
    crowded: Tensor
    rows: int

    @classmethod
    def empty(cls, points: int, rows: int, device: torch.device) -> PointLists:
        def numbers(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=torch.int32, device=device)

        return cls(
            numbers(points), torch.zeros(rows + TOTALS, dtype=torch.int32, device=device),
            numbers(rows, BUCKET), numbers(points, 2), numbers(points), numbers(rows),
            numbers(rows), rows,
        )  # fmt: skip

    @property
    def totals(self) -> Tensor:
        return self.counts[self.rows :]

    def fill(
        self, bitmap: Bitmap, cells: Tensor, point_count: Tensor | None = None
    ) -> None:
        """From the points' cells."""
        points = len(cells)
        _count_points(
            (blocks(points),), THREADS, cells, point_count, points, bitmap.words, bitmap.rank,
            self.rows, self.voxel_of_point, self.counts, self.buckets, self.late, self.totals,
            device=bitmap.device.index,
        )  # fmt: skip

    def average(
        self, points: Tensor, row_count: Tensor, limit: int | None, means: Tensor
    ) -> None:
        """Means of each voxel's first points, and their number in `counts`."""
        device = points.get_device()
        about_points = points, int(points.dtype == torch.float64), points.shape[1]
        about_means = means, means.shape[1], TYPES[means.dtype]
        _average(
            (blocks(self.rows, 128),), 128, *about_points, self.buckets, row_count, self.rows,
            limit or 0, self.counts, self.starts, self.crowded, self.totals, self.voxel_of_point,
            *about_means, device=device,
        )  # fmt: skip
        _list_late(
            (CROWDED_BLOCKS,), THREADS, self.late, self.totals, self.voxel_of_point, self.starts,
            self.members, device=device,
        )  # fmt: skip
        _average_crowded(
            (CROWDED_BLOCKS,), THREADS, *about_points, self.buckets, self.starts, self.members,
            self.late, self.totals, self.crowded, limit or 0, self.counts, self.voxel_of_point,
            *about_means, device=device,
        )  # fmt: skip


def voxelize(
    points: Tensor,
    grid: VoxelGrid,
    max_points_per_voxel: int | None,
    max_voxels: int | None,
    frame_of_point: Tensor,
    batch_size: int,
) -> Voxels:
    """See `detector.ops.voxelize.voxelize`."""
    if points.dtype not in (torch.float32, torch.float64):
        points = points.float()
    bitmap = Bitmap(grid.shape, batch_size, points.device, len(points))
    cells = torch.empty(len(points), dtype=torch.int64, device=points.device)
    if len(points):
        mark_points(points, grid, bitmap, cells, frame_of_point)
    emitted = torch.empty(len(points), 4, dtype=torch.int32, device=points.device)
    bitmap.scan(emitted)
    rows = int(bitmap.count)
    coordinates = emitted[:rows]
    dropped_voxels = 0
    lists = _lists(bitmap, cells, rows)
    if max_voxels is not None and rows > max_voxels:
        per_frame = _rows_per_frame(coordinates, batch_size)
        dropped_voxels = sum(max(count - max_voxels, 0) for count in per_frame)
        if dropped_voxels:
            kept = _kept_rows(lists, coordinates, per_frame, max_voxels)
            coordinates, rows = coordinates[kept], len(kept)
            bitmap = BitmapIndex.of_sorted(coordinates, grid.shape, batch_size).bitmap
            lists = _lists(bitmap, cells, rows)
    means = points.new_empty(rows, points.shape[1])
    if rows:
        lists.average(points, bitmap.count, max_points_per_voxel, means)
    return Voxels(
        means, lists.counts[:rows], lists.voxel_of_point.long(),
        Occupancy(BitmapIndex(bitmap, coordinates)), dropped_voxels, max_points_per_voxel, points,
    )  # fmt: skip


def _lists(bitmap: Bitmap, cells: Tensor, rows: int) -> PointLists:
    lists = PointLists.empty(len(cells), rows, cells.device)
    if rows:
        lists.fill(bitmap, cells)
    else:
        lists.voxel_of_point.fill_(-1)
    return lists


def _rows_per_frame(coordinates: Tensor, batch_size: int) -> list[int]:
    """Coordinates are in order."""
    if batch_size == 1:
        return [len(coordinates)]
    frames = torch.arange(batch_size + 1, dtype=torch.int32, device=coordinates.device)
    ends = torch.searchsorted(coordinates[:, 0].contiguous(), frames).tolist()
    return [end - start for start, end in pairwise(ends)]


def _kept_rows(
    lists: PointLists, coordinates: Tensor, per_frame: list[int], max_voxels: int
) -> Tensor:
    """Rows, ascending, of the voxels that every frame keeps: those that come first."""
    points = len(lists.voxel_of_point)
    first = torch.full((lists.rows,), points, dtype=torch.int32, device=coordinates.device)
    _first_points(
        (blocks(points),), THREADS, lists.voxel_of_point, points, first,
        device=first.get_device(),
    )  # fmt: skip
    order = torch.argsort(coordinates[:, 0].long() * points + first)
    parts = order.split(per_frame)
    return torch.cat([part[:max_voxels] for part in parts]).sort().values
