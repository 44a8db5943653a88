"""Ground-truth paste: true objects of other frames, with their points, put into a frame.

Source: Yan, Mao, Li: "SECOND: Sparsely Embedded Convolutional Detection", Sensors 2018,
section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from datasets.augment.ground import GroundMap
from datasets.augment.paste_database import PasteDatabase
from datasets.augment.places import free_places
from detector.errors import InputError
from detector.ops.boxes.cpu import box_of_point
from detector.records import Sample


class GroundTruthPaste:
    """Fills every frame up to a number of objects of each class.

    Objects keep their place as the sensor saw it, so that their points are as dense as they would
    be there; what would overlap another box seen from above is left out. The frame's own points
    inside the new boxes are removed. An object keeps its height over the ground, which is
    estimated in both frames; where there are no points to estimate it from, it keeps its height.

    Args:
        database: file of `tools/prepare.py paste`, looked at when the first frame comes.
        classes: names of the frames' labels.
        counts: class -> how many objects a frame shall have; classes left out get none.
        min_points: objects with fewer points are not used.
        fill_up: `counts` says how many there are afterwards; otherwise how many are added.

    Raises:
        ValueError: counts of unknown classes, or negative ones.
        InputError, with the first frame: a database that can't be used or doesn't fit.
    """

    def __init__(
        self, database: str | Path, classes: Sequence[str], counts: Mapping[str, int],
        min_points: int = 5, fill_up: bool = True,
    ):  # fmt: skip
        self.path = Path(database)
        self.classes = tuple(classes)
        self.counts = dict(counts)
        self.min_points = min_points
        self.fill_up = fill_up
        for name, count in self.counts.items():
            if name not in self.classes or count < 0:
                raise ValueError(
                    f"counts has {name}={count}; it needs numbers of 0 or more of the classes "
                    f"{', '.join(self.classes)}"
                )

    def __getstate__(self) -> dict:
        return {k: v for k, v in vars(self).items() if k not in ("database", "_pools")}

    @cached_property
    def database(self) -> PasteDatabase:
        return PasteDatabase(self.path)

    @cached_property
    def _pools(self) -> dict[int, np.ndarray]:
        """Label -> objects of the database that can be pasted."""
        database, pools = self.database, {}
        enough = database.counts >= self.min_points
        for name, count in self.counts.items():
            if count == 0:
                continue
            if name not in database.classes:
                raise InputError(
                    f"{self.path}: has objects of {', '.join(database.classes)}, but no {name} to "
                    f"paste; write it anew with `tools/prepare.py paste CONFIG`, or set counts of "
                    f"{name} to 0"
                )
            wanted = database.labels == database.classes.index(name)
            pools[self.classes.index(name)] = np.flatnonzero(wanted & enough)
        return pools

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        database = self.database
        self._check(sample)
        drawn, labels = [], []
        for label, pool in self._pools.items():
            wanted = self.counts[self.classes[label]]
            if self.fill_up:
                wanted -= int((sample.labels == label).sum())
            chosen = rng.choice(pool, min(max(wanted, 0), len(pool)), replace=False)
            drawn.append(chosen)
            labels.append(np.full(len(chosen), label))
        if not sum(map(len, drawn)):
            return sample
        drawn, labels = np.concatenate(drawn), np.concatenate(labels)
        boxes = np.array(database.boxes[drawn])                               # (M, 7|9)
        free = free_places(sample.boxes, boxes)
        if not free.any():
            return sample
        return self._paste(sample, drawn[free], boxes[free], labels[free])

    def _paste(
        self, sample: Sample, drawn: np.ndarray, boxes: np.ndarray, labels: np.ndarray
    ) -> Sample:
        bottom = GroundMap(sample.points).heights(boxes) + self.database.above_ground[drawn]
        z = np.where(np.isfinite(bottom), bottom + boxes[:, 5] / 2, boxes[:, 2])
        boxes[:, 2] = z
        points = [np.ascontiguousarray(sample.points)]
        points[0] = points[0][box_of_point(points[0], boxes.astype(np.float64)) < 0]
        for index, box in zip(drawn, boxes, strict=True):
            own = self.database.points(index)
            own[:, :3] += box[:3]
            points.append(own)
        return sample.replace(
            points=np.concatenate(points),
            boxes=np.concatenate([sample.boxes, boxes[:, : sample.boxes.shape[1]]]),
            labels=np.concatenate([sample.labels, labels]),
        )

    def _check(self, sample: Sample) -> None:
        """Raises InputError for a frame that the database's objects can't be put into."""
        database = self.database
        if sample.point_features != database.point_features:
            raise InputError(
                f"{self.path}: its objects have point columns {database.point_features}, frame "
                f"{sample.frame_id} has {sample.point_features}; write it for this data set with "
                f"`tools/prepare.py paste CONFIG`"
            )
        if sample.boxes.shape[1] > database.boxes.shape[1]:
            raise InputError(
                f"{self.path}: its boxes have no velocity, those of frame {sample.frame_id} do; "
                f"write it for this data set with `tools/prepare.py paste CONFIG`"
            )
