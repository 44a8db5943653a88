"""From a config to the database of objects that its `GroundTruthPaste` reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from datasets.augment.paste import GroundTruthPaste
from datasets.augment.paste_database import (
    FrameObjects,
    ObjectsOfFrames,
    PasteDatabase,
    write_paste_database,
)
from datasets.balance import ClassBalancedDataset
from datasets.combined import ConcatDataset
from detector.config import Config, build
from detector.errors import InputError


def database_path(config: Config) -> Path:
    """The file that the config's `GroundTruthPaste` reads.

    Raises:
        InputError: the config has none.
    """
    node = next(pastes(config), None)
    if node is None:
        raise InputError(
            f"{config.path}: train_transforms has no GroundTruthPaste, so there is nothing to "
            f"prepare; name a file with --out to write a database all the same"
        )
    return Path(node["database"])


def pastes(config: Config) -> Iterator[dict]:
    """The nodes of `GroundTruthPaste` in the config's transforms."""
    return _nodes(config.train_transforms)


def prepare_paste(
    config: Config, path: Path, workers: int = 0,
    watch: Callable[[Iterable, int], Iterable] = lambda frames, count: frames,
) -> PasteDatabase:  # fmt: skip
    """Writes the objects of the config's training frames, as they are before augmentation.

    Args:
        config: names the data set.
        path: of the file to write.
        workers: processes that read frames.
        watch: passes the frames on, given how many there are; for a progress bar.
    """
    dataset = _each_frame_once(build(config.train_dataset))
    source = f"{type(dataset).__name__} of {config.path}, {len(dataset)} frames"
    frames = watch(_read(ObjectsOfFrames(dataset), workers), len(dataset))
    write_paste_database(path, frames, config.classes, source)
    return PasteDatabase(path)


def _each_frame_once(dataset):
    if isinstance(dataset, ClassBalancedDataset):
        return _each_frame_once(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        return ConcatDataset([_each_frame_once(part) for part in dataset.datasets])
    return dataset


def _read(objects: ObjectsOfFrames, workers: int) -> Iterator[FrameObjects]:
    loader = DataLoader(_Guarded(objects), batch_size=None, num_workers=workers)
    for frame in loader:
        if isinstance(frame, InputError):
            raise frame
        yield frame


class _Guarded:
    """Hands an `InputError` over as a value, as a worker's exception would lose its form."""

    def __init__(self, objects: ObjectsOfFrames):
        self.objects = objects

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, index: int) -> FrameObjects | InputError:
        try:
            return self.objects[index]
        except InputError as error:
            return error


def _nodes(node: Any) -> Iterator[dict]:
    if isinstance(node, dict):
        if node.get("type") is GroundTruthPaste:
            yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from _nodes(item)
