"""All augmentations together, at the strength that configs use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets.augment.drop import BeamDrop, PointDrop
from datasets.augment.objects import ObjectNoise
from datasets.augment.paste import GroundTruthPaste
from datasets.augment.transform import Transform
from datasets.augment.world import (
    GlobalRotation,
    GlobalScaling,
    GlobalTranslation,
    PointShuffle,
    RandomFlip,
    RangeFilter,
)


def every_transform(
    point_cloud_range: Sequence[float], classes: Sequence[str], database: str | Path | None,
    counts: Mapping[str, int],
) -> list[Transform]:  # fmt: skip
    """In the order in which they make sense; no paste without a database."""
    paste = [] if database is None else [GroundTruthPaste(database, classes, counts)]
    return [
        *paste, ObjectNoise(), RandomFlip(), GlobalRotation(), GlobalScaling(),
        GlobalTranslation(), BeamDrop(), PointDrop(), RangeFilter(tuple(point_cloud_range)),
        PointShuffle(),
    ]  # fmt: skip
