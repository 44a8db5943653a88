"""Boxes by shapely and by loops over Python floats."""

import math

import numpy as np
from shapely import Polygon


def takes_space(box) -> bool:
    return all(math.isfinite(v) for v in box[:7]) and min(box[3:6]) > 0


def outline(box) -> Polygon:
    """A box seen from above."""
    x, y, _, l, w, _, yaw = box[:7]
    return Polygon(
        (
            x + along * l / 2 * math.cos(yaw) - across * w / 2 * math.sin(yaw),
            y + along * l / 2 * math.sin(yaw) + across * w / 2 * math.cos(yaw),
        )
        for along, across in ((1, 1), (-1, 1), (-1, -1), (1, -1))
    )


def intersection_bev(a, b) -> float:
    if not (takes_space(a) and takes_space(b)):
        return 0.0
    return outline(a).intersection(outline(b)).area


def iou_bev(a, b) -> float:
    shared = intersection_bev(a, b)
    return shared / (a[3] * a[4] + b[3] * b[4] - shared) if shared else 0.0


def iou_3d(a, b) -> float:
    top = min(a[2] + a[5] / 2, b[2] + b[5] / 2)
    bottom = max(a[2] - a[5] / 2, b[2] - b[5] / 2)
    shared = intersection_bev(a, b) * max(top - bottom, 0) if takes_space(a) else 0.0
    return shared / (np.prod(a[3:6]) + np.prod(b[3:6]) - shared) if shared else 0.0


def contains(box, point) -> bool:
    if not takes_space(box):
        return False
    dx, dy, dz = (point[i] - box[i] for i in range(3))
    cos, sin = math.cos(box[6]), math.sin(box[6])
    return (
        abs(dx * cos + dy * sin) <= box[3] / 2
        and abs(dy * cos - dx * sin) <= box[4] / 2
        and abs(dz) <= box[5] / 2
    )


def nms(boxes, scores, iou_threshold) -> list[int]:
    kept = []
    for candidate in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if all(iou_bev(boxes[best], boxes[candidate]) <= iou_threshold for best in kept):
            kept.append(candidate)
    return kept
