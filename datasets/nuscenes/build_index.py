"""Joins the 13 tables into the arrays of `NuScenesIndex`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.nuscenes.columns import Rows, Tables
from datasets.nuscenes.index import NuScenesIndex, table_bytes
from datasets.nuscenes.scan_tables import FILE, FLAG, INTEGER, MANY, NUMBERS, SHORT, TOKEN, TOKENS
from datasets.nuscenes.tables import garbage_collection_paused, read_columns, table_folder
from detector.errors import InputError

# Velocities come from positions at most this far apart (twice as far around a middle frame).
MAX_VELOCITY_SPAN_S = 1.5


def build_index(root: str | Path, version: str) -> NuScenesIndex:
    """Reads all tables of a version folder.

    Raises:
        InputError: a table is missing, broken, or lacks a token that another refers to.
    """
    folder = table_folder(root, version)
    tables = Tables(folder)
    with garbage_collection_paused():
        samples, sample_rows = _samples(tables)
        calibrations, calibration_rows = _calibrations(tables)
        return NuScenesIndex(
            table_bytes=table_bytes(folder),
            **samples,
            **calibrations,
            **_frames(tables, calibrations, calibration_rows, sample_rows),
            **_annotations(tables, samples["sample_time_us"], sample_rows),
        )


def _named(tables: Tables, table: str, name: str) -> tuple[list[str], Rows]:
    """A small table's names, and its tokens."""
    columns = read_columns(tables.folder, table, ("token", name))
    return columns[name], Rows(tables, table, tables.keys(columns["token"]))


def _samples(tables: Tables) -> tuple[dict, Rows]:
    scenes, scene_rows = _named(tables, "scene", "name")
    samples = tables.read("sample", {"token": TOKEN, "scene_token": TOKEN, "timestamp": INTEGER})
    arrays = {
        "scene_names": np.array(scenes, str),
        "sample_tokens": np.array([tables.text(key) for key in samples["token"]], str),
        "sample_scene": scene_rows.rows(samples["scene_token"], "sample"),
        "sample_time_us": samples["timestamp"],
    }
    return arrays, Rows(tables, "sample", samples["token"])


def _calibrations(tables: Tables) -> tuple[dict, Rows]:
    channels, sensor_rows = _named(tables, "sensor", "channel")
    names = ("token", "sensor_token", "translation", "rotation", "camera_intrinsic")
    rows = read_columns(tables.folder, "calibrated_sensor", names)
    blank = np.zeros((3, 3)).tolist()
    arrays = {
        "channels": np.array(channels, str),
        "calibration_channel": sensor_rows.rows(
            tables.keys(rows["sensor_token"]), "calibrated_sensor"
        ),
        "calibration_translation": np.array(rows["translation"], float).reshape(-1, 3),
        "calibration_rotation": np.array(rows["rotation"], float).reshape(-1, 4),
        "calibration_intrinsics": np.array(
            [m or blank for m in rows["camera_intrinsic"]], float
        ).reshape(-1, 3, 3),
    }
    return arrays, Rows(tables, "calibrated_sensor", tables.keys(rows["token"]))


def _frames(
    tables: Tables, calibrations: dict, calibration_rows: Rows, sample_rows: Rows
) -> dict:
    """All LiDAR and radar sweeps and the cameras' key frames, with their ego poses."""
    channel_of = calibrations["calibration_channel"]
    is_camera = np.char.startswith(calibrations["channels"], "CAM")[channel_of]
    fields = {
        "token": TOKEN, "calibrated_sensor_token": TOKEN, "timestamp": INTEGER, "filename": FILE,
        "ego_pose_token": TOKEN, "prev": TOKEN, "is_key_frame": FLAG, "sample_token": TOKEN,
    }  # fmt: skip
    parts = []
    for part in tables.parts("sample_data", fields):
        calibration = calibration_rows.rows(part["calibrated_sensor_token"], "sample_data")
        is_key = part["is_key_frame"] == 1
        kept = np.flatnonzero(is_key | ~is_camera[calibration])
        part = {name: column[kept] for name, column in part.items()}
        sample = np.where(
            is_key[kept], sample_rows.rows(part.pop("sample_token"), "sample_data"), -1
        )
        del part["calibrated_sensor_token"], part["is_key_frame"]
        parts.append({**part, "calibration": calibration[kept], "sample": sample})
    if not parts:
        raise InputError(f"{tables.folder / 'sample_data.json'} has no rows; is it complete?")
    frames = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    del parts
    calibration, sample = frames["calibration"], frames["sample"]
    key_frames = np.full(
        (len(sample_rows.keys), len(calibrations["channels"])), -1, np.int32
    )
    keys = np.flatnonzero(sample >= 0)
    key_frames[sample[keys], channel_of[calibration[keys]]] = keys
    frames["prev"][is_camera[calibration]] = SHORT, 0
    previous = Rows(tables, "sample_data", frames["token"]).rows(frames["prev"], "sample_data")
    translation, rotation = _poses(tables, frames["ego_pose_token"])
    return {
        "key_frames": key_frames,
        "frame_calibration": calibration,
        "frame_time_us": frames["timestamp"],
        "frame_translation": translation,
        "frame_rotation": rotation,
        "frame_previous": previous,
        "frame_file": frames["filename"].astype(np.int32),
        "file_patterns": np.array(tables.patterns.names(), str),
    }


def _poses(tables: Tables, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Translation and rotation of the ego pose that each frame names."""
    rows = Rows(tables, "ego_pose", wanted)
    pose_of_frame = rows.find(wanted)
    poses = np.full((len(wanted), 7), np.nan)
    fields = {"token": TOKEN, "translation": NUMBERS + 3, "rotation": NUMBERS + 4}
    for part in tables.parts("ego_pose", fields):
        row = rows.find(part["token"])
        known = row >= 0
        poses[row[known], :3] = part["translation"][known]
        poses[row[known], 3:] = part["rotation"][known]
    poses = poses[pose_of_frame]
    if len(missing := np.flatnonzero(np.isnan(poses).any(1))):
        raise InputError(
            f"{tables.folder / 'ego_pose.json'} lacks token {tables.text(wanted[missing[0]])}, "
            f"which sample_data.json refers to ({len(missing)} such tokens); are all tables of "
            f"the same version and complete?"
        )
    return poses[:, :3], poses[:, 3:]


def _annotations(tables: Tables, sample_time_us: np.ndarray, sample_rows: Rows) -> dict:
    categories, category_rows = _named(tables, "category", "name")
    attributes, attribute_rows = _named(tables, "attribute", "name")
    visibility, visibility_rows = _named(tables, "visibility", "level")
    instances = tables.read("instance", {"token": TOKEN, "category_token": TOKEN})
    fields = {
        "token": TOKEN, "sample_token": TOKEN, "instance_token": TOKEN,
        "attribute_tokens": TOKENS, "visibility_token": TOKEN, "translation": NUMBERS + 3,
        "size": NUMBERS + 3, "rotation": NUMBERS + 4, "prev": TOKEN, "next": TOKEN,
        "num_lidar_pts": INTEGER, "num_radar_pts": INTEGER,
    }  # fmt: skip
    rows = tables.read("sample_annotation", fields)
    of = "sample_annotation"
    sample = sample_rows.rows(rows["sample_token"], of)
    instance = Rows(tables, "instance", instances["token"]).rows(rows["instance_token"], of)
    category = category_rows.rows(instances["category_token"], "instance")
    several = (rows["attribute_tokens"] == np.array([SHORT, MANY], np.uint64)).all(1)
    rows["attribute_tokens"][several] = SHORT, 0
    attribute = attribute_rows.rows(rows["attribute_tokens"], of)
    attribute[several] = -2
    own = Rows(tables, "sample_annotation", rows["token"])
    velocity = _velocities(
        rows["translation"], 1e-6 * sample_time_us[sample],
        own.rows(rows["prev"], of), own.rows(rows["next"], of),
    )  # fmt: skip
    arrays = {
        "annotation_category": category[instance],
        "annotation_attribute": attribute,
        "annotation_visibility": visibility_rows.rows(rows["visibility_token"], of),
        "annotation_instance": instance,
        "annotation_lidar_points": rows["num_lidar_pts"].astype(np.int32),
        "annotation_radar_points": rows["num_radar_pts"].astype(np.int32),
        "annotation_translation": rows["translation"],
        "annotation_size": rows["size"],
        "annotation_rotation": rows["rotation"],
        "annotation_velocity": velocity,
    }
    order = np.argsort(sample, kind="stable")
    arrays = {name: array[order] for name, array in arrays.items()}
    return {
        **arrays,
        "annotation_begin": np.searchsorted(sample[order], np.arange(len(sample_time_us) + 1)),
        "category_names": np.array(categories, str),
        "attribute_names": np.array(attributes, str),
        "visibility_levels": np.array(visibility, str),
    }


def _velocities(
    translation: np.ndarray, time_s: np.ndarray, previous: np.ndarray, following: np.ndarray
) -> np.ndarray:
    """(A, 2) from the annotations before and after of the same object, as the official code."""
    here = np.arange(len(translation))
    first = np.where(previous >= 0, previous, here)
    last = np.where(following >= 0, following, here)
    span = time_s[last] - time_s[first]                                            # (A,)
    limit = MAX_VELOCITY_SPAN_S * np.where((previous >= 0) & (following >= 0), 2, 1)
    known = (first != last) & (span <= limit)
    velocity = np.full((len(translation), 2), np.nan)
    moved = translation[last, :2] - translation[first, :2]
    np.divide(moved, span[:, None], out=velocity, where=known[:, None])
    return velocity
