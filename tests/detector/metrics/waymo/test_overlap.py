import math

import numpy as np
import pytest
from shapely import affinity
from shapely.geometry import box as rectangle

from detector.metrics.waymo.overlap import iou_table


def iou(a, b, volume=True) -> float:
    return float(iou_table(np.array([a], float), np.array([b], float), volume)[0, 0])


BASE = (0, 0, 0, 1, 2, 2, 0)


# The cases of the official iou_test.cc, read 2026-11.
@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (BASE, 1.0),
        ((10, 10, 0, 1, 2, 2, 1.0), 0.0),
        ((0.5, 0, 0, 1, 4, 4, 0), 0.5 * 2 * 2 / (4 + 16 - 0.5 * 2 * 2)),
        ((0.5, 0, 0, 1, 4, 4, math.pi / 2), 0.5 * 2 * 2 / (4 + 16 - 0.5 * 2 * 2)),
        ((0.5, 0, 0, 1, 4, 2, math.pi / 4), 0.24074958176697656),
        ((0, 0, 0, 0, 0, 0, 0), 0.0),
        ((0, 0, 0, 1, -1, 1, 0), 0.0),
        ((0, 0, 0, 1, 1e-12, 1, 0), 0.0),
        ((0, 0, 0, 1, 1.01e-2, 2, 0), 0.00505),
    ],
)
def test_official_cases(other, expected):
    assert iou(BASE, other) == pytest.approx(expected, abs=1e-6)


def test_agrees_with_shapely_on_random_boxes():
    rng = np.random.default_rng(0)
    boxes = np.c_[
        rng.normal(30, 1, (60, 2)), rng.normal(0, 1, 60), rng.uniform(0.5, 4, (60, 3)),
        rng.uniform(-4, 4, 60),
    ]  # fmt: skip
    outlines = [
        affinity.translate(
            affinity.rotate(rectangle(-l / 2, -w / 2, l / 2, w / 2), yaw, (0, 0), True), x, y
        )
        for x, y, _, l, w, _, yaw in boxes
    ]
    areas = np.array([[p.intersection(q).area for q in outlines] for p in outlines])
    size = boxes[:, 3] * boxes[:, 4]
    expected = areas / (size[:, None] + size - areas)
    assert np.abs(iou_table(boxes, boxes, False) - expected).max() < 1e-6
    top, bottom = boxes[:, 2] + boxes[:, 5] / 2, boxes[:, 2] - boxes[:, 5] / 2
    height = np.minimum.outer(top, top) - np.maximum.outer(bottom, bottom)
    shared = areas * height.clip(0)
    size = size * boxes[:, 5]
    expected = shared / (size[:, None] + size - shared)
    assert np.abs(iou_table(boxes, boxes, True) - expected).max() < 1e-6


def test_one_box_inside_the_other():
    assert iou((5, 5, 0, 4, 2, 2, 0.3), (5, 5, 0, 2, 1, 1, 0.5)) == pytest.approx(1 / 8, abs=1e-6)


def test_common_edge_is_no_overlap():
    assert iou((0, 0, 0, 2, 2, 2, 0), (2, 0, 0, 2, 2, 2, 0)) == 0


def test_a_turned_copy_that_the_original_loses_is_lost_here():
    # Object 3 of the first frame of the official example: the label turned about. Its outlines
    # differ by rounding alone, and the official figures (2022) count it as a false positive.
    size = (34.404766785432, -0.6349560438175104, 0.9444694968923386,
            4.299579521380907, 2.0519985224664263, 1.860000000000003)  # fmt: skip
    assert iou((*size, -0.9685576575001615), (*size, 2.1730349960896316)) == 0
    assert iou((*size, -0.9685576575001615), (*size, -0.9685576575001615)) == 1
