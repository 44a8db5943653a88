"""Every augmentation is the same per (seed, epoch, index), whatever the number of workers."""

import numpy as np
import pytest
import torch

from datasets.augment import (
    BeamDrop,
    FadeOut,
    GlobalRotation,
    GlobalScaling,
    GlobalTranslation,
    GroundTruthPaste,
    ObjectNoise,
    PointDrop,
    PointShuffle,
    RandomFlip,
    RangeFilter,
)
from datasets.augment.paste_database import ObjectsOfFrames, write_paste_database
from datasets.balance import ClassBalancedDataset
from detector.training.data import EpochBatches, TrainingFrames, training_batches
from tests.writers.street import CLASSES, Street, street


@pytest.fixture(scope="module")
def transforms(tmp_path_factory):
    path = tmp_path_factory.mktemp("workers") / "objects.db"
    objects = ObjectsOfFrames(Street(6))
    write_paste_database(path, (objects[i] for i in range(6)), CLASSES, "streets")
    paste = GroundTruthPaste(path, CLASSES, {"Car": 6, "Pedestrian": 4, "Cyclist": 4})
    return [
        FadeOut(paste, last_epochs=1), ObjectNoise(), RandomFlip(), GlobalRotation(),
        GlobalScaling(), GlobalTranslation(), RangeFilter((0, -40, -3, 70, 40, 1)), BeamDrop(),
        PointDrop(), PointShuffle(),
    ]  # fmt: skip


def batches(transforms, workers, epoch):
    frames = TrainingFrames(
        ClassBalancedDataset(Street(6), seed=5), transforms, seed=5, epochs=3
    )
    sampler = EpochBatches(len(frames), 2, seed=5)
    sampler.epoch = epoch
    return list(training_batches(frames, sampler, workers, torch.device("cpu")))


def test_workers_change_no_bit(transforms):
    for epoch in (1, 2):
        alone = batches(transforms, 0, epoch)
        for workers in (1, 2):
            for one, other in zip(alone, batches(transforms, workers, epoch), strict=True):
                assert one.frame_ids == other.frame_ids
                assert torch.equal(one.points, other.points)
                assert all(map(torch.equal, one.boxes, other.boxes))
                assert all(map(torch.equal, one.labels, other.labels))


def test_the_last_epoch_goes_without_what_fades_out(transforms):
    alone = transforms[:1]
    pasted, plain = (sum(len(b) for batch in batches(alone, 0, epoch) for b in batch.boxes)
                     for epoch in (1, 2))  # fmt: skip
    assert pasted > plain == len(ClassBalancedDataset(Street(6), seed=5)) * 5


def test_no_transform_changes_its_input(transforms):
    for transform in transforms:
        sample, untouched = street(), street()
        transform(sample, np.random.default_rng(1))
        assert np.array_equal(sample.points, untouched.points)
        assert np.array_equal(sample.boxes, untouched.boxes)
        assert np.array_equal(sample.labels, untouched.labels)
