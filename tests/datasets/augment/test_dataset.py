"""Reproducible augmentation, whatever the number of workers."""

import numpy as np
import pytest
import torch

from datasets.augment import AugmentedDataset, GlobalTranslation, PointShuffle
from detector.records import Sample


class Frames:
    def __len__(self):
        return 6

    def __getitem__(self, index):
        points = np.arange(40, dtype=np.float32).reshape(10, 4) + index
        return Sample(f"{index:06d}", points, ("x", "y", "z", "intensity"))


def augmented(seed=3):
    return AugmentedDataset(Frames(), [GlobalTranslation((1, 1, 1)), PointShuffle()], seed)


def read(dataset, workers, order=range(6), epochs=1):
    """Points of every sample of every epoch, through a loader whose workers live on."""
    loader = torch.utils.data.DataLoader(
        dataset, None, sampler=list(order), num_workers=workers,
        persistent_workers=workers > 0, multiprocessing_context="fork" if workers else None,
    )  # fmt: skip
    samples = []
    for epoch in range(epochs):
        dataset.set_epoch(epoch)
        samples.append({sample.frame_id: sample.points for sample in loader})
    return samples


def test_samples_do_not_depend_on_workers_or_order():
    one, two = read(augmented(), 0, epochs=2), read(augmented(), 2, range(5, -1, -1), epochs=2)
    for epoch in range(2):
        for frame_id, points in one[epoch].items():
            assert np.array_equal(two[epoch][frame_id], points)


def test_epochs_frames_and_seeds_differ():
    first, second = read(augmented(), 0, epochs=2)
    (other,) = read(augmented(seed=4), 0)
    shifts = {
        tuple(np.sort(points[:, 0] - points[:, 0].round())[:1])
        for samples in (first, second, other)
        for points in samples.values()
    }
    assert len(shifts) == 18


def test_negative_indices_count_from_the_end():
    dataset = augmented()
    assert np.array_equal(dataset[-1].points, dataset[5].points)


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed"):
        augmented(seed=-1)
