"""Boxes between the global frame of nuScenes' files and the ego frame of a sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from datasets.nuscenes.categories import attributes_from_speed
from detector.metrics.nuscenes import CLASSES, NuScenesBoxes
from detector.metrics.nuscenes.boxes import rotation_matrices
from detector.records import Detections


@dataclass(frozen=True)
class NuScenesAnnotations:
    """True boxes of one sample in its ego frame, with what nuScenes alone tells about them."""

    boxes: Float64[np.ndarray, "N 9"]
    """With velocity; NaN where it can't be told."""
    labels: Int64[np.ndarray, " N"]
    """Index in the data set's `classes`; -1 for other categories."""
    categories: tuple[str, ...]
    """nuScenes' own category of each box."""
    attributes: tuple[str, ...]
    """Such as `vehicle.moving`; "" for none."""
    visibility: tuple[str, ...]
    """Share of the box that the cameras see, such as `v80-100`; "" where not given."""
    lidar_points: Int64[np.ndarray, " N"]
    radar_points: Int64[np.ndarray, " N"]
    instances: Int64[np.ndarray, " N"]
    """The same number is the same object, in all samples of a scene."""

    def trainable(
        self, min_points: int, min_radar_points: int = 0
    ) -> Bool[np.ndarray, " N"]:
        """Boxes of the classes with enough LiDAR and radar points together, and of radar alone."""
        enough = self.lidar_points + self.radar_points >= min_points
        return (self.labels >= 0) & enough & (self.radar_points >= min_radar_points)


def ego_boxes(
    global_from_ego: Float64[np.ndarray, "4 4"],
    translation: Float64[np.ndarray, "N 3"],
    size: Float64[np.ndarray, "N 3"],
    rotation: Float64[np.ndarray, "N 4"],
    velocity: Float64[np.ndarray, "N 2"],
) -> Float64[np.ndarray, "N 9"]:
    """Global boxes (width, length, height; quaternions) as boxes of the project."""
    turn = global_from_ego[:3, :3]
    heading = rotation_matrices(rotation)[:, :, 0] @ turn                          # (N, 3)
    moving = np.column_stack([velocity, np.zeros(len(velocity))]) @ turn
    return np.column_stack([
        (translation - global_from_ego[:3, 3]) @ turn,
        size[:, [1, 0, 2]],
        np.arctan2(heading[:, 1], heading[:, 0]),
        moving[:, :2],
    ])  # fmt: skip


def global_boxes(
    global_from_ego: Float64[np.ndarray, "4 4"],
    ego_rotation: Float64[np.ndarray, " 4"],
    detections: Detections,
    label_of_class: Int64[np.ndarray, " classes"],
    sample: int,
) -> NuScenesBoxes:
    """Detections of one sample as global boxes of the metric, attributes told from speed.

    Args:
        label_of_class: index in the metric's `CLASSES` of each class of the detector.
        sample: what to enter as the boxes' sample.
    """
    detections = detections.cpu()
    boxes = detections.boxes.numpy().astype(float)
    labels = label_of_class[detections.labels.numpy()]
    turn = global_from_ego[:3, :3]
    velocity = boxes[:, 7:9] if boxes.shape[1] >= 9 else np.full((len(boxes), 2), np.nan)
    moving = np.column_stack([velocity, np.zeros(len(boxes))]) @ turn.T
    half = boxes[:, 6] / 2
    zeros = np.zeros(len(boxes))
    own = np.column_stack([np.cos(half), zeros, zeros, np.sin(half)])
    return NuScenesBoxes(
        sample=np.full(len(boxes), sample, np.int64),
        translation=boxes[:, :3] @ turn.T + global_from_ego[:3, 3],
        size=boxes[:, [4, 3, 5]],
        rotation=multiply_quaternions(ego_rotation[None], own),
        velocity=moving[:, :2],
        label=labels,
        attribute=attributes_from_speed(labels, velocity),
        score=detections.scores.numpy().astype(float),
        point_count=np.full(len(boxes), -1, np.int64),
    )


def multiply_quaternions(
    a: Float64[np.ndarray, "N 4"], b: Float64[np.ndarray, "N 4"]
) -> Float64[np.ndarray, "N 4"]:
    """First turned by b, then by a; both w, x, y, z."""
    aw, ax, ay, az = a.T
    bw, bx, by, bz = b.T
    return np.stack([
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    ], -1)  # fmt: skip


def labels_of_classes(classes: tuple[str, ...]) -> Int64[np.ndarray, " classes"]:
    """Index of each class in the metric's `CLASSES`."""
    return np.array([CLASSES.index(name) for name in classes], np.int64)
