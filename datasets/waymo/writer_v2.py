"""Writes frames in format 2: Parquet tables, one folder a component."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from datasets.waymo.frame import WaymoFrame
from datasets.waymo.tables import import_pyarrow
from datasets.waymo.v2 import CAMERA, INTRINSICS, LASER, OBJECT, SEGMENT, TIME
from detector.errors import InputError


def write_v2(
    root: Path | str, segment: str, frames: Iterable[WaymoFrame], *, frames_per_group: int = 1
) -> None:
    """Writes one segment as `root/COMPONENT/SEGMENT.parquet`, component by component.

    Frames are written as they come; calibrations are taken from the first one.

    Raises:
        InputError: a file can't be written.
    """
    writers: dict[str, _TableWriter] = {}
    first = True
    try:
        for frame in frames:
            tables = _frame_tables(frame)
            if first:
                tables |= _calibration_tables(frame)
                first = False
            for folder, (prefix, rows) in tables.items():
                if folder not in writers:
                    path = Path(root) / folder / f"{segment}.parquet"
                    writers[folder] = _TableWriter(path, prefix, frames_per_group)
                writers[folder].add(rows)
        # The poses, by which a segment is found, come last.
        for writer in reversed(writers.values()):
            writer.finish()
    except OSError as error:
        raise InputError(
            f"{root}: can't be written ({error.strerror}); choose a folder that you may write to"
        ) from error
    finally:
        for writer in writers.values():
            writer.discard()


class _TableWriter:
    """One Parquet file, there when it is whole."""

    def __init__(self, path: Path, prefix: str, frames_per_group: int):
        self.path, self.prefix = path, prefix
        self.partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self.frames_per_group = frames_per_group
        self.waiting: list[list[dict]] = []
        self.schema = _schema(prefix)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = import_pyarrow().parquet.ParquetWriter(
            self.partial, self.schema, write_page_checksum=True
        )

    def add(self, rows: list[dict[str, Any]]) -> None:
        self.waiting.append(rows)
        if len(self.waiting) >= self.frames_per_group:
            self._flush()

    def finish(self) -> None:
        self._flush()
        self.file.close()
        self.partial.replace(self.path)

    def discard(self) -> None:
        self.file.close()
        with suppress(OSError):
            self.partial.unlink()

    def _flush(self) -> None:
        rows = [row for frame in self.waiting for row in frame]
        self.waiting = []
        if not rows:
            return
        pyarrow = import_pyarrow()
        columns = []
        for field in self.schema:
            name = field.name.removeprefix(f"[{self.prefix}].")
            columns.append(_column([row.get(name) for row in rows], field.type))
        self.file.write_table(pyarrow.Table.from_arrays(columns, schema=self.schema))


def _column(values: list, kind):
    """An Arrow column; lists come as NumPy arrays, which are copied as a whole."""
    pyarrow = import_pyarrow()
    if not pyarrow.types.is_list(kind):
        return pyarrow.array(
            [v.tolist() if isinstance(v, np.ndarray) else v for v in values], kind
        )
    lengths = [0 if v is None else v.size for v in values]
    given = [v.ravel() for v in values if v is not None]
    content = np.concatenate([np.zeros(0, np.float64), *given])
    return pyarrow.ListArray.from_arrays(
        pyarrow.array(np.cumsum([0, *lengths]), pyarrow.int32()),
        pyarrow.array(content).cast(kind.value_type),
        mask=pyarrow.array([v is None for v in values]),
    )


def _schema(prefix: str):
    """Arrow types of all of a component's columns, those of `v2/perception`; what frames don't say
    (accelerations, shutters, ...) stays empty."""
    pyarrow = import_pyarrow()
    double, single = pyarrow.float64(), pyarrow.float32()
    transform = pyarrow.list_(double, 16)
    image = {"values": pyarrow.list_(single), "shape": pyarrow.list_(pyarrow.int32(), 3)}
    keys = {
        SEGMENT: pyarrow.string(), TIME: pyarrow.int64(), LASER: pyarrow.int8(),
        CAMERA: pyarrow.int8(), OBJECT: pyarrow.string(),
    }  # fmt: skip
    images = {
        echo: {f"range_image_return{echo}.{part}": kind for part, kind in image.items()}
        for echo in "12"
    }
    vector = {axis: double for axis in "xyz"}
    components = {
        "VehiclePoseComponent": ((SEGMENT, TIME), {"world_from_vehicle.transform": transform}),
        "LiDARComponent": ((SEGMENT, TIME, LASER), images["1"] | images["2"]),
        "LiDARPoseComponent": ((SEGMENT, TIME, LASER), images["1"]),
        "LiDARCameraProjectionComponent": ((SEGMENT, TIME, LASER), images["1"] | images["2"]),
        "LiDARCalibrationComponent": ((SEGMENT, LASER), {
            "extrinsic.transform": transform,
            "beam_inclination.min": double,
            "beam_inclination.max": double,
            "beam_inclination.values": pyarrow.list_(double),
        }),
        "LiDARBoxComponent": ((SEGMENT, TIME, OBJECT), {
            **{f"box.center.{axis}": kind for axis, kind in vector.items()},
            **{f"box.size.{axis}": kind for axis, kind in vector.items()},
            "box.heading": double,
            "type": pyarrow.int8(),
            "num_lidar_points_in_box": pyarrow.int64(),
            "num_top_lidar_points_in_box": pyarrow.int64(),
            **{f"speed.{axis}": kind for axis, kind in vector.items()},
            **{f"acceleration.{axis}": kind for axis, kind in vector.items()},
            "difficulty_level.detection": pyarrow.int8(),
            "difficulty_level.tracking": pyarrow.int8(),
        }),
        "CameraImageComponent": ((SEGMENT, TIME, CAMERA), {
            "image": pyarrow.binary(),
            "pose.transform": transform,
            **{f"velocity.linear_velocity.{axis}": single for axis in "xyz"},
            **{f"velocity.angular_velocity.{axis}": double for axis in "xyz"},
            "pose_timestamp": double,
            "rolling_shutter_params.shutter": double,
            "rolling_shutter_params.camera_trigger_time": double,
            "rolling_shutter_params.camera_readout_done_time": double,
        }),
        "CameraCalibrationComponent": ((SEGMENT, CAMERA), {
            **{f"intrinsic.{name}": double for name in INTRINSICS},
            "extrinsic.transform": transform,
            "width": pyarrow.int32(),
            "height": pyarrow.int32(),
            "rolling_shutter_direction": pyarrow.int8(),
        }),
    }  # fmt: skip
    own_keys, columns = components[prefix]
    named = {key: keys[key] for key in own_keys}
    named |= {f"[{prefix}].{name}": kind for name, kind in columns.items()}
    return pyarrow.schema(list(named.items()))


def _frame_tables(frame: WaymoFrame) -> dict[str, tuple[str, list[dict[str, Any]]]]:
    """Folder -> component and rows of one frame."""
    key = {SEGMENT: frame.segment, TIME: frame.time_us}
    labels = frame.labels
    boxes = []
    for row in range(len(labels)):
        named = zip(
            ("box.center.x", "box.center.y", "box.center.z", "box.size.x", "box.size.y",
             "box.size.z", "box.heading"),
            labels.boxes[row].tolist(), strict=True,
        )  # fmt: skip
        speed = dict(zip(("speed.x", "speed.y", "speed.z"), labels.velocities[row], strict=True))
        boxes.append(
            {**key, OBJECT: labels.ids[row], **dict(named), "type": int(labels.types[row]),
             "num_lidar_points_in_box": int(labels.point_counts[row]),
             **({} if np.isnan(labels.velocities[row]).any() else speed),
             "difficulty_level.detection": int(labels.difficulties[row]) or None}
        )  # fmt: skip
    lasers = [{**key, LASER: s.laser, **_image_cells(s.returns)} for s in frame.lasers]
    poses = [
        {**key, LASER: s.laser, **_image_cells([s.pixel_poses])}
        for s in frame.lasers
        if s.pixel_poses is not None
    ]
    pixels = [
        {**key, LASER: s.laser, **_image_cells(s.projections)}
        for s in frame.lasers
        if s.projections
    ]
    images = [
        {**key, CAMERA: s.camera, "image": s.jpeg,
         "pose.transform": frame.world_from_vehicle.ravel(),
         "pose_timestamp": frame.time_us * 1e-6}
        for s in frame.shots
    ]  # fmt: skip
    pose = {**key, "world_from_vehicle.transform": frame.world_from_vehicle.ravel()}
    return {
        "vehicle_pose": ("VehiclePoseComponent", [pose]),
        "lidar": ("LiDARComponent", lasers),
        "lidar_pose": ("LiDARPoseComponent", poses),
        "lidar_camera_projection": ("LiDARCameraProjectionComponent", pixels),
        "lidar_box": ("LiDARBoxComponent", boxes),
        "camera_image": ("CameraImageComponent", images),
    }


def _image_cells(images: Sequence[np.ndarray]) -> dict[str, Any]:
    # Lists of a fixed length must not be absent: pyarrow before 23 can't read those.
    cells: dict[str, Any] = {"range_image_return2.shape": [0, 0, 0]}
    for echo, image in enumerate(images, 1):
        cells[f"range_image_return{echo}.values"] = image
        cells[f"range_image_return{echo}.shape"] = list(image.shape)
    return cells


def _calibration_tables(frame: WaymoFrame) -> dict[str, tuple[str, list[dict[str, Any]]]]:
    lasers = [
        {SEGMENT: frame.segment, LASER: s.laser,
         "extrinsic.transform": s.vehicle_from_laser.ravel(),
         "beam_inclination.min": float(s.inclinations[-1]),
         "beam_inclination.max": float(s.inclinations[0]),
         "beam_inclination.values": s.inclinations[::-1]}
        for s in frame.lasers
    ]  # fmt: skip
    cameras = [
        {SEGMENT: frame.segment, CAMERA: s.camera,
         **{f"intrinsic.{name}": value
            for name, value in zip(INTRINSICS, s.intrinsics.tolist(), strict=True)},
         "extrinsic.transform": s.vehicle_from_camera.ravel(),
         "width": s.size[0], "height": s.size[1]}
        for s in frame.shots
    ]  # fmt: skip
    return {
        "lidar_calibration": ("LiDARCalibrationComponent", lasers),
        "camera_calibration": ("CameraCalibrationComponent", cameras),
    }
