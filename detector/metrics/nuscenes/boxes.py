"""Classes, attributes and the boxes of a whole split as arrays, in nuScenes' own conventions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float64, Int64

# In the order of the official report.
CLASSES = (
    "car", "truck", "bus", "trailer", "construction_vehicle",
    "pedestrian", "motorcycle", "bicycle", "traffic_cone", "barrier",
)  # fmt: skip
ATTRIBUTES = (
    "pedestrian.moving", "pedestrian.sitting_lying_down", "pedestrian.standing",
    "cycle.with_rider", "cycle.without_rider",
    "vehicle.moving", "vehicle.parked", "vehicle.stopped",
)  # fmt: skip
# Boxes count where their centre is closer to the ego vehicle than this, seen from above.
CLASS_RANGE_M = {
    "car": 50, "truck": 50, "bus": 50, "trailer": 50, "construction_vehicle": 50,
    "pedestrian": 40, "motorcycle": 40, "bicycle": 40, "traffic_cone": 30, "barrier": 30,
}  # fmt: skip


@dataclass(frozen=True)
class NuScenesBoxes:
    """Boxes of all samples of a split, in the global frame, one row a box.

    The order of rows matters where scores are equal: the later row is matched first, as the
    official evaluator does.
    """

    sample: Int64[np.ndarray, " N"]
    """Index of the sample that a box belongs to."""
    translation: Float64[np.ndarray, "N 3"]
    """Centre, metres."""
    size: Float64[np.ndarray, "N 3"]
    """Width, length, height: the order of nuScenes' files."""
    rotation: Float64[np.ndarray, "N 4"]
    """Quaternion w, x, y, z."""
    velocity: Float64[np.ndarray, "N 2"]
    """Along global x and y, m/s; NaN where unknown."""
    label: Int64[np.ndarray, " N"]
    """Index in `CLASSES`."""
    attribute: Int64[np.ndarray, " N"]
    """Index in `ATTRIBUTES`; -1 for none."""
    score: Float64[np.ndarray, " N"]
    """Confidence; unused for true boxes."""
    point_count: Int64[np.ndarray, " N"]
    """LiDAR and radar points inside; boxes with 0 are left out, -1 means unknown."""

    def __len__(self) -> int:
        return len(self.sample)

    def __getitem__(self, rows: np.ndarray | slice) -> NuScenesBoxes:
        """The boxes at some rows, by a mask, indices or a slice."""
        return NuScenesBoxes(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @classmethod
    def concatenate(cls, parts: Sequence[NuScenesBoxes]) -> NuScenesBoxes:
        """One after another; `parts` must not be empty."""
        names = [f.name for f in fields(cls)]
        return cls(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})

    @classmethod
    def empty(cls) -> NuScenesBoxes:
        whole, real = np.zeros(0, np.int64), np.zeros(0)
        return cls(
            whole, real.reshape(0, 3), real.reshape(0, 3), real.reshape(0, 4),
            real.reshape(0, 2), whole, whole, real, whole,
        )  # fmt: skip


@dataclass(frozen=True)
class BikeRacks:
    """Bicycle racks: bicycles and motorcycles whose centre is inside one are not evaluated."""

    sample: Int64[np.ndarray, " R"]
    translation: Float64[np.ndarray, "R 3"]
    size: Float64[np.ndarray, "R 3"]
    rotation: Float64[np.ndarray, "R 4"]

    def __len__(self) -> int:
        return len(self.sample)

    @classmethod
    def empty(cls) -> BikeRacks:
        return cls(np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 4)))


def rotation_matrices(rotation: Float64[np.ndarray, "N 4"]) -> Float64[np.ndarray, "N 3 3"]:
    """Matrices of quaternions w, x, y, z of any length but zero."""
    norm = np.linalg.norm(rotation, axis=1, keepdims=True)
    w, x, y, z = (rotation / np.where(norm > 0, norm, 1)).T
    rows = [
        [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def yaw_of_quaternion(rotation: Float64[np.ndarray, "N 4"]) -> Float64[np.ndarray, " N"]:
    """Direction of the turned x axis, seen from above."""
    heading = rotation_matrices(rotation)[:, :, 0]
    return np.arctan2(heading[:, 1], heading[:, 0])
