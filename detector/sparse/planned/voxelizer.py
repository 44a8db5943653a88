"""Voxelization without waiting: buffers of a fixed capacity, counts that stay on the GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from detector.geometry import VoxelGrid
from detector.ops.voxelize.gpu import PointLists, mark_points
from detector.sparse.planned.levels import Level, Levels


class PlannedVoxelizer:
    """Points of a batch to a level's coordinates and the mean of each voxel's points.

    Fill `points`, `frames` and `point_count`, then `run`.

    Args:
        level: whose bits are clear before each run; its grid may have more layers than the
            points'.
        limit: how many points of a voxel count; None takes all.
    """

    def __init__(
        self, grid: VoxelGrid, level: Level, most_points: int, channels: int, limit: int | None
    ):
        device = level.coordinates.device
        self.grid, self.level, self.limit = grid, level, limit
        self.points = torch.zeros(most_points, channels, device=device)
        self.frames = torch.zeros(most_points, dtype=torch.int32, device=device)
        self.point_count = torch.zeros(1, dtype=torch.int32, device=device)
        self.cells = torch.empty(most_points, dtype=torch.int64, device=device)
        self.lists = PointLists.empty(most_points, level.capacity, device)
        self.means = torch.zeros(level.capacity, channels, device=device)

    @property
    def point_counts(self) -> Tensor:
        """(capacity,) how many points each voxel keeps."""
        return self.lists.counts[: self.level.capacity]

    def load(self, points: Tensor, frame_of_point: Tensor | None = None) -> None:
        """Copies a batch's points in.

        Raises:
            OverflowError: more points than there is room for.
        """
        count = len(points)
        if count > len(self.points):
            raise OverflowError(
                f"{count} points came in, there is room for {len(self.points)}"
            )
        self.points[:count].copy_(points, non_blocking=True)
        if frame_of_point is not None:
            self.frames[:count].copy_(frame_of_point, non_blocking=True)
        self.point_count.fill_(count)

    def find(self) -> None:
        """Coordinates and their number; starts kernels and waits for nothing."""
        bitmap = self.level.bitmap
        mark_points(
            self.points, self.grid, bitmap, self.cells, self.frames, self.point_count,
            self.lists.counts,
        )  # fmt: skip
        bitmap.scan(self.level.coordinates)

    def place(self) -> None:
        """Which voxel each point belongs to, after `find`; the bits are not read any more."""
        self.lists.fill(self.level.bitmap, self.cells, self.point_count)

    def average(self) -> None:
        """Counts and means, after `place`."""
        self.lists.average(self.points, self.level.count, self.limit, self.means)


class GraphedVoxelizer:
    """A `PlannedVoxelizer` of single frames as one CUDA graph.

    `voxelizer(points)` gives (coordinates (capacity, 4), means (capacity, C), count (1,)), all on
    the GPU and overwritten by the next call; rows beyond the count mean nothing.
    """

    def __init__(
        self, grid: VoxelGrid, most_points: int, most_voxels: int, channels: int,
        limit: int | None = None, device: torch.device | str = "cuda",
    ):  # fmt: skip
        self.levels = Levels(
            [grid.shape], [most_voxels], 1, torch.device(device), [f"grid {grid.shape}"]
        )
        self.plan = PlannedVoxelizer(grid, self.levels[0], most_points, channels, limit)
        self._beside = torch.cuda.Stream(self.plan.points.device)
        self.graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(self.plan.points.device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._run()
        stream.synchronize()
        with torch.cuda.graph(self.graph, stream=stream):
            self._run()

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.plan.load(points)
        self.graph.replay()
        level = self.levels[0]
        return level.coordinates, self.plan.means, level.count

    def _run(self) -> None:
        self.plan.find()
        self.plan.place()
        main = torch.cuda.current_stream()
        self._beside.wait_stream(main)
        with torch.cuda.stream(self._beside):
            self.levels.clear()
        self.plan.average()
        main.wait_stream(self._beside)
