"""Numba kernels on float64 NumPy arrays, threaded; `detector.metrics` calls them directly.

Boxes are C-contiguous float64 `(N, 7+)` as in `detector.geometry`. A box that doesn't take up
space - a size that is not positive, a number that is not finite - overlaps nothing, contains
nothing. Rounding: areas are right to about 1e-15 of the larger box, however far from the origin
the boxes are, for all is computed in the frame of one of the two.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numba import njit

from detector.ops.threads import in_threads

# A rectangle cut by four half planes has at most eight corners.
MAX_CORNERS = 8
# Rough costs in units of 10 ns, see `in_threads`.
PAIR_COST = 4
POINT_COST = 1


@njit(cache=True, nogil=True)
def is_usable(box):
    """Seven finite numbers, positive sizes."""
    for column in range(7):
        if not math.isfinite(box[column]):
            return False
    return box[3] > 0 and box[4] > 0 and box[5] > 0


@njit(cache=True, nogil=True)
def intersection_area(a, b, outline, clipped):
    """Area shared by two usable boxes seen from above.

    b's corners in the frame of a are clipped by a's four sides in turn (Sutherland and Hodgman,
    "Reentrant polygon clipping", 1974).

    Args:
        outline, clipped: (8, 2) working space.
    """
    dx, dy = b[0] - a[0], b[1] - a[1]
    reach = (math.hypot(a[3], a[4]) + math.hypot(b[3], b[4])) / 2
    if dx * dx + dy * dy >= reach * reach:
        return 0.0
    cos, sin = math.cos(a[6]), math.sin(a[6])
    x, y = dx * cos + dy * sin, dy * cos - dx * sin
    cos, sin = math.cos(b[6] - a[6]), math.sin(b[6] - a[6])
    length_x, length_y = b[3] / 2 * cos, b[3] / 2 * sin
    width_x, width_y = -b[4] / 2 * sin, b[4] / 2 * cos
    outline[0, 0], outline[0, 1] = x + length_x + width_x, y + length_y + width_y
    outline[1, 0], outline[1, 1] = x - length_x + width_x, y - length_y + width_y
    outline[2, 0], outline[2, 1] = x - length_x - width_x, y - length_y - width_y
    outline[3, 0], outline[3, 1] = x + length_x - width_x, y + length_y - width_y
    corners = 4
    for axis in range(2):
        for sign in (-1.0, 1.0):
            corners = _clip(outline, corners, axis, sign, a[3 + axis] / 2, clipped)
            if corners < 3:
                return 0.0
            outline, clipped = clipped, outline
    doubled = 0.0
    for corner in range(1, corners - 1):
        doubled += (outline[corner, 0] - outline[0, 0]) * (
            outline[corner + 1, 1] - outline[0, 1]
        ) - (outline[corner, 1] - outline[0, 1]) * (outline[corner + 1, 0] - outline[0, 0])
    return max(doubled / 2, 0.0)


@njit(cache=True, nogil=True)
def _clip(outline, corners, axis, sign, limit, clipped):
    """Keeps what has sign * coordinate <= limit; returns the number of corners written."""
    written = 0
    before = corners - 1
    depth_before = limit - sign * outline[before, axis]
    for corner in range(corners):
        depth = limit - sign * outline[corner, axis]
        if (depth > 0 and depth_before < 0) or (depth < 0 and depth_before > 0):
            share = depth_before / (depth_before - depth)
            other = 1 - axis
            clipped[written, axis] = sign * limit
            clipped[written, other] = outline[before, other] + share * (
                outline[corner, other] - outline[before, other]
            )
            written += 1
        # Rounding can bend an outline inwards by one bit, which a straight side then cuts more
        # often than a convex one: such corners lie on top of each other and may be dropped.
        if depth >= 0 and written < MAX_CORNERS:
            clipped[written] = outline[corner]
            written += 1
        if written == MAX_CORNERS:
            break
        before, depth_before = corner, depth
    return written


@njit(cache=True, nogil=True)
def shared_height(a, b):
    """Length of the common interval along z, in the frame of a."""
    z = b[2] - a[2]
    return max(min(a[5] / 2, z + b[5] / 2) - max(-a[5] / 2, z - b[5] / 2), 0.0)


@njit(cache=True, nogil=True)
def _ratio(shared, total):
    if shared <= 0:
        return 0.0
    return min(shared / (total - shared), 1.0)


@njit(cache=True, nogil=True)
def _overlap_kernel(start, stop, a, b, volume, relative, out):
    outline, clipped = np.empty((MAX_CORNERS, 2)), np.empty((MAX_CORNERS, 2))
    usable = np.empty(len(b), np.bool_)
    for column in range(len(b)):
        usable[column] = is_usable(b[column])
    for row in range(start, stop):
        box = a[row]
        if not is_usable(box):
            out[row] = 0
            continue
        for column in range(len(b)):
            out[row, column] = 0
            if usable[column]:
                out[row, column] = _overlap(box, b[column], volume, relative, outline, clipped)


@njit(cache=True, nogil=True)
def _pair_kernel(start, stop, a, b, rows_a, rows_b, volume, relative, out):
    outline, clipped = np.empty((MAX_CORNERS, 2)), np.empty((MAX_CORNERS, 2))
    for pair in range(start, stop):
        box, other = a[rows_a[pair]], b[rows_b[pair]]
        out[pair] = 0
        if is_usable(box) and is_usable(other):
            out[pair] = _overlap(box, other, volume, relative, outline, clipped)


@njit(cache=True, nogil=True)
def _overlap(a, b, volume, relative, outline, clipped):
    shared = intersection_area(a, b, outline, clipped)
    total = a[3] * a[4] + b[3] * b[4]
    if volume:
        shared *= shared_height(a, b)
        total = a[3] * a[4] * a[5] + b[3] * b[4] * b[5]
    return _ratio(shared, total) if relative else shared


def overlap(
    a: Float64[np.ndarray, "N 7+"],
    b: Float64[np.ndarray, "M 7+"],
    *,
    volume: bool = False,
    relative: bool = True,
) -> Float64[np.ndarray, "N M"]:
    """What each pair of boxes shares.

    Args:
        volume: in 3D; otherwise seen from above.
        relative: intersection over union; otherwise the intersection in m^2 or m^3.
    """
    out = np.empty((len(a), len(b)))
    in_threads(
        _overlap_kernel, len(a), a, b, volume, relative, out, work_per_item=PAIR_COST * len(b)
    )
    return out


def overlap_of_pairs(
    a: Float64[np.ndarray, "N 7+"],
    b: Float64[np.ndarray, "M 7+"],
    rows_a: Int64[np.ndarray, " K"],
    rows_b: Int64[np.ndarray, " K"],
    *,
    volume: bool = False,
    relative: bool = True,
) -> Float64[np.ndarray, " K"]:
    """As `overlap`, for boxes `a[rows_a[k]]` and `b[rows_b[k]]` alone."""
    out = np.empty(len(rows_a))
    in_threads(
        _pair_kernel, len(out), a, b, rows_a, rows_b, volume, relative, out,
        work_per_item=2 * PAIR_COST,
    )  # fmt: skip
    return out


def overlap_bev(
    a: Float64[np.ndarray, "N 7+"], b: Float64[np.ndarray, "M 7+"]
) -> Float64[np.ndarray, "N M"]:
    """Area shared by the outlines seen from above, m^2."""
    return overlap(a, b, relative=False)


@njit(cache=True, nogil=True)
def _nms_kernel(boxes, order, iou_threshold, kept):
    outline, clipped = np.empty((MAX_CORNERS, 2)), np.empty((MAX_CORNERS, 2))
    suppressed = np.zeros(len(order), np.bool_)
    count = 0
    for place in range(len(order)):
        if suppressed[place]:
            continue
        best = boxes[order[place]]
        kept[count] = order[place]
        count += 1
        if not is_usable(best):
            continue
        for later in range(place + 1, len(order)):
            other = boxes[order[later]]
            if not suppressed[later] and is_usable(other):
                iou = _overlap(best, other, False, True, outline, clipped)
                suppressed[later] = iou > iou_threshold
    return count


def nms(
    boxes: Float64[np.ndarray, "N 7+"], scores: Float64[np.ndarray, " N"], iou_threshold: float
) -> Int64[np.ndarray, " K"]:
    """Indices kept, best score first; see `detector.ops.boxes.nms`."""
    order = np.argsort(-scores, kind="stable")
    kept = np.empty(len(order), np.int64)
    return kept[: _nms_kernel(boxes, order, iou_threshold, kept)]


@njit(cache=True, nogil=True)
def _contains(box, cos, sin, x, y, z):
    dx, dy = x - box[0], y - box[1]
    return (
        abs(z - box[2]) <= box[5] / 2
        and abs(dx * cos + dy * sin) <= box[3] / 2
        and abs(dy * cos - dx * sin) <= box[4] / 2
    )


@njit(cache=True, nogil=True)
def _directions(boxes):
    """(N, 2) cos and sin of yaw; NaN, which contains nothing, for boxes that aren't usable."""
    directions = np.full((len(boxes), 2), np.nan)
    for row in range(len(boxes)):
        if is_usable(boxes[row]):
            directions[row, 0] = math.cos(boxes[row, 6])
            directions[row, 1] = math.sin(boxes[row, 6])
    return directions


@njit(cache=True, nogil=True)
def _inside_kernel(start, stop, points, boxes, out):
    turn = _directions(boxes)
    for p in range(start, stop):
        x, y, z = points[p, 0], points[p, 1], points[p, 2]
        for n in range(len(boxes)):
            out[p, n] = _contains(boxes[n], turn[n, 0], turn[n, 1], x, y, z)


@njit(cache=True, nogil=True)
def _first_box_kernel(start, stop, points, boxes, out):
    turn = _directions(boxes)
    for p in range(start, stop):
        x, y, z = points[p, 0], points[p, 1], points[p, 2]
        out[p] = -1
        for n in range(len(boxes)):
            if _contains(boxes[n], turn[n, 0], turn[n, 1], x, y, z):
                out[p] = n
                break


def points_in_boxes(
    points: Float64[np.ndarray, "P 3+"], boxes: Float64[np.ndarray, "N 7+"]
) -> Bool[np.ndarray, "P N"]:
    """True where point p lies inside box n, faces included."""
    out = np.empty((len(points), len(boxes)), np.bool_)
    in_threads(
        _inside_kernel, len(points), points, boxes, out, work_per_item=POINT_COST * len(boxes)
    )
    return out


def box_of_point(
    points: Float64[np.ndarray, "P 3+"], boxes: Float64[np.ndarray, "N 7+"]
) -> Int64[np.ndarray, " P"]:
    """Index of the first box that contains each point, or -1."""
    out = np.empty(len(points), np.int64)
    in_threads(
        _first_box_kernel, len(points), points, boxes, out, work_per_item=POINT_COST * len(boxes)
    )
    return out
