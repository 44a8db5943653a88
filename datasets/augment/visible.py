"""Leaves out true boxes that the scanner hardly saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.ops.boxes.cpu import box_of_point
from detector.records import Sample


@dataclass(frozen=True)
class VisibleBoxes:
    """Keeps the boxes that hold at least `min_points` points: nothing can be learnt from others,
    and in a short training they are most of the noise."""

    min_points: int = 1

    def __post_init__(self):
        if self.min_points < 0:
            raise ValueError(f"min_points must be 0 or more, got {self.min_points}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        owner = box_of_point(
            np.ascontiguousarray(sample.points), sample.boxes.astype(np.float64)
        )
        counts = np.bincount(owner[owner >= 0], minlength=len(sample.boxes))
        kept = counts >= self.min_points
        return sample.replace(boxes=sample.boxes[kept], labels=sample.labels[kept])
