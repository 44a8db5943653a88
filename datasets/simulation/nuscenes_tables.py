"""Rows of nuScenes' 13 tables for simulated drives."""

from __future__ import annotations

import hashlib

import numpy as np

from datasets.nuscenes.categories import BIKE_RACK, CLASS_OF_CATEGORY
from datasets.simulation.nuscenes_rig import MOUNTS
from detector.metrics.nuscenes import ATTRIBUTES

OTHER_CATEGORIES = (
    "animal", "human.pedestrian.personal_mobility", "human.pedestrian.stroller",
    "human.pedestrian.wheelchair", "movable_object.debris", "movable_object.pushable_pullable",
    BIKE_RACK, "vehicle.emergency.ambulance", "vehicle.emergency.police",
)  # fmt: skip
CATEGORIES = tuple(sorted((*CLASS_OF_CATEGORY, *OTHER_CATEGORIES)))
VISIBILITY = ("v0-40", "v40-60", "v60-80", "v80-100")
MAP_FILE = "maps/simulated.png"
# What the simulated world's actors are called in nuScenes.
CATEGORY_OF_ACTOR = {
    "car": "vehicle.car", "van": "vehicle.car", "truck": "vehicle.truck",
    "pedestrian": "human.pedestrian.adult", "sitting_person": "human.pedestrian.adult",
    "cyclist": "vehicle.bicycle", "bus": "vehicle.bus.rigid", "trailer": "vehicle.trailer",
    "construction_vehicle": "vehicle.construction", "motorcycle": "vehicle.motorcycle",
    "motorcyclist": "vehicle.motorcycle", "traffic_cone": "movable_object.trafficcone",
    "barrier": "movable_object.barrier",
}  # fmt: skip


def token(*parts) -> str:
    """32 hexadecimal digits, the same for the same parts."""
    text = "/".join(map(str, parts))
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def quaternion(rotation: np.ndarray) -> list[float]:
    """w, x, y, z of a rotation matrix."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(rotation).as_quat().tolist()
    return [w, x, y, z]


def placed(target_from_source: np.ndarray) -> dict:
    """The fields translation and rotation of a pose."""
    return {
        "translation": target_from_source[:3, 3].tolist(),
        "rotation": quaternion(target_from_source[:3, :3]),
    }


def fixed_tables(image_size: tuple[int, int]) -> dict[str, list[dict]]:
    """The tables that do not depend on the drives."""
    return {
        "category": [
            {"token": token("category", n), "name": n, "description": ""} for n in CATEGORIES
        ],
        "attribute": [
            {"token": token("attribute", n), "name": n, "description": ""} for n in ATTRIBUTES
        ],
        "visibility": [
            {"token": str(i + 1), "level": level, "description": f"visible share {level} %"}
            for i, level in enumerate(VISIBILITY)
        ],
        "sensor": [
            {"token": token("sensor", channel), "channel": channel, "modality": mount.modality}
            for channel, mount in MOUNTS.items()
        ],
        "calibrated_sensor": [
            {
                "token": token("calibrated", channel),
                "sensor_token": token("sensor", channel),
                **placed(mount.ego_from_sensor),
                "camera_intrinsic": (
                    mount.intrinsics(image_size).tolist() if mount.modality == "camera" else []
                ),
            }
            for channel, mount in MOUNTS.items()
        ],
        "log": [
            {"token": token("log"), "logfile": "simulated", "vehicle": "simulated",
             "date_captured": "2000-01-01", "location": "simulated"}
        ],
        "map": [
            {"token": token("map"), "log_tokens": [token("log")], "category": "semantic_prior",
             "filename": MAP_FILE}
        ],
    }  # fmt: skip


def chain(rows: list[dict]) -> list[dict]:
    """The same rows with `prev` and `next` set along the list."""
    tokens = ["", *(row["token"] for row in rows), ""]
    return [
        {**row, "prev": before, "next": after}
        for row, before, after in zip(rows, tokens[:-2], tokens[2:], strict=True)
    ]
