"""A tiny nuScenes in its real on-disk format: 13 tables and, if asked for, sensor files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np

CATEGORIES = (
    "human.pedestrian.adult", "human.pedestrian.child", "human.pedestrian.wheelchair",
    "human.pedestrian.stroller", "human.pedestrian.personal_mobility",
    "human.pedestrian.police_officer", "human.pedestrian.construction_worker", "animal",
    "vehicle.car", "vehicle.motorcycle", "vehicle.bicycle", "vehicle.bus.bendy",
    "vehicle.bus.rigid", "vehicle.truck", "vehicle.construction", "vehicle.emergency.ambulance",
    "vehicle.emergency.police", "vehicle.trailer", "movable_object.barrier",
    "movable_object.trafficcone", "movable_object.pushable_pullable", "movable_object.debris",
    "static_object.bicycle_rack",
)  # fmt: skip
ATTRIBUTES = (
    "vehicle.moving", "vehicle.stopped", "vehicle.parked", "cycle.with_rider",
    "cycle.without_rider", "pedestrian.sitting_lying_down", "pedestrian.standing",
    "pedestrian.moving",
)  # fmt: skip
CHANNELS = {
    "LIDAR_TOP": "lidar",
    "RADAR_FRONT": "radar", "RADAR_FRONT_LEFT": "radar", "RADAR_FRONT_RIGHT": "radar",
    "RADAR_BACK_LEFT": "radar", "RADAR_BACK_RIGHT": "radar",
    "CAM_FRONT": "camera", "CAM_FRONT_LEFT": "camera", "CAM_FRONT_RIGHT": "camera",
    "CAM_BACK": "camera", "CAM_BACK_LEFT": "camera", "CAM_BACK_RIGHT": "camera",
}  # fmt: skip
RADAR_FIELDS = (
    "x y z dyn_prop id rcs vx vy vx_comp vy_comp is_quality_valid ambig_state x_rms y_rms "
    "invalid_state pdh0 vx_rms vy_rms"
)
RADAR_DTYPE = [
    ("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("dyn_prop", "i1"), ("id", "<i2"), ("rcs", "<f4"),
    ("vx", "<f4"), ("vy", "<f4"), ("vx_comp", "<f4"), ("vy_comp", "<f4"),
    ("is_quality_valid", "i1"), ("ambig_state", "i1"), ("x_rms", "i1"), ("y_rms", "i1"),
    ("invalid_state", "i1"), ("pdh0", "i1"), ("vx_rms", "i1"), ("vy_rms", "i1"),
]  # fmt: skip


def token(*parts) -> str:
    """32 hexadecimal digits that are always the same for the same parts."""
    return hashlib.md5("/".join(map(str, parts)).encode(), usedforsecurity=False).hexdigest()


def yaw_quaternion(yaw: float) -> list[float]:
    return [float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))]


def write_tables(folder: Path, tables: dict[str, list[dict]]) -> None:
    """Tables in the layout of the real ones: a line a field."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(rows, indent=0))


def change_rows(folder: Path, table: str, change) -> None:
    """Rewrites a table through `change(rows) -> rows`."""
    path = folder / f"{table}.json"
    path.write_text(json.dumps(change(json.loads(path.read_text())), indent=0))


def write_lidar(path: Path, points: np.ndarray) -> None:
    """(P, 5): x, y, z, intensity 0 to 255, ring."""
    path.parent.mkdir(parents=True, exist_ok=True)
    points.astype("<f4").tofile(path)


def write_radar(path: Path, points: np.ndarray, padding: int = 16, fields=RADAR_FIELDS) -> None:
    """A structured array of `RADAR_DTYPE`, followed by zeros as in real files."""
    sizes = " ".join(str(np.dtype(d).itemsize) for _, d in RADAR_DTYPE)
    types = " ".join("F" if "f" in d else "I" for _, d in RADAR_DTYPE)
    header = (
        f"# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS {fields}\n"
        f"SIZE {sizes}\nTYPE {types}\nCOUNT {' '.join(['1'] * 18)}\nWIDTH {len(points)}\nHEIGHT 1\n"
        f"VIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(points)}\nDATA binary\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.encode() + points.tobytes() + bytes(padding))


def write_nuscenes(
    root: Path,
    *,
    version: str = "v1.0-mini",
    scene_names: tuple[str, ...] = ("scene-0061", "scene-0103"),
    samples_per_scene: int = 4,
    objects_per_scene: int = 20,
    sweeps_between: int = 1,
    sensor_files: bool = False,
    seed: int = 0,
) -> Path:
    """Scenes at 2 Hz with random objects on straight ways; returns the version folder."""
    rng = np.random.default_rng(seed)
    tables = _fixed_tables(scene_names)
    for number, name in enumerate(scene_names):
        _add_scene(tables, name, number, samples_per_scene, sweeps_between)
        _add_objects(tables, name, samples_per_scene, objects_per_scene, rng)
    write_tables(root / version, tables)
    (root / "maps").mkdir(exist_ok=True)
    cv2.imwrite(str(root / "maps" / "stub.png"), np.full((8, 8), 255, np.uint8))
    if sensor_files:
        for row in tables["sample_data"]:
            _write_sensor_file(root / row["filename"], row["fileformat"], rng)
    return root / version


def _fixed_tables(scene_names) -> dict[str, list[dict]]:
    def named(prefix, names):
        return [{"token": token(prefix, n), "name": n, "description": ""} for n in names]

    sensors, calibrated = [], []
    for row, (channel, modality) in enumerate(CHANNELS.items()):
        sensors.append({"token": token(channel), "channel": channel, "modality": modality})
        yaw = {"LIDAR_TOP": -np.pi / 2}.get(channel, 0.4 * row if modality == "radar" else 0.0)
        rotation = yaw_quaternion(yaw)
        intrinsic = []
        if modality == "camera":
            rotation = [0.5, -0.5, 0.5, -0.5]  # x right, y down, z forward
            intrinsic = [[40.0, 0.0, 32.0], [0.0, 40.0, 18.0], [0.0, 0.0, 1.0]]
        calibrated.append({
            "token": token("cs", channel), "sensor_token": token(channel),
            "translation": [1.0 - 0.1 * row, 0.1 * row, 1.8 if modality == "lidar" else 0.5],
            "rotation": rotation, "camera_intrinsic": intrinsic,
        })  # fmt: skip
    log = {"token": token("log"), "logfile": "n000", "vehicle": "n000",
           "date_captured": "2018-01-01", "location": "singapore-onenorth"}  # fmt: skip
    levels = ("v0-40", "v40-60", "v60-80", "v80-100")
    return {
        "category": named("category", CATEGORIES),
        "attribute": named("attribute", ATTRIBUTES),
        "visibility": [
            {"token": str(i + 1), "level": level, "description": ""}
            for i, level in enumerate(levels)
        ],
        "sensor": sensors,
        "calibrated_sensor": calibrated,
        "log": [log],
        "map": [{"token": token("map"), "log_tokens": [log["token"]], "category": "semantic_prior",
                 "filename": "maps/stub.png"}],
        "instance": [], "ego_pose": [], "scene": [], "sample": [], "sample_data": [],
        "sample_annotation": [],
    }  # fmt: skip


def _add_scene(tables, name, number, samples, sweeps_between) -> None:
    start_us = 1_500_000_000_000_000 + number * 60_000_000
    sample_tokens = [token(name, "sample", i) for i in range(samples)]
    for i, own in enumerate(sample_tokens):
        tables["sample"].append({
            "token": own, "timestamp": start_us + i * 500_000, "scene_token": token("scene", name),
            "prev": sample_tokens[i - 1] if i else "",
            "next": sample_tokens[i + 1] if i + 1 < samples else "",
        })  # fmt: skip
    tables["scene"].append({
        "token": token("scene", name), "name": name, "description": "", "log_token": token("log"),
        "nbr_samples": samples, "first_sample_token": sample_tokens[0],
        "last_sample_token": sample_tokens[-1],
    })  # fmt: skip
    step = 500_000 // (sweeps_between + 1)
    frames = (samples - 1) * (sweeps_between + 1) + 1
    for row, (channel, modality) in enumerate(CHANNELS.items()):
        for f in range(frames):
            is_key = f % (sweeps_between + 1) == 0
            time = start_us + f * step + row * 1000
            own = token(name, channel, f)
            extension = {"lidar": "pcd.bin", "radar": "pcd", "camera": "jpg"}[modality]
            folder = "samples" if is_key else "sweeps"
            nearest = min(round(f / (sweeps_between + 1) + 1e-9), samples - 1)
            tables["sample_data"].append({
                "token": own, "sample_token": sample_tokens[nearest], "ego_pose_token": own,
                "calibrated_sensor_token": token("cs", channel), "timestamp": time,
                "fileformat": extension.removesuffix(".bin"), "is_key_frame": is_key,
                "height": 36 if modality == "camera" else 0,
                "width": 64 if modality == "camera" else 0,
                "filename": f"{folder}/{channel}/n000__{channel}__{time}.{extension}",
                "prev": token(name, channel, f - 1) if f else "",
                "next": token(name, channel, f + 1) if f + 1 < frames else "",
            })  # fmt: skip
            seconds = (time - start_us) * 1e-6
            tables["ego_pose"].append({
                "token": own, "timestamp": time, "rotation": yaw_quaternion(0.3 + 0.05 * seconds),
                "translation": [600 + 4.0 * seconds, 1600 + 2.0 * seconds, 0.0],
            })  # fmt: skip


def _add_objects(tables, name, samples, objects, rng) -> None:
    for number in range(objects):
        category = CATEGORIES[rng.integers(len(CATEGORIES))]
        instance = token(name, "instance", number)
        first = int(rng.integers(samples))
        last = int(rng.integers(first, samples)) if rng.random() < 0.5 else samples - 1
        tokens = [token(name, "annotation", number, i) for i in range(first, last + 1)]
        start = np.array([602.0, 1601.0, 0.8]) + rng.uniform([-45, -45, 0], [45, 45, 1])
        velocity = np.append(rng.normal(0, 3, 2), 0) * (rng.random() < 0.6)
        yaw = rng.uniform(-np.pi, np.pi)
        size = rng.uniform([0.5, 0.5, 1], [3, 8, 3]).tolist()
        if category == "static_object.bicycle_rack":
            size = [20.0, 30.0, 4.0]  # Large, so that some cycles stand in it.
        choices = [a for a in ATTRIBUTES if a.split(".")[0] in _attribute_kinds(category)]
        for i, own in zip(range(first, last + 1), tokens, strict=True):
            attribute = choices[rng.integers(len(choices))] if choices else None
            tables["sample_annotation"].append({
                "token": own, "sample_token": token(name, "sample", i), "instance_token": instance,
                "visibility_token": str(rng.integers(1, 5)),
                "attribute_tokens": (
                    [token("attribute", attribute)] if attribute and rng.random() < 0.9 else []
                ),
                "translation": (start + velocity * 0.5 * i).tolist(), "size": size,
                "rotation": yaw_quaternion(yaw),
                "prev": tokens[i - first - 1] if i > first else "",
                "next": tokens[i - first + 1] if i < last else "",
                "num_lidar_pts": int(rng.integers(0, 4)), "num_radar_pts": int(rng.integers(0, 2)),
            })  # fmt: skip
        tables["instance"].append({
            "token": instance, "category_token": token("category", category),
            "nbr_annotations": len(tokens), "first_annotation_token": tokens[0],
            "last_annotation_token": tokens[-1],
        })  # fmt: skip


def _attribute_kinds(category: str) -> tuple[str, ...]:
    if category in ("vehicle.bicycle", "vehicle.motorcycle"):
        return ("cycle",)
    if category.startswith("vehicle"):
        return ("vehicle",)
    return ("pedestrian",) if category.startswith("human") else ()


def _write_sensor_file(path: Path, kind: str, rng) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".pcd.bin"):
        points = rng.uniform([-40, -40, -2, 0, 0], [40, 40, 2, 255, 32], (200, 5))
        points[:5, :2] = rng.uniform(-0.9, 0.9, (5, 2))
        write_lidar(path, points)
    elif kind == "pcd":
        radar = np.zeros(20, np.dtype(RADAR_DTYPE))
        for column in ("x", "y", "rcs", "vx_comp", "vy_comp"):
            radar[column] = rng.uniform(-20, 20, 20)
        radar["dyn_prop"] = rng.integers(0, 8, 20)
        radar["ambig_state"] = 3
        write_radar(path, radar)
    else:
        cv2.imwrite(str(path), rng.integers(0, 255, (36, 64, 3), np.uint8))
