"""Transforms of the whole frame."""

import math

import numpy as np
import pytest

from datasets.augment import (
    GlobalRotation,
    GlobalScaling,
    GlobalTranslation,
    PointShuffle,
    RandomFlip,
    RangeFilter,
)
from detector.records import Sample

SAMPLE = Sample(
    "000042",
    np.array([[1, 2, 3, 0.1], [4, -5, 6, 0.2], [7, 8, 9, 0.3]], np.float32),
    ("x", "y", "z", "intensity"),
    np.array([[1, 2, 3, 4, 2, 1, 0.5], [7, 8, 9, 4, 2, 1, -2]], np.float32),
    np.array([1, 0]),
)
ALL = [RandomFlip(1, 1), GlobalRotation(), GlobalScaling(), GlobalTranslation(), PointShuffle(),
       RangeFilter((0, -40, -3, 70, 40, 10))]  # fmt: skip


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("transform", ALL, ids=lambda t: type(t).__name__)
def test_the_same_generator_gives_the_same_sample_in_the_same_precision(transform):
    first, second = transform(SAMPLE, rng()), transform(SAMPLE, rng())
    assert np.array_equal(first.points, second.points)
    assert np.array_equal(first.boxes, second.boxes)
    assert first.points.dtype == first.boxes.dtype == np.float32
    assert first.labels.dtype == np.int64


def test_flips_mirror_the_sides_asked_for():
    flipped = RandomFlip(left_right=1)(SAMPLE, rng())
    assert np.allclose(flipped.points, SAMPLE.points * [1, -1, 1, 1])
    assert np.allclose(flipped.boxes, SAMPLE.boxes * [1, -1, 1, 1, 1, 1, -1])
    flipped = RandomFlip(left_right=0, front_back=1)(SAMPLE, rng())
    assert np.allclose(flipped.points, SAMPLE.points * [-1, 1, 1, 1])
    assert flipped.boxes[0, 6] == pytest.approx(math.pi - 0.5)
    assert RandomFlip(0, 0)(SAMPLE, rng()) is SAMPLE


def test_flips_come_as_often_as_asked_for():
    generator = rng()
    flips = [RandomFlip(0.25)(SAMPLE, generator).points[0, 1] < 0 for _ in range(400)]
    assert 70 < sum(flips) < 130


def test_rotation_stays_within_its_angle_and_keeps_distances():
    generator = rng()
    angles = []
    for _ in range(50):
        turned = GlobalRotation(0.3)(SAMPLE, generator)
        angles.append(turned.boxes[0, 6] - 0.5)
        distances = np.linalg.norm(turned.points[:, :3], axis=1)
        assert np.allclose(distances, np.linalg.norm(SAMPLE.points[:, :3], axis=1), rtol=1e-6)
    assert max(np.abs(angles)) <= 0.3 + 1e-6 and min(angles) < -0.15 and max(angles) > 0.15


def test_scaling_changes_places_and_sizes_alike():
    scaled = GlobalScaling(1.1, 1.1)(SAMPLE, rng())
    assert np.allclose(scaled.points, SAMPLE.points * [1.1, 1.1, 1.1, 1])
    assert np.allclose(scaled.boxes, SAMPLE.boxes * ([1.1] * 6 + [1]))


def test_translation_shifts_points_and_boxes_alike():
    shifted = GlobalTranslation((1, 2, 0))(SAMPLE, rng())
    offset = shifted.points[0, :3] - SAMPLE.points[0, :3]
    assert offset[2] == 0 and offset[0] != 0 and offset[1] != 0
    assert np.allclose(shifted.points[:, :3], SAMPLE.points[:, :3] + offset, atol=1e-6)
    assert np.allclose(shifted.boxes[:, :3], SAMPLE.boxes[:, :3] + offset, atol=1e-6)


def test_range_filter_keeps_points_inside_and_boxes_by_their_centre():
    kept = RangeFilter((1, -10, 0, 7, 10, 20))(SAMPLE, rng())
    assert kept.points[:, 0].tolist() == [1, 4]            # lower face in, upper face out
    assert kept.boxes[:, 0].tolist() == [1] and kept.labels.tolist() == [1]


def test_shuffling_keeps_every_point():
    points = rng().random((100, 4)).astype(np.float32)
    shuffled = PointShuffle()(SAMPLE.replace(points=points), rng()).points
    assert not np.array_equal(shuffled, points)
    assert np.array_equal(np.sort(shuffled, 0), np.sort(points, 0))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: RandomFlip(1.5), lambda: GlobalRotation(-1), lambda: GlobalScaling(1.1, 0.9),
        lambda: GlobalScaling(0, 1), lambda: GlobalTranslation((1, 1)),
        lambda: RangeFilter((0, 0, 0, 1, 1, 0)), lambda: RangeFilter((0, 0, 0, 1, 1)),
    ],
)  # fmt: skip
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(ValueError):
        wrong()
