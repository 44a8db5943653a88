"""What KITTI's left colour camera sees of a scan."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from numba import njit

from datasets.kitti_calibration import KittiCalibration


def in_camera_view(
    points: Float[np.ndarray, "P 3+"], calibration: KittiCalibration, image_size: tuple[int, int]
) -> Bool[np.ndarray, " P"]:
    """Which points in the ego frame project into the picture of (width, height) pixels."""
    image_from_ego = calibration.projection @ calibration.camera_from_ego      # (3, 4)
    width, height = image_size
    return _in_view(points, image_from_ego, float(width), float(height))


@njit(cache=True, nogil=True)
def _in_view(points, image_from_ego, width, height):
    seen = np.empty(len(points), np.bool_)
    for p in range(len(points)):
        x, y, z = np.float64(points[p, 0]), np.float64(points[p, 1]), np.float64(points[p, 2])
        depth = _row(image_from_ego[2], x, y, z)
        if depth <= 0:
            seen[p] = False
            continue
        u, v = _row(image_from_ego[0], x, y, z), _row(image_from_ego[1], x, y, z)
        # u and v are pixels times depth.
        seen[p] = 0 <= u < width * depth and 0 <= v < height * depth
    return seen


@njit(cache=True, nogil=True)
def _row(row, x, y, z):
    return row[0] * x + row[1] * y + row[2] * z + row[3]
