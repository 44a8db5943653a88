"""Starts the kernels of `voxelize.cu`; one wait for the GPU, or two where voxels are dropped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from detector.geometry import VoxelGrid
from detector.ops.cuda_runtime import Kernel
from detector.ops.occupancy import Occupancy
from detector.ops.occupancy.gpu import THREADS, Bitmap, BitmapIndex, blocks
from detector.ops.voxelize.op import Voxels

SOURCE = Path(__file__).with_name("voxelize.cu")
CROWDED_BLOCKS = 256
TYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}

_mark_points = Kernel(SOURCE, "mark_points", "PiiPPi" + "f" * 6 + "i" * 7 + "PPP")
_count_points = Kernel(SOURCE, "count_points", "PPiPPiiiiPPP")
_list_points = Kernel(SOURCE, "list_points", "PPiPPP")
_reserve = Kernel(SOURCE, "reserve", "PPiPPP")
_first_points = Kernel(SOURCE, "first_points", "PPPPiP")
_average = Kernel(SOURCE, "average", "PiiPPPiiPPPii")
_average_crowded = Kernel(SOURCE, "average_crowded", "PiiPPPPPiPPPii")


def mark_points(
    points: Tensor, grid: VoxelGrid, bitmap: Bitmap, cells: Tensor, frames: Tensor | None,
    count: Tensor | None = None,
) -> None:  # fmt: skip
    """Sets the bits of the points' cells and writes the cells (P, 4). The bitmap's grid may have
    more layers than the points'."""
    _mark_points(
        (blocks(len(points)),), THREADS, points, int(points.dtype == torch.float64),
        points.shape[1], frames, count, len(points), *grid.minimum, *grid.voxel_size,
        *grid.shape, bitmap.batch_size, *bitmap.shape[:2], bitmap.line_words, bitmap.words,
        bitmap.lines, cells, device=bitmap.device.index,
    )  # fmt: skip


@dataclass(frozen=True)
class PointLists:
    """Which points each voxel has. All buffers have room for `rows` voxels or all points."""

    voxel_of_point: Tensor
    counts: Tensor
    """(rows,) followed by what `reserve` counts."""
    starts: Tensor
    slots: Tensor
    members: Tensor
    sorted: Tensor
    crowded: Tensor
    rows: int

    @classmethod
    def empty(cls, points: int, rows: int, device: torch.device) -> PointLists:
        def numbers(count: int) -> Tensor:
            return torch.empty(max(count, 1), dtype=torch.int32, device=device)

        return cls(
            numbers(points)[:points], torch.zeros(rows + 2, dtype=torch.int32, device=device),
            numbers(rows), numbers(points), numbers(points), numbers(points), numbers(rows), rows,
        )  # fmt: skip

    def fill(
        self, bitmap: Bitmap, cells: Tensor, row_count: Tensor, point_count: Tensor | None = None
    ) -> None:
        """From the points' cells; `counts` holds zeros."""
        device = bitmap.device.index
        next_place = self.counts[self.rows :]
        points = len(cells)
        _count_points(
            (blocks(points),), THREADS, cells, point_count, points, bitmap.words, bitmap.rank,
            *bitmap.shape[:2], bitmap.line_words, self.rows, self.voxel_of_point, self.counts,
            self.slots, device=device,
        )  # fmt: skip
        _reserve(
            (blocks(self.rows),), THREADS, self.counts, row_count, self.rows, next_place,
            self.starts, self.crowded, device=device,
        )  # fmt: skip
        _list_points(
            (blocks(points),), THREADS, self.voxel_of_point, point_count, points, self.starts,
            self.slots, self.members, device=device,
        )  # fmt: skip

    def average(
        self, points: Tensor, row_count: Tensor, limit: int | None, means: Tensor
    ) -> None:
        """Means of each voxel's first points, and their number in `counts`."""
        device = points.get_device()
        about_points = points, int(points.dtype == torch.float64), points.shape[1]
        about_means = means, means.shape[1], TYPES[means.dtype]
        _average(
            (blocks(self.rows, 128),), 128, *about_points, self.starts, self.members, row_count,
            self.rows, limit or 0, self.counts, self.voxel_of_point, *about_means, device=device,
        )  # fmt: skip
        _average_crowded(
            (CROWDED_BLOCKS,), THREADS, *about_points, self.starts, self.members, self.sorted,
            self.counts[self.rows :], self.crowded, limit or 0, self.counts, self.voxel_of_point,
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
    cells = torch.empty(len(points), 4, dtype=torch.int32, device=points.device)
    if len(points):
        mark_points(points, grid, bitmap, cells, frame_of_point)
    emitted = torch.empty_like(cells)
    bitmap.scan(emitted)
    rows = int(bitmap.count)
    coordinates = emitted[:rows]
    dropped_voxels = 0
    lists = _lists(bitmap, cells, rows)
    if max_voxels is not None and rows > max_voxels:
        kept = _kept_rows(lists, bitmap, coordinates, batch_size, max_voxels, len(points))
        dropped_voxels = rows - len(kept)
        if dropped_voxels:
            coordinates, rows = coordinates[kept].contiguous(), len(kept)
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
        lists.fill(bitmap, cells, bitmap.count)
    else:
        lists.voxel_of_point.fill_(-1)
    return lists


def _kept_rows(
    lists: PointLists, bitmap: Bitmap, coordinates: Tensor, batch_size: int, max_voxels: int,
    points: int,
) -> Tensor:  # fmt: skip
    """Rows, ascending, of the voxels that every frame keeps."""
    first = torch.empty(lists.rows, dtype=torch.int32, device=coordinates.device)
    _first_points(
        (blocks(lists.rows),), THREADS, lists.counts, lists.starts, lists.members, bitmap.count,
        lists.rows, first, device=bitmap.device.index,
    )  # fmt: skip
    frames = coordinates[:, 0].long()
    order = torch.argsort(frames * points + first)
    per_frame = torch.bincount(frames, minlength=batch_size)
    place = torch.arange(lists.rows, device=order.device) - (
        torch.cumsum(per_frame, 0) - per_frame
    )[frames]
    return order[place < max_voxels].sort().values
