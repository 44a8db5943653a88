"""Noise of single objects."""

import math

import numpy as np
import pytest

from datasets.augment import ObjectNoise
from tests.oracles.boxes import intersection_bev
from tests.writers.street import street

SCENE = street(cars=8, pedestrians=8, cyclists=4)


def local(points, box):
    """Points in the frame of a box, in units of its size."""
    offset = points[:, :3].astype(np.float64) - box[:3]
    cos, sin = np.cos(box[6]), np.sin(box[6])
    x = offset[:, 0] * cos + offset[:, 1] * sin
    y = offset[:, 1] * cos - offset[:, 0] * sin
    return np.stack([x, y, offset[:, 2]], 1) / box[3:6]


def own_points(sample, index):
    return sample.points[sample.points[:, 3] == np.float32((index + 1) * 0.01)]


def test_points_keep_their_place_in_their_box():
    noisy = ObjectNoise()(SCENE, np.random.default_rng(0))
    for index in range(len(SCENE.boxes)):
        before = local(own_points(SCENE, index), SCENE.boxes[index])
        after = local(own_points(noisy, index), noisy.boxes[index])
        assert np.allclose(before, after, atol=1e-5)
    moved = np.abs(noisy.boxes - SCENE.boxes)
    assert (moved[:, :2].max(0) > 0.1).all() and moved[:, 6].max() > 0.05


def test_boxes_stay_within_what_was_asked_for():
    noisy = ObjectNoise(0.1, (0, 0, 0), (0.9, 1.0))(SCENE, np.random.default_rng(0))
    ratio = noisy.boxes[:, 3:6] / SCENE.boxes[:, 3:6]
    assert (ratio >= 0.9 - 1e-6).all() and (ratio <= 1 + 1e-6).all() and np.ptp(ratio) > 0.05
    turn = (noisy.boxes[:, 6] - SCENE.boxes[:, 6] + np.pi) % (2 * np.pi) - np.pi
    assert 0.05 < np.abs(turn).max() <= 0.1 + 1e-6
    assert (noisy.boxes[:, 6] >= -np.pi).all() and (noisy.boxes[:, 6] < np.pi).all()
    assert np.allclose(noisy.boxes[:, :2], SCENE.boxes[:, :2])
    bottom = noisy.boxes[:, 2] - noisy.boxes[:, 5] / 2
    assert np.allclose(bottom, SCENE.boxes[:, 2] - SCENE.boxes[:, 5] / 2, atol=1e-5)


def test_boxes_do_not_run_into_each_other():
    crowd = street(cars=12, pedestrians=12, cyclists=12)
    noisy = ObjectNoise(math.pi, (3, 3, 0))(crowd, np.random.default_rng(0))
    boxes = noisy.boxes.astype(np.float64)
    for i in range(len(boxes)):
        for j in range(i):
            assert intersection_bev(boxes[i], boxes[j]) < 1e-6


def test_a_box_without_room_stays():
    boxed_in = SCENE.boxes[:1].repeat(2, 0)                # two boxes in one place
    scene = SCENE.replace(boxes=boxed_in, labels=SCENE.labels[:2])
    noisy = ObjectNoise(0.01, (0.01, 0.01, 0))(scene, np.random.default_rng(0))
    assert np.array_equal(noisy.boxes, scene.boxes)
    assert sorted(map(tuple, noisy.points)) == sorted(map(tuple, scene.points))


def test_other_points_make_room():
    noisy = ObjectNoise(0, (3, 3, 0), (1, 1))(SCENE, np.random.default_rng(0))
    ground = noisy.points[noisy.points[:, 3] == 0]
    for index, box in enumerate(noisy.boxes):
        # The ground's points under the box moved with it, others are not inside.
        inside = (np.abs(local(ground, box)) <= 0.5 - 1e-4).all(1)
        before = (np.abs(local(SCENE.points, SCENE.boxes[index])) <= 0.5 + 1e-4).all(1)
        assert inside.sum() <= before.sum() - len(own_points(SCENE, index))


def test_velocities_turn_along():
    scene = street(velocities=True)
    noisy = ObjectNoise(math.pi, (0, 0, 0), (1, 1))(scene, np.random.default_rng(0))
    turn = noisy.boxes[:, 6] - scene.boxes[:, 6]
    course = np.arctan2(noisy.boxes[:, 8], noisy.boxes[:, 7]) - np.arctan2(
        scene.boxes[:, 8], scene.boxes[:, 7]
    )
    assert np.allclose(np.exp(1j * turn), np.exp(1j * course), atol=1e-5)


def test_a_frame_without_boxes_is_left_alone():
    empty = SCENE.replace(boxes=SCENE.boxes[:0], labels=SCENE.labels[:0])
    assert ObjectNoise()(empty, np.random.default_rng(0)) is empty


@pytest.mark.parametrize(
    "options",
    [{"max_angle": -1}, {"translation_std": (1, 1)}, {"scale": (1.1, 1.0)}, {"attempts": 0}],
)
def test_wrong_arguments_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ObjectNoise(**options)
