"""Order and augmentation depend on (seed, epoch, index) alone."""

import numpy as np
import pytest
import torch

from detector.errors import InputError
from detector.training.data import (
    EpochBatches,
    TrainingFrames,
    evaluation_batches,
    training_batches,
)
from tests.writers.toy import Shift, ToyDataset


def epoch_keys(frames=7, batch_size=2, epoch=0, **options):
    batches = EpochBatches(frames, batch_size, seed=1, **options)
    batches.epoch = epoch
    return list(batches)


def test_every_frame_comes_once_an_epoch_and_batches_are_full():
    keys = epoch_keys()
    assert [len(batch) for batch in keys] == [2] * 4
    flat = [index for batch in keys for _, index in batch]
    assert set(flat) == set(range(7)) and len(flat) == 8
    assert epoch_keys() == keys and epoch_keys(epoch=1) != keys
    assert {e for batch in epoch_keys(epoch=1) for e, _ in batch} == {1}


def test_processes_share_an_epoch_and_take_equally_many_steps():
    shares = [epoch_keys(frames=10, rank=rank, processes=3) for rank in range(3)]
    assert {len(share) for share in shares} == {2}
    seen = {index for share in shares for batch in share for _, index in batch}
    assert seen == set(range(10))


def test_a_stopped_epoch_goes_on_with_the_next_batch():
    batches = EpochBatches(7, 2, seed=1)
    whole = list(batches)
    batches.first_batch = 3
    assert list(batches) == whole[3:] and len(batches) == 1


def loaded(workers, epoch=0):
    frames = TrainingFrames(ToyDataset(5), [Shift()], seed=3)
    sampler = EpochBatches(5, 2, seed=3)
    sampler.epoch = epoch
    loader = training_batches(frames, sampler, workers, torch.device("cpu"))
    return [(b.frame_ids, b.points) for b in loader]


def test_workers_change_nothing():
    alone, helped = loaded(0), loaded(2)
    for (ids, points), (other_ids, other_points) in zip(alone, helped, strict=True):
        assert ids == other_ids and torch.equal(points, other_points)


def test_a_frame_is_augmented_otherwise_every_epoch_and_the_same_when_asked_again():
    frames = TrainingFrames(ToyDataset(5), [Shift()], seed=3, cache=True)
    first, again, later = frames[0, 3], frames[0, 3], frames[1, 3]
    assert np.array_equal(first.points, again.points)
    assert not np.array_equal(first.points, later.points)
    assert np.array_equal(frames.frames[3].points, ToyDataset(5)[3].points)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_frame_is_named_in_one_sentence(workers):
    batches = evaluation_batches(ToyDataset(3, bad_frame=1), range(3), 1, workers)
    with pytest.raises(InputError) as error:
        list(batches)
    assert str(error.value) == "000001.bin: is broken; copy it again"
