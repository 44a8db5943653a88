"""Frames in the order and with the augmentation that (seed, epoch, index) alone decide.

Nothing here has state that a resumed run would have to restore, and the number of workers or
processes changes no frame.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from detector.errors import InputError
from detector.records import Batch, Sample, collate

Transform = Callable[[Sample, np.random.Generator], Sample]


class TrainingFrames(Dataset):
    """Augmented frames; indexed by (epoch, index) so that workers need not be told the epoch.

    Args:
        dataset: map-style, gives `Sample`s.
        transforms: applied in order, all with one generator seeded by (seed, epoch, index). One
            with a method `at_epoch(epoch, epochs)` gives there the transform for an epoch, or
            None.
        seed: of the run.
        cache: keep frames, as read, in memory.
        epochs: of the whole run.
    """

    def __init__(
        self, dataset, transforms: Sequence[Transform], seed: int, cache: bool = False,
        epochs: int = 1,
    ):  # fmt: skip
        self.dataset = dataset
        self.transforms = tuple(transforms)
        self.seed = seed
        self.epochs = epochs
        self.frames: list[Sample | None] | None = [None] * len(dataset) if cache else None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        sample = self._read(index)
        rng = np.random.default_rng((self.seed, epoch, index))
        for transform in self.transforms_at(epoch):
            sample = transform(sample, rng)
        return sample

    def transforms_at(self, epoch: int) -> Iterator[Transform]:
        """Those of an epoch, from 0."""
        for transform in self.transforms:
            if hasattr(transform, "at_epoch"):
                transform = transform.at_epoch(epoch, self.epochs)
            if transform is not None:
                yield transform

    def _read(self, index: int) -> Sample:
        if self.frames is None:
            return self.dataset[index]
        if self.frames[index] is None:
            self.frames[index] = self.dataset[index]
        return self.frames[index]


class EpochBatches(Sampler):
    """Keys (epoch, index) of each batch of one process, in a new order every epoch.

    All batches are full and all processes have equally many: the last ones are filled up from the
    start of the order.

    Attributes:
        epoch: whose order is given; the loop sets it.
        first_batch: batches to leave out, for a run that was stopped within an epoch.
    """

    def __init__(self, frames: int, batch_size: int, seed: int, rank: int = 0, processes: int = 1):
        self.frames = frames
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.processes = processes
        self.epoch = 0
        self.first_batch = 0

    @property
    def batches(self) -> int:
        """In a whole epoch, on each process."""
        return -(-self.frames // (self.batch_size * self.processes))

    def __len__(self) -> int:
        return self.batches - self.first_batch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch
        order = np.random.default_rng((self.seed, epoch)).permutation(self.frames)
        order = np.resize(order, self.batches * self.batch_size * self.processes)
        mine = order[self.rank :: self.processes].reshape(self.batches, self.batch_size)
        for batch in mine[self.first_batch :]:
            yield [(epoch, int(index)) for index in batch]


class _Guarded(Dataset):
    """Gives an `InputError` back instead of raising it: across processes only its text would
    survive, wrapped into a traceback."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key):
        try:
            return self.dataset[key]
        except InputError as error:
            return error


def _collate(samples: list[Sample | InputError]) -> Batch | InputError:
    for sample in samples:
        if isinstance(sample, InputError):
            return sample
    return collate(samples)


class Batches:
    """A `DataLoader` that raises the errors its workers met."""

    def __init__(self, dataset, workers: int, pin_memory: bool = False, **options: Any):
        self.dataset = dataset
        self.loader = DataLoader(
            _Guarded(dataset),
            num_workers=workers,
            collate_fn=_collate,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            worker_init_fn=_start_worker if workers else None,
            **options,
        )

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            if isinstance(batch, InputError):
                raise batch
            yield batch


def _start_worker(worker: int) -> None:
    """One thread each; Ctrl-C is the main process's to act on, and SIGTERM ends a worker even
    where the main process has a handler of its own, which a fork would inherit."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def training_batches(
    frames: TrainingFrames, batches: Iterable[list[tuple[int, int]]], workers: int,
    device: torch.device,
) -> Batches:  # fmt: skip
    """Batches of the keys that `batches` gives, an `EpochBatches` in training."""
    return Batches(
        frames, workers, pin_memory=device.type == "cuda", batch_sampler=batches
    )


def evaluation_batches(dataset, indices: Sequence[int], batch_size: int, workers: int) -> Batches:
    """Frames `indices` of a data set as they are, in order."""
    return Batches(dataset, workers, sampler=list(indices), batch_size=batch_size)
