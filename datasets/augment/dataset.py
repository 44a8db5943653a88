"""A data set with transforms applied, reproducible per (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from detector.records import Sample


class Transform(Protocol):
    """Any callable of this form; it draws from `rng` alone and does not change its input."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample: ...


class SampleDataset(Protocol):
    """What a data set has to offer."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class AugmentedDataset(torch.utils.data.Dataset):
    """`dataset` with `transforms` applied in order.

    Sample `index` of an epoch comes out the same in every process and in any order of reading:
    its transforms draw one after another from a generator seeded with (seed, epoch, index).

    Args:
        dataset: map-style, of `Sample`.
        transforms: callables `(sample, rng) -> sample`.
        seed: of the whole run.
    """

    def __init__(self, dataset: SampleDataset, transforms: Sequence[Transform], seed: int = 0):
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, got {seed}")
        self.dataset = dataset
        self.transforms = tuple(transforms)
        self.seed = seed
        # Shared memory, so that workers that live on between epochs see the new one.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Call before each epoch, before the loader's iterator is made; workers started earlier
        follow."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        if index < 0:
            index += len(self)
        sample = self.dataset[index]
        rng = np.random.default_rng([self.seed, self.epoch, index])
        for transform in self.transforms:
            sample = transform(sample, rng)
        return sample
