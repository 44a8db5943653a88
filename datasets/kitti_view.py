"""What KITTI's left colour camera sees of a scan, and what labelled objects cover in it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from numba import njit

from datasets.kitti_boxes import ego_boxes
from datasets.kitti_calibration import KittiCalibration
from detector.metrics.kitti import KittiObjects
from detector.ops.boxes.cpu import box_of_point


def in_camera_view(
    points: Float[np.ndarray, "P 3+"], calibration: KittiCalibration, image_size: tuple[int, int]
) -> Bool[np.ndarray, " P"]:
    """Which points in the ego frame project into the picture of (width, height) pixels."""
    return _in_rectangle(points, _image_from_ego(calibration), 0.0, 0.0, *map(float, image_size))


def on_objects(
    points: Float[np.ndarray, "P 3+"], calibration: KittiCalibration, objects: KittiObjects,
    chosen: Bool[np.ndarray, " N"],
) -> Bool[np.ndarray, " P"]:  # fmt: skip
    """Which points in the ego frame lie in the boxes of chosen objects, `MARGIN_M` around included,
    or, of objects without a box, in front of or behind their rectangles in the picture."""
    boxed = chosen & (objects.dimensions > 0).all(1)
    boxes = ego_boxes(
        objects.location[boxed], objects.dimensions[boxed], objects.rotation_y[boxed], calibration
    )
    boxes[:, 3:6] += 2 * MARGIN_M
    covered = box_of_point(np.ascontiguousarray(points), boxes) >= 0
    for rectangle in objects.bbox[chosen & ~boxed]:
        covered |= _in_rectangle(points, _image_from_ego(calibration), *rectangle)
    return covered


MARGIN_M = 0.2
"""Mirrors, and what a tight box cuts off."""


def _image_from_ego(calibration: KittiCalibration) -> Float[np.ndarray, "3 4"]:
    return calibration.projection @ calibration.camera_from_ego


@njit(cache=True, nogil=True)
def _in_rectangle(points, image_from_ego, left, top, right, bottom):
    seen = np.empty(len(points), np.bool_)
    for p in range(len(points)):
        x, y, z = np.float64(points[p, 0]), np.float64(points[p, 1]), np.float64(points[p, 2])
        depth = _row(image_from_ego[2], x, y, z)
        if depth <= 0:
            seen[p] = False
            continue
        u, v = _row(image_from_ego[0], x, y, z), _row(image_from_ego[1], x, y, z)
        # u and v are pixels times depth.
        seen[p] = (
            left * depth <= u < right * depth and top * depth <= v < bottom * depth
        )
    return seen


@njit(cache=True, nogil=True)
def _row(row, x, y, z):
    return row[0] * x + row[1] * y + row[2] * z + row[3]
