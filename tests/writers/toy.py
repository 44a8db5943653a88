"""A data set of a few boxes on a plane, made from the index, for tests of training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.errors import InputError
from detector.records import Sample


class ToyDataset:
    """Frames of up to three boxes with points on their faces.

    Args:
        frames: how many.
        bad_frame: index whose reading fails, as a broken file would.
        nan_frame: index whose box has a size that makes the loss infinite.
    """

    point_features = ("x", "y", "z", "intensity")

    def __init__(self, frames=6, classes=("Car", "Cyclist"), bad_frame=-1, nan_frame=-1):
        self.classes = tuple(classes)
        self.frames = frames
        self.bad_frame = bad_frame
        self.nan_frame = nan_frame

    def __len__(self):
        return self.frames

    def __getitem__(self, index):
        if index == self.bad_frame:
            raise InputError(f"{index:06d}.bin: is broken; copy it again")
        rng = np.random.default_rng(index)
        count = index % 4
        boxes = np.zeros((count, 7), np.float32)
        boxes[:, 0] = rng.uniform(2, 14, count)
        boxes[:, 1] = rng.uniform(-6, 6, count)
        boxes[:, 2] = -0.5
        boxes[:, 3:6] = (4, 2, 1.5)
        boxes[:, 6] = rng.uniform(-3, 3, count)
        local = rng.uniform(-0.5, 0.5, (count, 60, 3)) * boxes[:, None, 3:6]
        cos, sin = np.cos(boxes[:, 6, None]), np.sin(boxes[:, 6, None])
        world = np.stack(
            [
                local[..., 0] * cos - local[..., 1] * sin,
                local[..., 0] * sin + local[..., 1] * cos,
                local[..., 2],
            ],
            -1,
        )
        world += boxes[:, None, :3]
        ground = rng.uniform((0, -8, -1.4), (16, 8, -1.3), (150, 3))
        xyz = np.concatenate([world.reshape(-1, 3), ground])
        points = np.concatenate([xyz, rng.random((len(xyz), 1))], 1).astype(np.float32)
        if index == self.nan_frame:
            points[:, 3] = 3e38
        return Sample(f"{index:06d}", points, self.point_features, boxes, np.arange(count) % 2)

    def evaluate(self, detections):
        assert [d.frame_id for d in detections] == [f"{i:06d}" for i in range(self.frames)]
        return ToyResult(sum(float(d.scores.sum()) for d in detections))


@dataclass(frozen=True)
class ToyResult:
    score: float

    def scalars(self):
        return {"score": self.score}

    def as_dict(self):
        return {"score": self.score}

    def table(self):
        return f"score {self.score:.3f}"


def shift(sample, rng):
    """An augmentation whose draw can be read off the result."""
    offset = np.float32(rng.uniform(-0.5, 0.5))
    points, boxes = sample.points.copy(), sample.boxes.copy()
    points[:, 1] += offset
    boxes[:, 1] += offset
    return sample.replace(points=points, boxes=boxes)


class Shift:
    def __call__(self, sample, rng):
        return shift(sample, rng)
