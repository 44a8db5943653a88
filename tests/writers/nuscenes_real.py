"""The real key frame of the sample data as a nuScenes root of one sample: tables and links."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from tests.writers.nuscenes import _fixed_tables, token, write_tables

CATEGORY_OF = {
    "car": "vehicle.car", "truck": "vehicle.truck", "trailer": "vehicle.trailer",
    "bus": "vehicle.bus.rigid", "construction_vehicle": "vehicle.construction",
    "bicycle": "vehicle.bicycle", "motorcycle": "vehicle.motorcycle",
    "pedestrian": "human.pedestrian.adult", "traffic_cone": "movable_object.trafficcone",
    "barrier": "movable_object.barrier", "other": "movable_object.debris",
}  # fmt: skip
CAMERA_CHANNELS = (
    "CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK", "CAM_BACK_LEFT",
    "CAM_BACK_RIGHT",
)  # fmt: skip


def write_real_key_frame(root: Path, source: Path) -> dict:
    """Writes the root; returns what the source says about the frame."""
    content = json.loads((source / "info_as_json.json").read_text())
    frame = content["data_list"][0]
    tables = _fixed_tables(("scene-0061",))
    sample = {"token": frame["token"], "timestamp": round(frame["timestamp"] * 1e6),
              "scene_token": token("scene", "scene-0061"), "prev": "", "next": ""}  # fmt: skip
    tables["sample"] = [sample]
    tables["scene"] = [{
        "token": sample["scene_token"], "name": "scene-0061", "description": "",
        "log_token": token("log"), "nbr_samples": 1, "first_sample_token": sample["token"],
        "last_sample_token": sample["token"],
    }]  # fmt: skip
    tables["calibrated_sensor"] = []
    global_from_ego = np.array(frame["ego2global"])
    ego_from_lidar = np.array(frame["lidar_points"]["lidar2ego"])
    global_from_lidar = global_from_ego @ ego_from_lidar
    _add_frame(
        root, tables, sample, "LIDAR_TOP", source / frame["lidar_points"]["lidar_path"],
        global_from_ego, ego_from_lidar, [], frame["timestamp"],
    )  # fmt: skip
    for channel in CAMERA_CHANNELS:
        camera = frame["images"][channel]
        ego_from_camera = np.array(camera["cam2ego"])
        # Where the vehicle was when this camera looked, out of the transform that is given.
        global_from_camera = global_from_lidar @ np.linalg.inv(camera["lidar2cam"])
        _add_frame(
            root, tables, sample, channel, source / camera["img_path"],
            global_from_camera @ np.linalg.inv(ego_from_camera), ego_from_camera,
            camera["cam2img"], camera["timestamp"],
        )  # fmt: skip
    names = {number: name for name, number in content["metainfo"]["categories"].items()}
    for number, box in enumerate(frame["instances"]):
        name = names.get(box["bbox_label_3d"], "other")
        _add_box(tables, sample, number, box, name, global_from_lidar)
    write_tables(root / "v1.0-mini", tables)
    return frame


def _pose(transform: np.ndarray) -> dict:
    x, y, z, w = Rotation.from_matrix(transform[:3, :3]).as_quat()
    return {"translation": transform[:3, 3].tolist(), "rotation": [w, x, y, z]}


def _add_frame(root, tables, sample, channel, file, global_from_ego, ego_from_sensor, matrix, time):
    link = root / "samples" / channel / file.name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(file)
    own = token("frame", channel)
    tables["calibrated_sensor"].append({
        "token": own, "sensor_token": token(channel), "camera_intrinsic": matrix,
        **_pose(ego_from_sensor),
    })  # fmt: skip
    tables["ego_pose"].append({"token": own, "timestamp": 0, **_pose(global_from_ego)})
    tables["sample_data"].append({
        "token": own, "sample_token": sample["token"], "ego_pose_token": own,
        "calibrated_sensor_token": own, "timestamp": round(time * 1e6), "fileformat": "",
        "is_key_frame": True, "height": 900, "width": 1600, "prev": "", "next": "",
        "filename": str(link.relative_to(root)),
    })  # fmt: skip


def _add_box(tables, sample, number, box, name, global_from_lidar) -> None:
    x, y, z, length, width, height, yaw = box["bbox_3d"]
    lidar_from_box = np.eye(4)
    lidar_from_box[:3, :3] = Rotation.from_euler("z", yaw).as_matrix()
    lidar_from_box[:3, 3] = x, y, z
    own = token("box", number)
    tables["instance"].append({
        "token": own, "category_token": token("category", CATEGORY_OF[name]),
        "nbr_annotations": 1, "first_annotation_token": own, "last_annotation_token": own,
    })  # fmt: skip
    tables["sample_annotation"].append({
        "token": own, "sample_token": sample["token"], "instance_token": own,
        "visibility_token": "4", "attribute_tokens": [], "size": [width, length, height],
        "prev": "", "next": "", "num_lidar_pts": box["num_lidar_pts"],
        "num_radar_pts": box["num_radar_pts"], **_pose(global_from_lidar @ lidar_from_box),
    })  # fmt: skip
