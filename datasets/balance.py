"""Class-balanced resampling: samples with rare classes are seen more often.

Source: Zhu et al., "Class-balanced Grouping and Sampling for Point Cloud 3D Object Detection",
arXiv:1908.09492, section 3.1.
"""

from __future__ import annotations

import numpy as np

from detector.records import Sample


class ClassBalancedDataset:
    """Draws samples so that each class is the reason for an equal share of them.

    The samples of each class are drawn, with replacement, to the number that all classes have on
    average; a sample with many classes is drawn for each of them. Samples without boxes are not
    drawn. The draw is made once, from `seed`, and is the same in every process.

    Args:
        dataset: map-style, with `classes`; its `labels(index)`, where it has this method, saves
            reading every sample once.
    """

    def __init__(self, dataset, seed: int = 0):
        self.dataset = dataset
        present = np.zeros((len(dataset), len(dataset.classes)), bool)
        for row in range(len(dataset)):
            present[row, self._labels(row)] = True
        each = round(present.sum() / len(dataset.classes))
        rng = np.random.default_rng(seed)
        drawn = [
            rng.choice(np.flatnonzero(of_class), each)
            for of_class in present.T
            if of_class.any()
        ]
        self.indices = np.concatenate(drawn) if drawn else np.arange(len(dataset))

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[int(self.indices[index])]

    def labels(self, index: int) -> np.ndarray:
        """Labels of the boxes of a sample."""
        return self._labels(int(self.indices[index]))

    def _labels(self, row: int) -> np.ndarray:
        if hasattr(self.dataset, "labels"):
            return self.dataset.labels(row)
        return self.dataset[row].labels

    def __getattr__(self, name: str):
        # classes, point_features, ... are those of the data set.
        if name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)
