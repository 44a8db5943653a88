"""Class-balanced resampling of any data set."""

import numpy as np

from datasets.balance import ClassBalancedDataset
from tests.writers.street import CLASSES, street


class Frames:
    """Cars in every frame, a cyclist in one of ten, nothing in the last."""

    classes = CLASSES

    def __len__(self):
        return 21

    def __getitem__(self, index):
        if index == 20:
            return street(f"{index}", cars=0, pedestrians=0, cyclists=0)
        return street(f"{index}", cars=2, pedestrians=0, cyclists=int(index % 10 == 0))


def test_rare_classes_are_seen_as_often_as_common_ones():
    balanced = ClassBalancedDataset(Frames(), seed=1)
    drawn = balanced.indices
    each = round((20 + 2) / 3)
    assert len(balanced) == 2 * each
    assert (drawn % 10 == 0).sum() >= each and 20 not in drawn
    assert balanced[3].frame_id == str(drawn[3]) and balanced.classes == CLASSES
    assert set(balanced.labels(len(balanced) - 1)) == {0, 2}


def test_the_draw_depends_on_the_seed_alone():
    draws = [ClassBalancedDataset(Frames(), seed=s).indices for s in (1, 1, 2)]
    assert np.array_equal(draws[0], draws[1]) and not np.array_equal(draws[0], draws[2])


def test_without_boxes_every_frame_is_seen():
    class Empty(Frames):
        def __getitem__(self, index):
            return super().__getitem__(20)

    assert ClassBalancedDataset(Empty()).indices.tolist() == list(range(21))
