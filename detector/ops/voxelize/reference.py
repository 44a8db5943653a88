"""Voxelization in plain NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int32, Int64

from detector.geometry import VoxelGrid


@dataclass(frozen=True)
class ReferenceVoxels:
    """The fields of `detector.ops.voxelize.Voxels`, in NumPy."""

    coordinates: Int32[np.ndarray, "V 4"]
    features: Float[np.ndarray, "V C"]
    point_counts: Int32[np.ndarray, " V"]
    voxel_of_point: Int64[np.ndarray, " P"]
    dropped_voxels: int


def voxelize(
    points: Float[np.ndarray, "P C"],
    grid: VoxelGrid,
    max_points_per_voxel: int | None,
    max_voxels: int | None,
    frame_of_point: Int32[np.ndarray, " P"],
) -> ReferenceVoxels:
    """As `detector.ops.voxelize.voxelize`, voxel by voxel."""
    minimum = np.array(grid.minimum, np.float32)
    size = np.array(grid.voxel_size, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        cell = np.floor((points[:, :3].astype(np.float32) - minimum) / size)   # (P, 3) x, y, z
        inside = ((cell >= 0) & (cell < grid.shape[::-1])).all(1)
    members: dict[tuple[int, ...], list[int]] = {}
    for p in np.flatnonzero(inside):
        key = (int(frame_of_point[p]), *map(int, cell[p, ::-1]))
        members.setdefault(key, []).append(p)

    kept = {}
    for frame in sorted({key[0] for key in members}):
        # Dictionaries keep the order of insertion: that of each voxel's first point.
        of_frame = [key for key in members if key[0] == frame]
        kept.update((key, members[key]) for key in of_frame[:max_voxels])

    coordinates = sorted(kept)
    voxel_of_point = np.full(len(points), -1, np.int64)
    features = np.zeros((len(kept), points.shape[1]), points.dtype)
    counts = np.zeros(len(kept), np.int32)
    for voxel, key in enumerate(coordinates):
        inhabitants = kept[key][:max_points_per_voxel]
        voxel_of_point[inhabitants] = voxel
        features[voxel] = points[inhabitants].astype(np.float64).mean(0)
        counts[voxel] = len(inhabitants)
    return ReferenceVoxels(
        np.array(coordinates, np.int32).reshape(-1, 4), features, counts, voxel_of_point,
        len(members) - len(kept),
    )  # fmt: skip
