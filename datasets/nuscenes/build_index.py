"""Joins the 13 tables into the arrays of `NuScenesIndex`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.nuscenes.index import NuScenesIndex, table_bytes
from datasets.nuscenes.tables import (
    Tokens,
    garbage_collection_paused,
    read_columns,
    read_rows,
    table_folder,
)
from detector.errors import InputError

# Velocities come from positions at most this far apart (twice as far around a middle frame).
MAX_VELOCITY_SPAN_S = 1.5


def build_index(root: str | Path, version: str) -> NuScenesIndex:
    """Reads all tables of a version folder.

    Raises:
        InputError: a table is missing, broken, or lacks a token that another refers to.
    """
    folder = table_folder(root, version)
    with garbage_collection_paused():
        samples, sample_rows = _samples(folder)
        calibrations, calibration_rows = _calibrations(folder)
        return NuScenesIndex(
            table_bytes=table_bytes(folder),
            **samples,
            **calibrations,
            **_frames(folder, calibrations, calibration_rows, sample_rows),
            **_annotations(folder, samples["sample_time_us"], sample_rows),
        )


def _samples(folder: Path) -> tuple[dict, Tokens]:
    scenes = read_columns(folder, "scene", ("token", "name"))
    samples = read_columns(folder, "sample", ("token", "scene_token", "timestamp"))
    scene_rows = Tokens(folder, "scene", scenes["token"]).rows(samples["scene_token"], "sample")
    arrays = {
        "scene_names": np.array(scenes["name"], str),
        "sample_tokens": np.array(samples["token"], str),
        "sample_scene": np.array(scene_rows, np.int32),
        "sample_time_us": np.array(samples["timestamp"], np.int64),
    }
    return arrays, Tokens(folder, "sample", samples["token"])


def _calibrations(folder: Path) -> tuple[dict, Tokens]:
    sensors = read_columns(folder, "sensor", ("token", "channel"))
    names = ("token", "sensor_token", "translation", "rotation", "camera_intrinsic")
    rows = read_columns(folder, "calibrated_sensor", names)
    sensor = Tokens(folder, "sensor", sensors["token"]).rows(
        rows["sensor_token"], "calibrated_sensor"
    )
    blank = np.zeros((3, 3)).tolist()
    arrays = {
        "channels": np.array(sensors["channel"], str),
        "calibration_channel": np.array(sensor, np.int32),
        "calibration_translation": np.array(rows["translation"], float).reshape(-1, 3),
        "calibration_rotation": np.array(rows["rotation"], float).reshape(-1, 4),
        "calibration_intrinsics": np.array(
            [m or blank for m in rows["camera_intrinsic"]], float
        ).reshape(-1, 3, 3),
    }
    return arrays, Tokens(folder, "calibrated_sensor", rows["token"])


def _frames(
    folder: Path, calibrations: dict, calibration_rows: Tokens, sample_rows: Tokens
) -> dict:
    """All LiDAR and radar sweeps and the cameras' key frames, with their ego poses."""
    is_camera = np.char.startswith(calibrations["channels"], "CAM")
    of_camera = set(np.flatnonzero(is_camera[calibrations["calibration_channel"]]).tolist())
    calibration_of = calibration_rows.row_of
    tokens, calibration, times, patterns, poses, previous = [], [], [], [], [], []
    pattern_rows: dict[str, int] = {}
    key_frames = np.full(
        (len(sample_rows.row_of), len(calibrations["channels"])), -1, np.int32
    )
    names = (
        "token", "calibrated_sensor_token", "timestamp", "filename", "ego_pose_token", "prev",
        "is_key_frame", "sample_token",
    )  # fmt: skip
    for token, calibration_token, time, file, pose, before, is_key, sample in read_rows(
        folder, "sample_data", names
    ):
        row = calibration_of.get(calibration_token)
        if row is None:
            calibration_rows.rows([calibration_token], "sample_data")
        if row in of_camera and not is_key:
            continue
        if is_key:
            channel = calibrations["calibration_channel"][row]
            key_frames[sample_rows.rows([sample], "sample_data")[0], channel] = len(tokens)
        pattern = file.replace(str(time), "{}")
        patterns.append(pattern_rows.setdefault(pattern, len(pattern_rows)))
        tokens.append(token)
        calibration.append(row)
        times.append(time)
        poses.append(pose)
        previous.append("" if row in of_camera else before)
    translation, rotation = _poses(folder, poses)
    return {
        "key_frames": key_frames,
        "frame_calibration": np.array(calibration, np.int32),
        "frame_time_us": np.array(times, np.int64),
        "frame_translation": translation,
        "frame_rotation": rotation,
        "frame_previous": np.array(
            Tokens(folder, "sample_data", tokens).rows(previous, "sample_data"), np.int32
        ),
        "frame_file": np.array(patterns, np.int32),
        "file_patterns": np.array(list(pattern_rows), str),
    }


def _poses(folder: Path, tokens: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Translation and rotation of the ego pose that each frame names."""
    wanted: dict[str, int] = {}
    pose_of_frame = np.array([wanted.setdefault(t, len(wanted)) for t in tokens], np.int64)
    poses = np.full((len(wanted), 7), np.nan)
    for token, translation, rotation in read_rows(
        folder, "ego_pose", ("token", "translation", "rotation")
    ):
        row = wanted.get(token)
        if row is not None:
            poses[row] = translation + rotation
    if len(missing := np.flatnonzero(np.isnan(poses).any(1))):
        token = next(t for t, row in wanted.items() if row == missing[0])
        raise InputError(
            f"{folder / 'ego_pose.json'} lacks token {token}, which sample_data.json refers to "
            f"({len(missing)} such tokens); are all tables of the same version and complete?"
        )
    return poses[pose_of_frame, :3], poses[pose_of_frame, 3:]


def _annotations(folder: Path, sample_time_us: np.ndarray, sample_rows: Tokens) -> dict:
    categories = read_columns(folder, "category", ("token", "name"))
    attributes = read_columns(folder, "attribute", ("token", "name"))
    visibility = read_columns(folder, "visibility", ("token", "level"))
    instances = read_columns(folder, "instance", ("token", "category_token"))
    names = (
        "token", "sample_token", "instance_token", "attribute_tokens", "visibility_token",
        "translation", "size", "rotation", "prev", "next", "num_lidar_pts", "num_radar_pts",
    )  # fmt: skip
    rows = read_columns(folder, "sample_annotation", names)
    of = "sample_annotation"
    sample = np.array(sample_rows.rows(rows["sample_token"], of), np.int64)
    instance = Tokens(folder, "instance", instances["token"]).rows(rows["instance_token"], of)
    category = Tokens(folder, "category", categories["token"]).rows(
        instances["category_token"], "instance"
    )
    attribute_rows = Tokens(folder, "attribute", attributes["token"])
    attribute = [
        -2 if len(tokens) > 1 else attribute_rows.rows(tokens, of)[0] if tokens else -1
        for tokens in rows["attribute_tokens"]
    ]
    own = Tokens(folder, "sample_annotation", rows["token"])
    translation = np.array(rows["translation"], float).reshape(-1, 3)
    velocity = _velocities(
        translation,
        1e-6 * sample_time_us[sample],
        np.array(own.rows(rows["prev"], of), np.int64),
        np.array(own.rows(rows["next"], of), np.int64),
    )
    visible = Tokens(folder, "visibility", visibility["token"]).rows(rows["visibility_token"], of)
    instance = np.array(instance, np.int32)
    arrays = {
        "annotation_category": np.array(category, np.int32)[instance],
        "annotation_attribute": np.array(attribute, np.int32),
        "annotation_visibility": np.array(visible, np.int32),
        "annotation_instance": instance,
        "annotation_lidar_points": np.array(rows["num_lidar_pts"], np.int32),
        "annotation_radar_points": np.array(rows["num_radar_pts"], np.int32),
        "annotation_translation": translation,
        "annotation_size": np.array(rows["size"], float).reshape(-1, 3),
        "annotation_rotation": np.array(rows["rotation"], float).reshape(-1, 4),
        "annotation_velocity": velocity,
    }
    order = np.argsort(sample, kind="stable")
    arrays = {name: array[order] for name, array in arrays.items()}
    return {
        **arrays,
        "annotation_begin": np.searchsorted(sample[order], np.arange(len(sample_time_us) + 1)),
        "category_names": np.array(categories["name"], str),
        "attribute_names": np.array(attributes["name"], str),
        "visibility_levels": np.array(visibility["level"], str),
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
