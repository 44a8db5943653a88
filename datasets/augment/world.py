"""Transforms that move the whole frame, and those that choose and order its points."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from datasets.augment.motion import move_sample
from detector.geometry import rotation_z
from detector.records import Sample


@dataclass(frozen=True)
class RandomFlip:
    """Mirrors the frame.

    Args:
        left_right: probability of y -> -y.
        front_back: probability of x -> -x; for scanners and labels all around only.
    """

    left_right: float = 0.5
    front_back: float = 0.0

    def __post_init__(self):
        for name in ("left_right", "front_back"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, got {getattr(self, name)}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        draws = rng.random(2)
        signs = np.where(draws < (self.front_back, self.left_right), -1.0, 1.0)
        if (signs > 0).all():
            return sample
        return move_sample(sample, np.diag([*signs, 1.0, 1.0]))


@dataclass(frozen=True)
class GlobalRotation:
    """Turns the frame about the ego's z axis by an angle drawn evenly from +-max_angle radians."""

    max_angle: float = math.pi / 4

    def __post_init__(self):
        if not 0 <= self.max_angle <= math.pi:
            raise ValueError(f"max_angle must be 0 to pi radians, got {self.max_angle}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return move_sample(sample, rotation_z(rng.uniform(-self.max_angle, self.max_angle)))


@dataclass(frozen=True)
class GlobalScaling:
    """Scales the frame, sizes and velocities too, by a factor drawn evenly from [low, high]."""

    low: float = 0.95
    high: float = 1.05

    def __post_init__(self):
        if not 0 < self.low <= self.high:
            raise ValueError(f"need 0 < low <= high, got {self.low} and {self.high}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        scale = rng.uniform(self.low, self.high)
        return move_sample(sample, np.diag([scale, scale, scale, 1.0]))


@dataclass(frozen=True)
class GlobalTranslation:
    """Shifts the frame by normal noise of these standard deviations along x, y, z, metres."""

    std: tuple[float, float, float] = (0.2, 0.2, 0.2)

    def __post_init__(self):
        if len(self.std) != 3 or min(self.std) < 0:
            raise ValueError(f"std needs three numbers of 0 or more, got {self.std}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        moved_from_ego = np.eye(4)
        moved_from_ego[:3, 3] = rng.normal(size=3) * self.std
        return move_sample(sample, moved_from_ego)


@dataclass(frozen=True)
class RangeFilter:
    """Keeps the points inside a range, and the boxes whose centre lies inside; lower faces count
    as inside, upper ones do not, as in `VoxelGrid`.

    Args:
        point_cloud_range: (x_min, y_min, z_min, x_max, y_max, z_max), metres.
    """

    point_cloud_range: tuple[float, float, float, float, float, float]

    def __post_init__(self):
        limits = np.array(self.point_cloud_range, np.float64)
        if limits.shape != (6,) or not (limits[:3] < limits[3:]).all():
            raise ValueError(
                f"point_cloud_range needs x, y, z minima and then greater maxima, got "
                f"{self.point_cloud_range}"
            )

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        boxes = self._inside(sample.boxes)
        return sample.replace(
            points=sample.points[self._inside(sample.points)],
            boxes=sample.boxes[boxes],
            labels=sample.labels[boxes],
        )

    def _inside(self, rows: np.ndarray) -> np.ndarray:
        # Axis by axis: several times as fast as `all` over rows of three.
        limits = np.array(self.point_cloud_range, np.float32)
        inside = np.ones(len(rows), bool)
        for axis in range(3):
            inside &= (rows[:, axis] >= limits[axis]) & (rows[:, axis] < limits[3 + axis])
        return inside


@dataclass(frozen=True)
class PointShuffle:
    """Puts the points in random order, so that a voxel that is full keeps a random choice."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return sample.replace(points=sample.points[rng.permutation(len(sample.points))])
