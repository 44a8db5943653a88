"""Boxes with too few points are left out, and nothing else changes."""

import numpy as np
import pytest

from datasets.augment import VisibleBoxes
from tests.writers.toy import ToyDataset

RNG = np.random.default_rng(0)


def test_boxes_are_kept_by_the_points_they_hold():
    sample = ToyDataset()[3]
    empty = sample.boxes[:1] + np.float32([0, 0, 50, 0, 0, 0, 0])
    boxes = np.concatenate([empty, sample.boxes])
    sample = sample.replace(boxes=boxes, labels=np.array([0, 1, 0, 1]))
    kept = VisibleBoxes(min_points=5)(sample, RNG)
    assert np.array_equal(kept.boxes, boxes[1:]) and kept.labels.tolist() == [1, 0, 1]
    assert kept.points is sample.points
    assert len(VisibleBoxes(min_points=0)(sample, RNG).boxes) == 4


def test_frames_without_boxes_or_points_pass():
    sample = ToyDataset()[0]
    assert len(VisibleBoxes()(sample, RNG).boxes) == 0
    none = ToyDataset()[3].replace(points=np.zeros((0, 4), np.float32))
    assert len(VisibleBoxes()(none, RNG).boxes) == 0


def test_a_negative_number_is_refused():
    with pytest.raises(ValueError, match="min_points"):
        VisibleBoxes(-1)
