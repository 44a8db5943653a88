"""Points -> voxels: checks, dispatch, the result's type."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor
from torch.nn import functional

from detector.geometry import VoxelGrid
from detector.ops.occupancy import Occupancy
from detector.ops.threads import in_threads


@dataclass(frozen=True)
class Voxels:
    """The occupied cells of a batch of frames; rows are sorted by (frame, z, y, x)."""

    features: Float[Tensor, "V C"]
    """Mean of each voxel's kept points."""
    point_counts: Int32[Tensor, " V"]
    """How many points each voxel keeps; at least 1."""
    voxel_of_point: Int64[Tensor, " P"]
    """Row of the voxel that keeps each point; -1 for a point outside the grid, in a dropped voxel,
    or beyond a voxel's limit of points."""
    occupancy: Occupancy
    """The index over these voxels; a sparse tensor can take it as it is."""
    dropped_voxels: int
    """How many occupied cells exceeded the frames' limit."""
    max_points_per_voxel: int | None
    """The limit that was asked for."""
    _source: Float[Tensor, "P C"] = field(repr=False)

    @property
    def coordinates(self) -> Int32[Tensor, "V 4"]:
        """(frame, z, y, x) of every voxel, sorted."""
        return self.occupancy.coordinates

    @property
    def points(self) -> Float[Tensor, "V N C"]:
        """Each voxel's kept points in scan order, N = `max_points_per_voxel`, then zeros.

        Made when asked for. Without a limit, N is the largest count.
        """
        limit = self.max_points_per_voxel
        if limit is None:
            limit = int(self.point_counts.max()) if len(self.point_counts) else 0
        slots = self._source.new_zeros(len(self.features), limit, self._source.shape[1])
        if slots.is_cuda:
            kept = self.voxel_of_point >= 0
            voxels = self.voxel_of_point[kept]
            order = torch.argsort(voxels, stable=True)
            starts = torch.cumsum(self.point_counts, 0) - self.point_counts
            voxels = voxels[order]
            slot = torch.arange(len(voxels), device=slots.device) - starts[voxels]
            slots[voxels, slot] = self._source[kept][order]
            return slots
        from detector.ops.voxelize import cpu

        filled = np.zeros(len(slots), np.int32)
        cpu.place(self._source.numpy(), self.voxel_of_point.numpy(), filled, slots.numpy())
        return slots


def voxelize(
    points: Float[Tensor, "P C"],
    grid: VoxelGrid,
    max_points_per_voxel: int | None = None,
    max_voxels: int | None = None,
    *,
    frame_of_point: Int32[Tensor, " P"] | None = None,
    batch_size: int = 1,
) -> Voxels:
    """Bins points into the cells of a grid and averages them.

    A point's cell is that of `VoxelGrid.coordinates`, to the bit; points outside the grid and
    points that are not finite belong to none. The result is deterministic. Not differentiable.

    Args:
        points: x, y, z in metres, then any further columns; float32 or float64.
        max_points_per_voxel: a voxel keeps its first so many points, in their order; None keeps
            all (dynamic voxelization).
        max_voxels: the most voxels of a frame; None sets no limit. A frame keeps the voxels whose
            first points come earliest, as if voxels were opened one after another until the limit
            is reached, which is what other implementations do. Shuffled points thus give a fair
            draw, where keeping low indices would cut off a side of the scene.
        frame_of_point: which frame each point belongs to, in [0, batch_size); None is frame 0.
        batch_size: number of frames, empty ones included.

    Raises:
        ValueError: shapes or limits that make no sense, or a frame outside the batch.
    """
    frame_of_point = _checked(points, max_points_per_voxel, max_voxels, frame_of_point, batch_size)
    points = points.detach().contiguous()
    if points.is_cuda:
        from detector.ops.voxelize import gpu

        return gpu.voxelize(
            points, grid, max_points_per_voxel, max_voxels, frame_of_point, batch_size
        )
    from detector.ops.voxelize import cpu

    coordinates = torch.empty(len(points), 4, dtype=torch.int32)
    in_threads(
        cpu.cells, len(points), points.numpy(), frame_of_point.numpy(),
        np.array(grid.minimum, np.float32), np.array(grid.voxel_size, np.float32), grid.shape,
        coordinates.numpy(), work_per_item=1,
    )  # fmt: skip
    occupancy = Occupancy.of_any(coordinates, grid.shape, batch_size)
    voxel_of_point = occupancy.rows(coordinates).long()
    dropped_voxels = 0
    if max_voxels is not None:
        kept = _kept_voxels(occupancy, voxel_of_point, max_voxels)
        dropped_voxels = len(occupancy) - int(kept.sum())
        if dropped_voxels:
            occupancy = Occupancy.of_sorted(
                occupancy.coordinates[kept], grid.shape, batch_size
            )
            # Row -1, a point outside, reads the -1 that is appended.
            new_rows = torch.where(kept, kept.cumsum(0) - 1, -1)
            voxel_of_point = functional.pad(new_rows, (0, 1), value=-1)[voxel_of_point]

    counts = torch.zeros(len(occupancy), dtype=torch.int32)
    means = points.new_empty(len(occupancy), points.shape[1])
    cpu.average(
        points.numpy(), voxel_of_point.numpy(), max_points_per_voxel or -1, counts.numpy(),
        means.numpy(),
    )  # fmt: skip
    return Voxels(
        means, counts, voxel_of_point, occupancy, dropped_voxels, max_points_per_voxel, points
    )


def _kept_voxels(occupancy: Occupancy, voxel_of_point: Tensor, max_voxels: int) -> Tensor:
    """(V,) bool: the voxels that their frames keep."""
    from detector.ops.voxelize import cpu

    kept = torch.ones(len(occupancy), dtype=torch.bool)
    per_frame = torch.bincount(occupancy.coordinates[:, 0], minlength=occupancy.batch_size)
    if (per_frame <= max_voxels).all():
        return kept
    first = torch.empty(len(occupancy), dtype=torch.int64)
    cpu.first_points(voxel_of_point.numpy(), first.numpy())
    sizes = per_frame.tolist()
    for of_frame, first_of_frame in zip(kept.split(sizes), first.split(sizes), strict=True):
        if len(of_frame) > max_voxels:
            of_frame.copy_(first_of_frame <= first_of_frame.kthvalue(max_voxels).values)
    return kept


def _checked(
    points: Tensor,
    max_points_per_voxel: int | None,
    max_voxels: int | None,
    frame_of_point: Tensor | None,
    batch_size: int,
) -> Tensor:
    """`frame_of_point` as int32 (P,)."""
    if points.ndim != 2 or points.shape[1] < 3 or not points.is_floating_point():
        raise ValueError(
            f"points must be floats of shape (P, 3 or more), got {points.dtype} of shape "
            f"{tuple(points.shape)}"
        )
    for name, limit in (
        ("max_points_per_voxel", max_points_per_voxel), ("max_voxels", max_voxels)
    ):  # fmt: skip
        if limit is not None and limit < 1:
            raise ValueError(f"{name} must be at least 1, or None for no limit; got {limit}")
    if frame_of_point is None:
        return torch.zeros(len(points), dtype=torch.int32, device=points.device)
    if frame_of_point.shape != (len(points),):
        raise ValueError(
            f"frame_of_point must have one entry for each of {len(points)} points, got shape "
            f"{tuple(frame_of_point.shape)}"
        )
    frame_of_point = frame_of_point.to(torch.int32).contiguous()
    # On a GPU this check would wait for it.
    if not points.is_cuda and len(points):
        low, high = frame_of_point.aminmax()
        if low < 0 or high >= batch_size:
            raise ValueError(
                f"frame_of_point must lie in [0, {batch_size}), found {int(low)} to {int(high)}"
            )
    return frame_of_point
