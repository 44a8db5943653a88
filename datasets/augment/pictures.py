"""Pictures of augmentations: a frame before and after each."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.augment.drop import BeamDrop, PointDrop
from datasets.augment.objects import ObjectNoise
from datasets.augment.paste import GroundTruthPaste
from datasets.augment.transform import Transform
from datasets.augment.world import (
    GlobalRotation,
    GlobalScaling,
    GlobalTranslation,
    RandomFlip,
    RangeFilter,
)
from detector.records import Sample
from detector.viz.bev import draw_bev, fitting_view
from detector.viz.style import FAINT, marks_of, save_png

COUNTS = {"Car": 15, "Pedestrian": 10, "Cyclist": 10}


def shown_transforms(database: Path, classes: Sequence[str]) -> list[Transform]:
    """One of each kind, strong enough to be seen and applied to every frame."""
    counts = {name: count for name, count in COUNTS.items() if name in classes}
    return [
        GroundTruthPaste(database, classes, counts),
        ObjectNoise(max_angle=math.pi / 6, translation_std=(1, 1, 0.1)),
        RandomFlip(left_right=1),
        GlobalRotation(),
        GlobalScaling(0.8, 0.85),
        GlobalTranslation((3, 3, 0.2)),
        BeamDrop(probability=1, max_share=1),
        PointDrop(0.9),
        RangeFilter((0, -20, -3, 40, 20, 1)),
    ]


def draw_augmentations(
    sample: Sample, transforms: Sequence[Transform], classes: Sequence[str], folder: Path,
    seed: int = 0, color_by: str = "height",
) -> Iterator[Path]:  # fmt: skip
    """Writes `FRAME_augment_NAME.png` for each transform by itself, seen from above: the frame on
    the left, what the transform makes of it on the right.

    Raises:
        InputError: a file that can't be written, a frame without points.
    """
    for transform in transforms:
        after = transform(sample, np.random.default_rng(seed))
        name = type(transform).__name__
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        path = folder / f"{sample.frame_id}_augment_{words}.png"
        draw_before_after(sample, after, classes, path, name, color_by)
        yield path


def draw_before_after(
    before: Sample, after: Sample, classes: Sequence[str], path: Path, title: str, color_by: str
) -> None:
    """Two pictures of one view side by side, in one file."""
    views = np.array([fitting_view(s.points, marks_of(s, None, 0)) for s in (before, after)])
    view = (*views[:, :2].min(0).tolist(), *views[:, 2:].max(0).tolist())
    pictures = [
        draw_bev(each, classes, view=view, color_by=color_by, size=1000,
                 title=f"{caption}   {len(each.points):,} points, {len(each.boxes)} boxes")
        for each, caption in ((before, "before"), (after, title))
    ]  # fmt: skip
    width, height = pictures[0].size
    both = Image.new("RGB", (2 * width + 4, height), FAINT)
    both.paste(pictures[0], (0, 0))
    both.paste(pictures[1], (width + 4, 0))
    save_png(both, path)
