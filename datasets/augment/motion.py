"""Moves a whole sample: points, point velocities, boxes, their velocities and the cameras."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from detector.records import Sample

_TOLERANCE = 1e-6


def move_sample(sample: Sample, moved_from_ego: Float[np.ndarray, "4 4"]) -> Sample:
    """The sample as it would be had the world been moved.

    Every column that has a direction goes along: x, y, z, the point columns `vx_comp` and
    `vy_comp`, box headings and velocities. Sizes are scaled. A camera's `camera_from_ego` takes
    the motion back first, so that points still project to the same pixels.

    Args:
        sample: left as it is.
        moved_from_ego: a turn about z, mirroring of x or y, a scale equal in all directions and a
            translation, in any combination.

    Raises:
        ValueError: a matrix that tilts, shears or stretches.
    """
    linear, offset = moved_from_ego[:3, :3].astype(np.float64), moved_from_ego[:3, 3]
    scale = _scale(linear)
    ground = linear[:2, :2]

    # One product for all columns, and shifts column by column: several times as fast as products
    # of a few columns.
    motion = np.eye(sample.points.shape[1], dtype=np.float32)
    motion[:3, :3] = linear.T
    if {"vx_comp", "vy_comp"} <= set(sample.point_features):
        columns = [sample.point_features.index(name) for name in ("vx_comp", "vy_comp")]
        motion[np.ix_(columns, columns)] = ground.T
    points = sample.points @ motion
    for axis in np.flatnonzero(offset):
        points[:, axis] += np.float32(offset[axis])

    boxes = sample.boxes.copy()
    boxes[:, :3] = sample.boxes[:, :3] @ linear.T + offset
    boxes[:, 3:6] = sample.boxes[:, 3:6] * scale
    yaw = sample.boxes[:, 6].astype(np.float64)
    forward, left = ground @ np.stack([np.cos(yaw), np.sin(yaw)])
    boxes[:, 6] = np.arctan2(left, forward)
    # arctan2 gives (-pi, pi], and float32 rounds pi up.
    boxes[boxes[:, 6] >= np.float32(np.pi), 6] = -np.float32(np.pi)
    if boxes.shape[1] == 9:
        boxes[:, 7:9] = sample.boxes[:, 7:9] @ ground.T

    ego_from_moved = np.linalg.inv(moved_from_ego.astype(np.float64))
    cameras = tuple(
        replace(
            camera, camera_from_ego=(camera.camera_from_ego @ ego_from_moved).astype(np.float32)
        )
        for camera in sample.cameras
    )
    return sample.replace(points=points, boxes=boxes, cameras=cameras)


def _scale(linear: Float[np.ndarray, "3 3"]) -> float:
    """The scale of the motion; raises ValueError for one that boxes can't follow."""
    scale = float(np.cbrt(np.abs(np.linalg.det(linear))))
    upright = np.abs(linear[2, :2]).max() + np.abs(linear[:2, 2]).max() <= _TOLERANCE * scale
    even = np.abs(linear @ linear.T - scale**2 * np.eye(3)).max() <= _TOLERANCE * scale**2
    if not (scale > 0 and upright and even and linear[2, 2] > 0):
        raise ValueError(
            f"moved_from_ego must turn about z, mirror x or y, scale evenly and shift, got "
            f"{linear.tolist()}"
        )
    return scale
