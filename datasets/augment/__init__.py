"""Augmentation: `Sample -> Sample`, pure, with an explicit random generator.

A transform is any callable `(sample, rng) -> sample` that draws all its randomness from `rng` and
leaves its input as it was. Training gives every frame a generator of its own, made from (seed,
epoch, index), so that a run is the same whatever the number of workers. A transform with a method
`at_epoch(epoch, epochs)` says itself what is to be done in an epoch (see `FadeOut`).
"""

from datasets.augment.drop import BeamDrop, PointDrop
from datasets.augment.fade import FadeOut
from datasets.augment.motion import move_sample
from datasets.augment.objects import ObjectNoise
from datasets.augment.paste import GroundTruthPaste
from datasets.augment.transform import Transform
from datasets.augment.visible import VisibleBoxes
from datasets.augment.world import (
    GlobalRotation,
    GlobalScaling,
    GlobalTranslation,
    PointShuffle,
    RandomFlip,
    RangeFilter,
)

__all__ = [
    "BeamDrop",
    "FadeOut",
    "GlobalRotation",
    "GlobalScaling",
    "GlobalTranslation",
    "GroundTruthPaste",
    "ObjectNoise",
    "PointDrop",
    "PointShuffle",
    "RandomFlip",
    "RangeFilter",
    "Transform",
    "VisibleBoxes",
    "move_sample",
]
