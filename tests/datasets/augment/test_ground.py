"""The ground under any place."""

import numpy as np

from datasets.augment.ground import GroundMap
from tests.writers.street import street


def test_a_slope_is_followed_in_spite_of_objects_and_reflections_from_below():
    sample = street(cars=10, slope=0.05)
    below = np.array([[x, 5, -6, 0] for x in range(5, 50, 5)], np.float32)
    ground = GroundMap(np.concatenate([sample.points, below]))
    places = sample.boxes[:, :2]
    expected = -1.7 + 0.05 * places[:, 0]
    assert np.abs(ground.heights(places) - expected).max() < 0.15


def test_without_points_near_the_height_is_unknown():
    ground = GroundMap(street().points)
    assert np.isnan(ground.heights(np.array([[-50.0, 0], [500, 500], [30, -60]]))).all()
    assert np.isnan(GroundMap(np.zeros((0, 4), np.float32)).heights(np.zeros((1, 2)))).all()
    assert len(ground.heights(np.zeros((0, 7)))) == 0
