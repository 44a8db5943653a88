"""Data sets put together, and data sets in which not every class is labelled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detector.errors import InputError
from detector.records import Sample


class ConcatDataset:
    """The frames of several data sets, one after another.

    A frame's id is its own after the place of its data set, `1:000042`, since two data sets may
    have the same ids.

    Args:
        datasets: map-style, of the same classes and point columns.
        repeats: how often an epoch sees the frames of each; None: once.

    Raises:
        InputError: no data sets, or such as don't go together.
    """

    def __init__(self, datasets: Sequence, repeats: Sequence[int] | None = None):
        self.datasets = tuple(datasets)
        self.repeats = (1,) * len(self.datasets) if repeats is None else tuple(repeats)
        if not self.datasets:
            raise InputError("ConcatDataset: datasets is empty; name at least one")
        if len(self.repeats) != len(self.datasets) or min(self.repeats) < 1:
            raise InputError(
                f"ConcatDataset: repeats is {list(self.repeats)}; it needs a number of 1 or more "
                f"for each of {len(self.datasets)} data sets"
            )
        self.classes = tuple(self.datasets[0].classes)
        self.point_features = tuple(self.datasets[0].point_features)
        for place, dataset in enumerate(self.datasets):
            for name in ("classes", "point_features"):
                theirs, ours = tuple(getattr(dataset, name)), getattr(self, name)
                if theirs != ours:
                    raise InputError(
                        f"ConcatDataset: data set {place} has {name} {theirs}, data set 0 has "
                        f"{ours}; they must be the same in all"
                    )
        lengths = np.repeat([len(d) for d in self.datasets], self.repeats)
        self._owners = np.repeat(np.arange(len(self.datasets)), self.repeats)
        self._ends = np.cumsum(lengths)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Sample:
        place, row = self._at(index)
        sample = self.datasets[place][row]
        return sample.replace(frame_id=f"{place}:{sample.frame_id}")

    def labels(self, index: int) -> np.ndarray:
        """Labels of the boxes of a sample, where that takes no reading without it."""
        place, row = self._at(index)
        dataset = self.datasets[place]
        return dataset.labels(row) if hasattr(dataset, "labels") else dataset[row].labels

    def _at(self, index: int) -> tuple[int, int]:
        """Which data set, and which of its frames."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        turn = int(np.searchsorted(self._ends, index, side="right"))
        place = int(self._owners[turn])
        return place, int(index - self._ends[turn]) + len(self.datasets[place])


class PartlyLabelledDataset:
    """A data set that labels only some of the classes throughout.

    What is not labelled is then not taken for background: for the other classes no frame of it
    says that something is not there. Boxes of them, if there are any, are learnt from.

    Args:
        dataset: map-style, of all classes.
        labelled_classes: those of which every object has a box.

    Raises:
        InputError: a class that the data set doesn't have.
    """

    def __init__(self, dataset, labelled_classes: Sequence[str]):
        self.dataset = dataset
        unknown = [name for name in labelled_classes if name not in dataset.classes]
        if unknown:
            raise InputError(
                f"labelled_classes: {', '.join(map(repr, unknown))} is none of the data set's "
                f"classes {', '.join(dataset.classes)}"
            )
        self.labelled = np.array([name in labelled_classes for name in dataset.classes])

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[index].replace(labelled=self.labelled)

    def __getattr__(self, name: str):
        # classes, point_features, evaluate, ... are those of the data set.
        if name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)
