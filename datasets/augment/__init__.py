"""Augmentation: `Sample -> Sample`, pure, with an explicit random generator.

A transform is any callable `(sample, rng) -> sample` that draws all its randomness from `rng` and
leaves its input as it was. `AugmentedDataset` gives every sample a generator of its own, made from
(seed, epoch, index), so that a run is the same whatever the number of workers.
"""

from datasets.augment.dataset import AugmentedDataset, Transform
from datasets.augment.motion import move_sample
from datasets.augment.world import (
    GlobalRotation,
    GlobalScaling,
    GlobalTranslation,
    PointShuffle,
    RandomFlip,
    RangeFilter,
)

__all__ = [
    "AugmentedDataset",
    "GlobalRotation",
    "GlobalScaling",
    "GlobalTranslation",
    "PointShuffle",
    "RandomFlip",
    "RangeFilter",
    "Transform",
    "move_sample",
]
