"""Format 2: folders of Parquet tables, one folder a component, one file a segment in each.

Components and columns as in `v2/perception` of waymo-open-dataset (99a4cb3). Tables are read by
row group and column: only the groups that hold a frame, only what is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from datasets.waymo.frame import (
    ALL_LASERS,
    CameraShot,
    FrameLabels,
    FrameTable,
    LaserScan,
    WaymoFrame,
)
from datasets.waymo.range_image import uniform_inclinations
from datasets.waymo.tables import REMEDY, Component, array_of
from detector.errors import InputError

SEGMENT, TIME, LASER, CAMERA = (
    "key.segment_context_name", "key.frame_timestamp_micros", "key.laser_name", "key.camera_name",
)  # fmt: skip
OBJECT = "key.laser_object_id"
INTRINSICS = ("f_u", "f_v", "c_u", "c_v", "k1", "k2", "p1", "p2", "k3")


class SegmentV2:
    """One segment of format 2.

    Args:
        root: the split's folder, which holds `lidar/`, `vehicle_pose/`, ...
        name: the segment; its files are `root/COMPONENT/NAME.parquet`.
        table: its frames, where they are known; otherwise the table of poses is read.

    Raises:
        InputError: the table of poses is missing or damaged, or has a frame twice.
    """

    def __init__(self, root: Path | str, name: str, table: FrameTable | None = None):
        self.root = Path(root)
        self.name = name
        self.path = self.root / "vehicle_pose" / f"{name}.parquet"
        self._components: dict[str, Component] = {}
        self._places: dict[str, dict[int, list[tuple]]] = {}
        self.table = self._read_table() if table is None else table

    def _read_table(self) -> FrameTable:
        component = self._component("vehicle_pose", "VehiclePoseComponent")
        times = [time for (time,) in component.keys(TIME)]
        if len(set(times)) != len(times):
            raise InputError(f"{self.path}: holds a frame twice; {REMEDY}")
        if not times:
            raise InputError(f"{self.path}: holds no frame; {REMEDY}")
        rows = component.rows(range(len(times)), ["world_from_vehicle.transform"])
        poses = [self._transform(r["world_from_vehicle.transform"], "a pose") for r in rows]
        return FrameTable.of_frames(self.name, times, poses)

    def __getstate__(self) -> dict[str, Any]:
        # Open files don't travel to another process; it opens its own.
        return {**self.__dict__, "_components": {}, "_places": {}}

    def frame(
        self, time_us: int, *, lasers: Collection[int] = ALL_LASERS, echoes: int = 2,
        labels: bool = True, images: bool = False, projections: bool = False,
    ) -> WaymoFrame:  # fmt: skip
        """Reads one frame; what isn't asked for stays empty.

        Args:
            lasers: which to read.
            echoes: how many returns of each, 1 or 2.
            projections: where the points lie in the pictures.

        Raises:
            KeyError: there is no frame of this time.
            InputError: a table that is needed is missing or damaged.
        """
        return WaymoFrame(
            segment=self.name,
            time_us=time_us,
            world_from_vehicle=self.table.world_from_vehicle[self.table.row(time_us)],
            lasers=self._scans(time_us, lasers, echoes, projections) if lasers else (),
            labels=self._labels(time_us) if labels else FrameLabels.empty(),
            shots=self._shots(time_us) if images else (),
        )

    def _component(self, folder: str, prefix: str) -> Component:
        if folder not in self._components:
            path = self.root / folder / f"{self.name}.parquet"
            self._components[folder] = Component(path, prefix)
        return self._components[folder]

    def _rows_of(self, table: Component, folder: str, time_us: int, *keys: str) -> list[tuple]:
        """(row, keys...) of a frame, sorted by the keys."""
        if folder not in self._places:
            places: dict[int, list[tuple]] = {}
            for row, (time, *rest) in enumerate(table.keys(TIME, *keys)):
                places.setdefault(time, []).append((*rest, row))
            self._places[folder] = places
        found = sorted(self._places[folder].get(time_us, []))
        return [(row, *rest) for *rest, row in found]

    def _scans(
        self, time_us: int, lasers: Collection[int], echoes: int, projections: bool
    ) -> tuple[LaserScan, ...]:
        numbers = ("1", "2")[:echoes]
        table = self._component("lidar", "LiDARComponent")
        places = [p for p in self._rows_of(table, "lidar", time_us, LASER) if p[1] in lasers]
        columns = [c for number in numbers for c in _image_columns(number)]
        rows = table.rows([row for row, _ in places], columns)
        poses = self._images("lidar_pose", "LiDARPoseComponent", time_us, ("1",), np.float32)
        pixels = {}
        if projections:
            pixels = self._images(
                "lidar_camera_projection", "LiDARCameraProjectionComponent", time_us, numbers,
                np.int32,
            )  # fmt: skip
        scans = []
        for (_, laser), row in zip(places, rows, strict=True):
            returns = self._returns(row, numbers, np.float32)
            if not returns:
                continue
            calibration = self._laser_calibrations.get(laser)
            if calibration is None:
                raise InputError(
                    f"{self.root / 'lidar_calibration' / self.name}.parquet: has no laser "
                    f"{laser}; {REMEDY}"
                )
            values = calibration["beam_inclination.values"]
            if values is not None and values.as_py():
                inclinations = array_of(values, np.float64)[::-1]
            else:
                lowest, highest = self._numbers(
                    calibration, ("beam_inclination.min", "beam_inclination.max")
                )
                inclinations = uniform_inclinations(lowest, highest, len(returns[0]))
            pose = poses.get(laser)
            scans.append(
                LaserScan(
                    laser=laser,
                    vehicle_from_laser=self._transform(
                        calibration["extrinsic.transform"], f"the mounting of laser {laser}"
                    ),
                    inclinations=inclinations.copy(),
                    returns=returns,
                    pixel_poses=pose[0] if pose else None,
                    projections=pixels.get(laser, ()),
                )
            )
        return tuple(scans)

    def _images(
        self, folder: str, prefix: str, time_us: int, echoes: tuple[str, ...], dtype: type
    ) -> dict[int, tuple[np.ndarray, ...]]:
        """Images of a further table by laser."""
        table = self._component(folder, prefix)
        places = self._rows_of(table, folder, time_us, LASER)
        columns = [c for echo in echoes for c in _image_columns(echo)]
        rows = table.rows([row for row, _ in places], columns)
        return {
            laser: self._returns(row, echoes, dtype)
            for (_, laser), row in zip(places, rows, strict=True)
        }

    def _returns(
        self, row: dict[str, Any], echoes: tuple[str, ...], dtype: type
    ) -> tuple[np.ndarray, ...]:
        images = []
        for echo in echoes:
            values, shape = (row[c.rstrip("?")] for c in _image_columns(echo))
            if values is None or not values.is_valid or not len(values):
                continue
            array = array_of(values, np.float32)
            size = (shape.as_py() if shape is not None else None) or ()
            if len(size) != 3 or None in size or np.prod(size, dtype=float) != len(array):
                raise InputError(
                    f"{self.root}: segment {self.name} has an image of {len(array)} values for a "
                    f"shape of {size}; {REMEDY}"
                )
            images.append(array.reshape(size).astype(dtype, copy=False))
        return tuple(images)

    @cached_property
    def _laser_calibrations(self) -> dict[int, dict[str, Any]]:
        table = self._component("lidar_calibration", "LiDARCalibrationComponent")
        lasers = [laser for (laser,) in table.keys(LASER)]
        rows = table.rows(range(len(lasers)), (
            "extrinsic.transform", "beam_inclination.min", "beam_inclination.max",
            "beam_inclination.values?",
        ))  # fmt: skip
        return dict(zip(lasers, rows, strict=True))

    def _labels(self, time_us: int) -> FrameLabels:
        table = self._component("lidar_box", "LiDARBoxComponent")
        places = self._rows_of(table, "lidar_box", time_us, OBJECT)
        places.sort()  # the file's order
        columns = (
            "box.center.x", "box.center.y", "box.center.z", "box.size.x", "box.size.y",
            "box.size.z", "box.heading", "speed.x?", "speed.y?", "speed.z?", "type",
            "difficulty_level.detection?", "num_lidar_points_in_box",
        )  # fmt: skip
        rows = table.rows([row for row, _ in places], columns)
        names = [c.rstrip("?") for c in columns]
        values = [[r[c].as_py() if r[c] is not None else None for c in names] for r in rows]
        numbers = [[np.nan if v is None else v for v in row[:10]] for row in values]
        box = np.array(numbers, np.float64).reshape(-1, 10)
        whole = [[v or 0 for v in row[10:]] for row in values]
        number = np.array(whole, np.int64).reshape(-1, 3)
        if not np.isfinite(box[:, :7]).all():
            raise InputError(
                f"{table.path}: frame {time_us} has a box that isn't finite; {REMEDY}"
            )
        ids = tuple(str(name) for _, name in places)
        return FrameLabels(box[:, :7], box[:, 7:], *number.T, ids)

    def _shots(self, time_us: int) -> tuple[CameraShot, ...]:
        cameras = self._component("camera_calibration", "CameraCalibrationComponent")
        numbers = [camera for (camera,) in cameras.keys(CAMERA)]
        columns = [f"intrinsic.{name}" for name in INTRINSICS]
        rows = cameras.rows(
            range(len(numbers)), [*columns, "extrinsic.transform", "width", "height"]
        )
        calibrations = dict(zip(numbers, rows, strict=True))
        table = self._component("camera_image", "CameraImageComponent")
        places = self._rows_of(table, "camera_image", time_us, CAMERA)
        shots = []
        for (_, camera), row in zip(
            places, table.rows([row for row, _ in places], ["image"]), strict=True
        ):
            if camera not in calibrations:
                raise InputError(f"{cameras.path}: has no camera {camera}; {REMEDY}")
            calibration = calibrations[camera]
            shots.append(
                CameraShot(
                    camera=camera,
                    jpeg=row["image"].as_py() or b"",
                    vehicle_from_camera=self._transform(
                        calibration["extrinsic.transform"], f"the mounting of camera {camera}"
                    ),
                    intrinsics=self._numbers(calibration, columns),
                    size=tuple(int(n) for n in self._numbers(calibration, ("width", "height"))),
                )
            )
        return tuple(shots)

    def _numbers(self, row: dict[str, Any], columns: Sequence[str]) -> Float64[np.ndarray, " N"]:
        values = np.array([row[c].as_py() for c in columns], np.float64)  # None becomes NaN
        if not np.isfinite(values).all():
            raise InputError(
                f"{self.root}: segment {self.name} has {', '.join(columns)} of "
                f"{values.tolist()}; {REMEDY}"
            )
        return values

    def _transform(self, scalar, what: str) -> Float64[np.ndarray, "4 4"]:
        values = array_of(scalar, np.float64) if scalar.is_valid else np.zeros(0)
        if values.shape != (16,) or not np.isfinite(values).all():
            raise InputError(
                f"{self.root}: segment {self.name} has {what} that isn't 16 finite numbers; "
                f"{REMEDY}"
            )
        return values.reshape(4, 4)


def _image_columns(echo: str) -> list[str]:
    """Values and shape of one return's image; the second return may be absent."""
    optional = "" if echo == "1" else "?"
    return [f"range_image_return{echo}.{part}{optional}" for part in ("values", "shape")]
