"""Points of a range image, pixel by pixel with plain matrices."""

from __future__ import annotations

import numpy as np


def pixel_points(ranges, inclinations, vehicle_from_laser, pixel_poses, world_from_vehicle):
    """x, y, z in the vehicle frame of every pixel with a range above zero, row by row."""
    rows, columns = ranges.shape
    turn = np.arctan2(vehicle_from_laser[1, 0], vehicle_from_laser[0, 0])
    points = []
    for row in range(rows):
        for column in range(columns):
            distance = float(ranges[row, column])
            if distance <= 0:
                continue
            azimuth = np.pi - 2 * np.pi * (column + 0.5) / columns - turn
            beam = inclinations[row]
            point = np.array([
                distance * np.cos(beam) * np.cos(azimuth),
                distance * np.cos(beam) * np.sin(azimuth), distance * np.sin(beam), 1,
            ])  # fmt: skip
            point = vehicle_from_laser @ point
            if pixel_poses is not None:
                pose = pixel_poses[row, column].astype(float)
                world = rotation("z", pose[2]) @ rotation("y", pose[1]) @ rotation("x", pose[0])
                world = world @ point[:3] + pose[3:]
                point = np.linalg.inv(world_from_vehicle) @ np.append(world, 1)
            points.append(point[:3])
    return points


def rotation(axis: str, angle: float) -> np.ndarray:
    """Counter-clockwise about an axis, seen from its tip."""
    cos, sin = np.cos(angle), np.sin(angle)
    return {
        "x": np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]),
        "y": np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]),
        "z": np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]),
    }[axis]
