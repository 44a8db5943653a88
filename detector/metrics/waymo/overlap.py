"""IoU of two boxes, bit for bit as the official metric computes it.

`detector.ops.boxes` is quicker and right in cases where the original is not: where outlines nearly
coincide - a prediction equal to the label but for its heading, turned about - the original may
lose the intersection and find no overlap at all. Such pairs decide about true positives, and
whoever compares with published numbers needs the published answer, so here its steps are taken
one by one: corners as `math/box2d.cc`, the walk around both outlines of O'Rourke et al., "A new
linear algorithm for intersecting convex polygons" (1982), as `math/polygon2d.cc`, with the sign
of each cross product exact; `metrics/iou.cc` for the rest (waymo-open-dataset, 99a4cb3).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

# Cross products up to this are computed anew without rounding.
EXACT_BELOW = 2.0**-50
SMALLEST_AREA = 1e-10
SMALLEST_UNION = 1e-6
# Boxes with a side of this or less overlap nothing, metres.
SMALLEST_SIDE = 1e-2
# Two outlines of four corners: no walk is longer, no intersection has more corners than steps.
CORNERS = 8
STEPS = 2 * CORNERS
SPLITTER = 2.0**27 + 1


@njit(cache=True, nogil=True)
def iou_table(boxes, true_boxes, volume):
    """(N, M) float32 IoU of each pair, in 3D or (`volume` false) as seen from above."""
    outlines, true_outlines = _outlines(boxes), _outlines(true_boxes)
    shared_outline = np.empty((STEPS + 1, 2))
    table = np.zeros((len(boxes), len(true_boxes)), np.float32)
    for row in range(len(boxes)):
        for column in range(len(true_boxes)):
            table[row, column] = _iou(
                boxes[row], true_boxes[column], volume, outlines[row], true_outlines[column],
                shared_outline,
            )  # fmt: skip
    return table


@njit(cache=True, nogil=True)
def _iou(a, b, volume, outline_a, outline_b, shared_outline):
    if min(a[3], a[4], b[3], b[4]) <= SMALLEST_SIDE:
        return 0.0
    height_a, height_b, height_shared = 1.0, 1.0, 1.0
    if volume:
        height_a, height_b = a[5], b[5]
        if min(height_a, height_b) <= SMALLEST_SIDE:
            return 0.0
        bottom = max(a[2] - height_a * 0.5, b[2] - height_b * 0.5)
        height_shared = min(a[2] + height_a * 0.5, b[2] + height_b * 0.5) - bottom
        if height_shared < 0:
            return 0.0
    shared = shared_area(outline_a, outline_b, shared_outline) * height_shared
    union = a[3] * a[4] * height_a + b[3] * b[4] * height_b - shared
    if union <= SMALLEST_UNION:
        return 0.0
    return max(min(shared / union, 1.0), 0.0)


@njit(cache=True, nogil=True)
def _outlines(boxes):
    """(N, 4, 2) corners seen from above, counter-clockwise from rear left."""
    outlines = np.empty((len(boxes), 4, 2))
    for row, box in enumerate(boxes):
        along_x, along_y = math.cos(box[6]) * (box[3] / 2), math.sin(box[6]) * (box[3] / 2)
        rear_x, rear_y = box[0] - along_x, box[1] - along_y
        front_x, front_y = box[0] + along_x, box[1] + along_y
        scale = 1 / box[3] if box[3] > 0 else 0.0
        left_x = -(front_y - rear_y) * scale * (box[4] / 2)
        left_y = (front_x - rear_x) * scale * (box[4] / 2)
        outlines[row, 0, 0], outlines[row, 0, 1] = rear_x + left_x, rear_y + left_y
        outlines[row, 1, 0], outlines[row, 1, 1] = rear_x - left_x, rear_y - left_y
        outlines[row, 2, 0], outlines[row, 2, 1] = front_x - left_x, front_y - left_y
        outlines[row, 3, 0], outlines[row, 3, 1] = front_x + left_x, front_y + left_y
    return outlines


@njit(cache=True, nogil=True)
def shared_area(p, q, shared):
    """Area common to two rectangles (4, 2), corners counter-clockwise; `shared` is work space."""
    count = _shared_outline(p, q, shared)
    if count < 3:
        return 0.0
    doubled = 0.0
    x, y = shared[0]
    for corner in range(1, count - 1):
        doubled += (shared[corner, 0] - x) * (shared[corner + 1, 1] - y) - (
            shared[corner, 1] - y
        ) * (shared[corner + 1, 0] - x)
    return 0.0 if abs(doubled) <= SMALLEST_AREA else doubled * 0.5


@njit(cache=True, nogil=True)
def _shared_outline(p, q, shared):
    """Writes the corners of the intersection and returns how many there are."""
    for axis in range(2):
        if p[:, axis].min() > q[:, axis].max() or q[:, axis].min() > p[:, axis].max():
            return 0
    count = at_p = at_q = step = 0
    p_inside = q_inside = False
    while step < STEPS:
        p0, p1, q0, q1 = p[at_p], p[(at_p + 1) % 4], q[at_q], q[(at_q + 1) % 4]
        turn = _cross(p0, p1, q1, q0)
        p_side = _cross(q1, q0, p1, q0)
        meet, x, y = _meeting_point(p0, p1, q0, q1, turn)
        if meet:
            if count > 2 and x == shared[0, 0] and y == shared[0, 1]:
                return count
            if count == 0:
                # One round more than both outlines have corners leads back here.
                step = CORNERS - 1
            count = _append(shared, count, x, y)
            p_inside = p_side >= 0
            q_inside = not p_inside
        advance_p = p_side < 0 if turn >= 0 else _cross(p1, p0, q1, p0) >= 0
        if advance_p:
            if p_inside:
                count = _append(shared, count, p1[0], p1[1])
            at_p = (at_p + 1) % 4
        else:
            if q_inside:
                count = _append(shared, count, q1[0], q1[1])
            at_q = (at_q + 1) % 4
        step += 1
    if count > 0:
        # The walk did not close: taken as a common corner or edge, which has no area.
        return 0
    if _contains(q, p):
        shared[:4] = p
        return 4
    if _contains(p, q):
        shared[:4] = q
        return 4
    return 0


@njit(cache=True, nogil=True)
def _append(shared, count, x, y):
    """Adds a corner unless it equals the first or the last one."""
    if count > 0:
        last = count - 1
        if (x == shared[0, 0] and y == shared[0, 1]) or (
            x == shared[last, 0] and y == shared[last, 1]
        ):
            return count
    shared[count, 0], shared[count, 1] = x, y
    return count + 1


@njit(cache=True, nogil=True)
def _meeting_point(p0, p1, q0, q1, turn):
    """Whether two edges meet, and where; `turn` is `_cross(p0, p1, q1, q0)`."""
    if turn == 0:
        if _cross(p0, p1, p0, q0) != 0:
            return False, 0.0, 0.0
        for start, end, point in ((q0, q1, p0), (q0, q1, p1), (p0, p1, q0), (p0, p1, q1)):
            if (
                min(start[0], end[0]) <= point[0] <= max(start[0], end[0])
                and min(start[1], end[1]) <= point[1] <= max(start[1], end[1])
            ):
                return True, point[0], point[1]
        return False, 0.0, 0.0
    sign, size = (1.0, turn) if turn > 0 else (-1.0, -turn)
    margin = max(size, 1.0) * EXACT_BELOW
    # Where along p the edges meet, as a share of `turn`; near the end seen from there again.
    along_p = _cross(p0, q0, q1, q0)
    if along_p * sign < 0 or along_p * sign > size + margin:
        return False, 0.0, 0.0
    if along_p * sign > size - margin and _cross(p1, q1, q0, q1) * sign < 0:
        return False, 0.0, 0.0
    along_q = _cross(p0, p1, p0, q0)
    if along_q * sign < 0 or along_q * sign > size + margin:
        return False, 0.0, 0.0
    if along_q * sign > size - margin and _cross(p1, p0, p1, q1) * sign < 0:
        return False, 0.0, 0.0
    share = min(max(along_p / turn, 0.0), 1.0)
    return True, p0[0] + (p1[0] - p0[0]) * share, p0[1] + (p1[1] - p0[1]) * share


@njit(cache=True, nogil=True)
def _contains(outer, inner):
    for point in inner:
        if point[0] < outer[:, 0].min() or point[0] > outer[:, 0].max():
            return False
        if point[1] < outer[:, 1].min() or point[1] > outer[:, 1].max():
            return False
        for corner in range(4):
            a, b = outer[corner], outer[(corner + 1) % 4]
            if (b[0] - a[0]) * (point[1] - a[1]) - (b[1] - a[1]) * (point[0] - a[0]) < 0:
                return False
    return True


@njit(cache=True, nogil=True)
def _cross(a, b, c, d):
    """(b - a) x (d - c) with an exact sign."""
    if (a[0] == b[0] and a[1] == b[1]) or (c[0] == d[0] and c[1] == d[1]):
        return 0.0
    value = (b[0] - a[0]) * (d[1] - c[1]) - (b[1] - a[1]) * (d[0] - c[0])
    if abs(value) > EXACT_BELOW:
        return value
    return _exact_cross(a, b, c, d)


@njit(cache=True, nogil=True)
def _exact_cross(a, b, c, d):
    """As `_cross`, from its eight products and their rounding errors summed without loss
    (Shewchuk, "Adaptive precision floating-point arithmetic", 1997)."""
    parts = np.zeros(17)
    count = 0
    for sign, u, v in (
        (1.0, b[0], d[1]), (-1.0, a[0], d[1]), (-1.0, b[0], c[1]), (1.0, a[0], c[1]),
        (-1.0, b[1], d[0]), (1.0, a[1], d[0]), (1.0, b[1], c[0]), (-1.0, a[1], c[0]),
    ):  # fmt: skip
        product = sign * u * v
        high_u, high_v = SPLITTER * u, SPLITTER * v
        high_u, high_v = high_u - (high_u - u), high_v - (high_v - v)
        low_u, low_v = u - high_u, v - high_v
        error = low_u * low_v - (((u * v - high_u * high_v) - low_u * high_v) - high_u * low_v)
        for term in (sign * error, product):
            rest = term
            for place in range(count):
                total = rest + parts[place]
                virtual = total - rest
                parts[place] = (rest - (total - virtual)) + (parts[place] - virtual)
                rest = total
            parts[count] = rest
            count += 1
    total = 0.0
    for place in range(count):
        total += parts[place]
    return total
