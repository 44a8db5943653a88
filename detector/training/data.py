"""Frames in the order and with the augmentation that (seed, epoch, index) alone decide.

Nothing here has state that a resumed run would have to restore, and the number of workers or
processes changes no frame.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

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


@dataclass(frozen=True)
class _Loaded:
    """What comes out of a loader's process: errors are values there, for across processes only
    their text would survive, wrapped into a traceback."""

    batch: Batch | None
    """None if a frame is bad that must not be skipped."""
    errors: list[InputError]

    def pin_memory(self) -> _Loaded:
        """Called by the loader; from pinned memory, copies to a GPU run beside other work."""
        if self.batch is None:
            return self
        # Boxes and labels are a few kilobytes, which the driver copies aside by itself.
        return replace(self, batch=replace(self.batch, points=self.batch.points.pin_memory()))


class _Guarded(Dataset):
    """Gives (frame, errors) by key. The frame is None if it is bad; or, if bad frames are skipped,
    the next one that is good."""

    def __init__(self, dataset, skip_bad_frames: bool):
        self.dataset = dataset
        self.skip_bad_frames = skip_bad_frames

    def __getitem__(self, key) -> tuple[Sample | None, list[InputError]]:
        errors: list[InputError] = []
        while len(errors) < len(self.dataset):
            try:
                return self.dataset[key], errors
            except InputError as error:
                errors.append(error)
                if not self.skip_bad_frames:
                    break
                epoch, index = key
                key = (epoch, (index + 1) % len(self.dataset))
        return None, errors


def _collate(frames: list[tuple[Sample | None, list[InputError]]]) -> _Loaded:
    errors = [error for _, of_frame in frames for error in of_frame]
    if any(sample is None for sample, _ in frames):
        return _Loaded(None, errors)
    return _Loaded(collate([sample for sample, _ in frames]), errors)


class _Due:
    """The keys of the batches that are still to come."""

    def __init__(self):
        self.keys: list[list] = []

    def __iter__(self) -> Iterator[list]:
        return iter(list(self.keys))

    def __len__(self) -> int:
        return len(self.keys)


class Batches:
    """Batches of frames, in the order of their keys, whatever happens to the processes that read.

    A process that dies is started anew, with the others, and reading goes on with the batch that
    was due. After a few deaths in a row without a batch between them, that is an error.

    Args:
        dataset: frames by key.
        keys: of the frames of each batch; asked for them at the start of each pass.
        workers: processes that read; 0 reads in this one.
        pin_memory: for copies to a GPU.
        skip_bad_frames: let the next good frame take the place of one that raises `InputError`;
            keys are (epoch, index) then.

    Attributes:
        skipped: what was wrong with each frame that was skipped, without repetitions.
    """

    def __init__(
        self, dataset, keys: Iterable[list], workers: int, pin_memory: bool = False,
        skip_bad_frames: bool = False,
    ):  # fmt: skip
        self.dataset = dataset
        self.keys = keys
        self.workers = workers
        self.pin_memory = pin_memory
        self.skip_bad_frames = skip_bad_frames
        self.skipped: dict[str, None] = {}
        self._due = _Due()
        self._loader = self._new_loader()

    def _new_loader(self) -> DataLoader:
        return DataLoader(
            _Guarded(self.dataset, self.skip_bad_frames),
            batch_sampler=self._due,
            num_workers=self.workers,
            collate_fn=_collate,
            persistent_workers=self.workers > 0,
            pin_memory=self.pin_memory,
            worker_init_fn=_start_worker if self.workers else None,
        )

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Batch]:
        self._due.keys = list(self.keys)
        deaths = 0
        while True:
            try:
                for loaded in _iterator(self._loader):
                    self._note(loaded)
                    del self._due.keys[0]
                    deaths = 0
                    yield loaded.batch
                return
            except (RuntimeError, OSError, EOFError) as error:
                if not (self.workers and _is_a_death(error)):
                    raise
                deaths += 1
                self._start_again(error, deaths)

    def _note(self, loaded: _Loaded) -> None:
        if loaded.batch is None:
            raise loaded.errors[-1]
        for error in loaded.errors:
            if str(error) not in self.skipped:
                self.skipped[str(error)] = None
                print(f"skipped a bad frame: {error}", flush=True)

    def _start_again(self, error: Exception, deaths: int) -> None:
        advice = "often for want of memory: lower workers or batch_size, or give more /dev/shm"
        if deaths > MOST_DEATHS:
            raise InputError(
                f"a process that reads data died {deaths} times in a row ({advice}); go on with "
                f"--resume"
            ) from error
        print(f"a process that reads data died ({advice}); starting it anew", flush=True)
        self._loader = self._new_loader()


MOST_DEATHS = 3


def _is_a_death(error: Exception) -> bool:
    """Whether a loader's process has ended, and not a data set raised this in it."""
    if isinstance(error, RuntimeError):
        # The thread that copies into pinned memory fails where it fetches from the dead process.
        signs = ("DataLoader worker", "Pin memory thread exited")
        return any(sign in str(error) for sign in signs) and "Caught" not in str(error)
    # The tensors of a batch are fetched from the process that made them.
    fetching = isinstance(error, (ConnectionError, EOFError, FileNotFoundError))
    return fetching and "Caught" not in str(error)


def _iterator(loader: DataLoader) -> Iterator[_Loaded]:
    """The loader's iterator, without torch's handler of SIGCHLD: where a process of the loader
    dies, that raises in whatever the main thread is at, also in the midst of a training step. The
    iterator itself finds out within seconds as well, and when a batch is asked for."""
    if threading.current_thread() is not threading.main_thread():
        return iter(loader)
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        return iter(loader)
    finally:
        signal.signal(signal.SIGCHLD, handler)


def _start_worker(worker: int) -> None:
    """One thread each; Ctrl-C is the main process's to act on, and SIGTERM ends a worker even
    where the main process has a handler of its own, which a fork would inherit."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def training_batches(
    frames: TrainingFrames, batches: Iterable[list[tuple[int, int]]], workers: int,
    device: torch.device, skip_bad_frames: bool = False,
) -> Batches:  # fmt: skip
    """Batches of the keys that `batches` gives, an `EpochBatches` in training."""
    return Batches(frames, batches, workers, device.type == "cuda", skip_bad_frames)


def evaluation_batches(dataset, indices: Sequence[int], batch_size: int, workers: int) -> Batches:
    """Frames `indices` of a data set as they are, in order."""
    indices = list(indices)
    keys = [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)]
    return Batches(dataset, keys, workers)
