"""Random detections for a nuScenes version folder: true boxes moved about, and false ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.writers.nuscenes import ATTRIBUTES, yaw_quaternion

CLASS_OF = {
    "barrier": "barrier", "trafficcone": "traffic_cone", "bicycle": "bicycle",
    "motorcycle": "motorcycle", "car": "car", "truck": "truck", "trailer": "trailer",
    "construction": "construction_vehicle", "bus": "bus", "pedestrian": "pedestrian",
}  # fmt: skip


def random_results(
    folder: Path,
    *,
    seed: int = 0,
    without: tuple[str, ...] = (),
    equal_scores: bool = False,
    nan_velocities: float = 0.0,
    missing_attributes: float = 0.1,
    noise_m: float = 0.7,
    false_boxes: int = 6,
    samples: set[str] | None = None,
) -> dict:
    """A result file's content.

    Args:
        without: classes that are never detected.
        equal_scores: all scores are 0.5.
        nan_velocities, missing_attributes: shares of the boxes.
        noise_m: standard deviation of the centres.
        false_boxes: more boxes in each sample.
        samples: tokens to write; all by default.
    """
    rng = np.random.default_rng(seed)
    tables = {
        name: json.loads((folder / f"{name}.json").read_text())
        for name in ("sample", "sample_annotation", "instance", "category")
    }
    category = {row["token"]: row["name"] for row in tables["category"]}
    class_of = {row["token"]: _class(category[row["category_token"]]) for row in tables["instance"]}
    results = {row["token"]: [] for row in tables["sample"]}
    for row in tables["sample_annotation"]:
        name = class_of[row["instance_token"]]
        if name is None or rng.random() < 0.15:
            continue
        for _ in range(rng.integers(1, 3)):
            center = np.array(row["translation"])
            results[row["sample_token"]].append(
                _box(rng, row["sample_token"], center, row["size"], name, noise_m)
            )
    for token, boxes in results.items():
        for _ in range(false_boxes):
            name = list(CLASS_OF.values())[rng.integers(len(CLASS_OF))]
            center = np.array([602.0, 1601.0, 1.0]) + rng.uniform(-60, 60, 3) * [1, 1, 0.01]
            boxes.append(_box(rng, token, center, [2.0, 4.0, 1.5], name, noise_m))
    for token in results:
        results[token] = [box for box in results[token] if box["detection_name"] not in without]
        for box in results[token]:
            if equal_scores:
                box["detection_score"] = 0.5
            if rng.random() < nan_velocities:
                box["velocity"] = [float("nan"), float("nan")]
            if rng.random() < missing_attributes:
                box["attribute_name"] = ""
    if samples is not None:
        results = {token: boxes for token, boxes in results.items() if token in samples}
    sensors = ("camera", "lidar", "radar", "map", "external")
    return {"meta": {f"use_{name}": name == "lidar" for name in sensors}, "results": results}


def _class(category: str) -> str | None:
    if category.endswith(("wheelchair", "stroller", "personal_mobility")):
        return None
    return next((CLASS_OF[part] for part in category.split(".") if part in CLASS_OF), None)


def _box(rng, token, center, size, name, noise_m) -> dict:
    return {
        "sample_token": token,
        "translation": (center + rng.normal(0, noise_m, 3)).tolist(),
        "size": (np.array(size) * rng.uniform(0.7, 1.4, 3)).tolist(),
        "rotation": (
            np.array(yaw_quaternion(rng.uniform(-4, 4))) * rng.choice([1.0, -1.0, 0.5])
        ).tolist(),
        "velocity": rng.normal(0, 2, 2).tolist(),
        "detection_name": name,
        "detection_score": float(np.round(rng.random(), 2)),
        "attribute_name": ATTRIBUTES[rng.integers(len(ATTRIBUTES))],
    }
