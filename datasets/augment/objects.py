"""Noise of single objects: each true box moves by itself, with its points."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from datasets.augment.places import first_free
from detector.ops.boxes.cpu import box_of_point
from detector.records import Sample


@dataclass(frozen=True)
class ObjectNoise:
    """Turns, shifts and scales every box about its own centre, with the points inside it.

    A box tries a number of motions and takes the first that overlaps no other box seen from
    above; it stays where it is if none is free. Points of the frame that lie where a box moves to
    are removed. Scaling keeps the height of the box's lower face.

    Source: Yan, Mao, Li: "SECOND: Sparsely Embedded Convolutional Detection", Sensors 2018,
    section 3.2; scaling from Zhou, Tuzel: "VoxelNet", CVPR 2018, section 3.2.

    Args:
        max_angle: radians; the turn is drawn evenly from +-max_angle.
        translation_std: of the normally distributed shift along x, y, z, metres.
        scale: the lowest and the highest factor, drawn evenly.
        attempts: motions that each box tries.
    """

    max_angle: float = math.pi / 20
    translation_std: tuple[float, float, float] = (0.25, 0.25, 0.1)
    scale: tuple[float, float] = (0.95, 1.05)
    attempts: int = 20

    def __post_init__(self):
        if not 0 <= self.max_angle <= math.pi:
            raise ValueError(f"max_angle must be 0 to pi radians, got {self.max_angle}")
        if len(self.translation_std) != 3 or min(self.translation_std) < 0:
            raise ValueError(
                f"translation_std needs three numbers of 0 or more, got {self.translation_std}"
            )
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale needs two positive factors, low and high, got {self.scale}")
        if self.attempts < 1:
            raise ValueError(f"attempts must be 1 or more, got {self.attempts}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if not len(sample.boxes):
            return sample
        before = sample.boxes.astype(np.float64)
        after, turns, scales = self._move(before, rng)
        points = np.ascontiguousarray(sample.points)
        owner = box_of_point(points, before)
        mine = np.flatnonzero(owner >= 0)
        owner = owner[mine]

        moved = points[mine]
        local = moved[:, :3] - before[owner, :3]
        local[:, :2] = _turned(local[:, :2], turns[owner])
        moved[:, :3] = local * scales[owner, None] + after[owner, :3]
        if {"vx_comp", "vy_comp"} <= set(sample.point_features):
            columns = [sample.point_features.index(name) for name in ("vx_comp", "vy_comp")]
            moved[:, columns] = _turned(moved[:, columns], turns[owner]) * scales[owner, None]

        rest = np.delete(points, mine, 0)
        changed = (after[:, :7] != before[:, :7]).any(1)
        rest = rest[box_of_point(rest, after[changed]) < 0]
        return sample.replace(
            points=np.concatenate([rest, moved]), boxes=after.astype(np.float32)
        )

    def _move(self, boxes: np.ndarray, rng: np.random.Generator):
        """Boxes (N, 7|9) in their new places, turns (N,) and scales (N,)."""
        size = (len(boxes), self.attempts)
        turns = rng.uniform(-self.max_angle, self.max_angle, size)
        scales = rng.uniform(*self.scale, size)
        shifts = rng.normal(size=(*size, 3)) * self.translation_std
        after = boxes.copy()
        taken_turns, taken_scales = np.zeros(len(boxes)), np.ones(len(boxes))
        for n in range(len(boxes)):
            places = np.repeat(boxes[n, None, :7], self.attempts, 0)
            places[:, :3] += shifts[n]
            places[:, 2] += boxes[n, 5] / 2 * (scales[n] - 1)
            places[:, 3:6] *= scales[n, :, None]
            places[:, 6] = _wrapped(places[:, 6] + turns[n])
            choice = first_free(after, n, places)
            if choice < 0:
                continue
            after[n, :7] = places[choice]
            taken_turns[n], taken_scales[n] = turns[n, choice], scales[n, choice]
        if boxes.shape[1] == 9:
            after[:, 7:9] = _turned(boxes[:, 7:9], taken_turns) * taken_scales[:, None]
        return after, taken_turns, taken_scales


def _turned(xy: np.ndarray, angles: np.ndarray) -> np.ndarray:
    cos, sin = np.cos(angles), np.sin(angles)
    return np.stack([xy[:, 0] * cos - xy[:, 1] * sin, xy[:, 0] * sin + xy[:, 1] * cos], 1)


def _wrapped(angle: np.ndarray) -> np.ndarray:
    """The same directions in [-pi, pi), in float32 too."""
    wrapped = (angle + np.pi) % (2 * np.pi) - np.pi
    return np.where(wrapped.astype(np.float32) >= np.float32(np.pi), -np.pi, wrapped)
