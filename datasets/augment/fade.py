"""Augmentation that ends before the training does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.augment.transform import Transform
from detector.records import Sample


@dataclass(frozen=True)
class FadeOut:
    """A transform that the last epochs leave out, so that a model ends on frames as they are.

    Source: Wang et al., "PointAugmenting", CVPR 2021, section 3.4.

    Args:
        transform: the transform.
        last_epochs: how many epochs at the end go without it.
    """

    transform: Transform
    last_epochs: int = 5

    def __post_init__(self):
        if self.last_epochs < 0:
            raise ValueError(f"last_epochs must be 0 or more, got {self.last_epochs}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return self.transform(sample, rng)

    def at_epoch(self, epoch: int, epochs: int) -> Transform | None:
        """The transform, or None if epoch `epoch` (from 0) of `epochs` goes without it."""
        return self.transform if epoch < epochs - self.last_epochs else None
