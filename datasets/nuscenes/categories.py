"""The 10 detection classes among nuScenes' 23 categories, and attributes told from speed."""

from __future__ import annotations

import numpy as np

from detector.metrics.nuscenes import ATTRIBUTES, CLASSES

CLASS_OF_CATEGORY = {
    "movable_object.barrier": "barrier",
    "movable_object.trafficcone": "traffic_cone",
    "vehicle.bicycle": "bicycle",
    "vehicle.motorcycle": "motorcycle",
    "vehicle.car": "car",
    "vehicle.truck": "truck",
    "vehicle.trailer": "trailer",
    "vehicle.construction": "construction_vehicle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
}
# Classes of similar size and shape, which share the outputs of a detector's head (CBGS, section
# 3.2, arXiv:1908.09492).
TASKS = (
    ("car",), ("truck", "construction_vehicle"), ("bus", "trailer"), ("barrier",),
    ("motorcycle", "bicycle"), ("pedestrian", "traffic_cone"),
)  # fmt: skip
# The same in two groups, for small models.
LARGE_AND_SMALL = (
    ("car", "truck", "bus", "trailer", "construction_vehicle"),
    ("pedestrian", "motorcycle", "bicycle", "traffic_cone", "barrier"),
)
BIKE_RACK = "static_object.bicycle_rack"
# Above this speed an object moves.
MOVING_MPS = 0.2
# What each class most often is when it moves and when it does not.
MOVING_AND_STILL = {
    "car": ("vehicle.moving", "vehicle.parked"),
    "truck": ("vehicle.moving", "vehicle.parked"),
    "bus": ("vehicle.moving", "vehicle.stopped"),
    "trailer": ("vehicle.moving", "vehicle.parked"),
    "construction_vehicle": ("vehicle.moving", "vehicle.parked"),
    "pedestrian": ("pedestrian.moving", "pedestrian.standing"),
    "motorcycle": ("cycle.with_rider", "cycle.without_rider"),
    "bicycle": ("cycle.with_rider", "cycle.without_rider"),
    "traffic_cone": ("", ""),
    "barrier": ("", ""),
}


def labels_of_categories(category_names: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """(categories,) int64 index in `classes`, -1 for categories that are not detected."""
    names = [CLASS_OF_CATEGORY.get(str(name), "") for name in category_names]
    return np.array([classes.index(n) if n in classes else -1 for n in names], np.int64)


def attributes_from_speed(labels: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """(N,) index in `ATTRIBUTES`, or -1, of boxes with labels in `CLASSES`; NaN stands still."""
    rows = {name: row for row, name in enumerate(ATTRIBUTES)} | {"": -1}
    choice = np.array([[rows[name] for name in MOVING_AND_STILL[c]] for c in CLASSES])
    still = ~(np.linalg.norm(velocity, axis=1) > MOVING_MPS)
    return choice[labels, still.astype(int)]
