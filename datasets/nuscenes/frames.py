"""Points and pictures of one sample in its ego frame, out of sweeps that lie before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from datasets.nuscenes.index import NuScenesIndex
from datasets.nuscenes.sensor_files import RadarFilter, read_lidar, read_radar
from detector.errors import InputError
from detector.geometry import inverse_rigid, transform_points
from detector.metrics.nuscenes.boxes import rotation_matrices
from detector.records import Camera


def rigid(translation: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """(4, 4) of a translation and a quaternion w, x, y, z."""
    transform = np.eye(4)
    transform[:3, :3] = rotation_matrices(rotation[None])[0]
    transform[:3, 3] = translation
    return transform


class SampleFrames:
    """Reads what the sensors saw around one sample; see `NuScenesDataset`.

    The ego frame is the vehicle's when the LiDAR took the sample.
    """

    def __init__(self, root: Path, index: NuScenesIndex, sample: int):
        self.root, self.index, self.sample = root, index, sample
        self.reference = int(index.key_frames[sample, index.channel_row["LIDAR_TOP"]])
        self.ego_from_global = inverse_rigid(self.global_from_ego(self.reference))

    def global_from_ego(self, frame: int) -> np.ndarray:
        index = self.index
        return rigid(index.frame_translation[frame], index.frame_rotation[frame])

    def ego_from_sensor(self, frame: int) -> np.ndarray:
        """(4, 4) from a sensor at its own time to the ego frame of the sample."""
        row = self.index.frame_calibration[frame]
        own_ego_from_sensor = rigid(
            self.index.calibration_translation[row], self.index.calibration_rotation[row]
        )
        return self.ego_from_global @ self.global_from_ego(frame) @ own_ego_from_sensor

    def age_s(self, frame: int) -> float:
        """Seconds by which a frame lies before the sample's LiDAR frame; negative: after."""
        times = self.index.frame_time_us
        return float(times[self.reference] - times[frame]) * 1e-6

    def sweeps(self, channel: str, count: int) -> Iterator[int]:
        """The sample's frame of a channel and those before it, newest first; fewer at the start of
        a scene. None where the sample lacks that channel."""
        row = self.index.channel_row.get(channel)
        frame = -1 if row is None else int(self.index.key_frames[self.sample, row])
        for _ in range(count):
            if frame < 0:
                return
            yield frame
            frame = int(self.index.frame_previous[frame])

    def lidar_points(self, sweeps: int, close_radius_m: float) -> Float32[np.ndarray, "P 5"]:
        """x, y, z, intensity in [0, 1], age_s; sweep by sweep, each in the file's order."""
        parts = [np.zeros((0, 5), np.float32)]
        for frame in self.sweeps("LIDAR_TOP", sweeps):
            points = read_lidar(self.path(frame))
            x, y = points[:, 0], points[:, 1]
            far = (np.abs(x) >= close_radius_m) | (np.abs(y) >= close_radius_m)
            ego_from_lidar = self.ego_from_sensor(frame)
            motion = np.eye(5, dtype=np.float32)
            motion[:3, :3] = ego_from_lidar[:3, :3].T
            moved = points[far] @ motion
            for axis in range(3):
                moved[:, axis] += np.float32(ego_from_lidar[axis, 3])
            moved[:, 3] /= 255
            moved[:, 4] = self.age_s(frame)
            parts.append(moved)
        return np.concatenate(parts)

    def radar_points(
        self, sweeps: int, keep: RadarFilter, move: bool, fields: tuple[str, ...]
    ) -> Float32[np.ndarray, "P C"]:
        """x, y, z, then `fields` of the file, then age_s; radar by radar, sweep by sweep."""
        parts = [np.zeros((0, 4 + len(fields)), np.float32)]
        channels = [name for name in self.index.channels.tolist() if name.startswith("RADAR")]
        for channel in sorted(channels):
            for frame in self.sweeps(channel, sweeps):
                targets = read_radar(self.path(frame))
                targets = targets[keep(targets)]
                age_s = self.age_s(frame)
                ego_from_sensor = self.ego_from_sensor(frame)
                turn = ego_from_sensor[:2, :2]
                position = np.stack([targets[axis] for axis in "xyz"], 1).astype(float)
                position = transform_points(ego_from_sensor, position)
                columns = {name: targets[name].astype(float) for name in fields}
                velocity = np.stack([targets["vx_comp"], targets["vy_comp"]], 1) @ turn.T
                if move:
                    position[:, :2] += np.nan_to_num(velocity) * age_s
                for x, y in (("vx", "vy"), ("vx_comp", "vy_comp")):
                    both = np.stack([targets[x], targets[y]], 1).astype(float) @ turn.T
                    columns |= {n: v for n, v in ((x, both[:, 0]), (y, both[:, 1])) if n in columns}
                values = [columns[name] for name in fields]
                points = np.column_stack([position, *values, np.full(len(targets), age_s)])
                parts.append(np.nan_to_num(points).astype(np.float32))
        return np.concatenate(parts)

    def camera(self, channel: str) -> Camera:
        """The picture of one camera at its own time, seen from the ego frame of the sample."""
        import cv2

        frame = next(self.sweeps(channel, 1), None)
        if frame is None:
            raise InputError(
                f"sample {self.index.sample_tokens[self.sample]} has no key frame of {channel} in "
                f"sample_data.json; read it without pictures"
            )
        path = self.path(frame)
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise InputError(f"{path}: the picture is missing or can't be decoded; unpack it again")
        intrinsics = np.zeros((3, 4), np.float32)
        row = self.index.frame_calibration[frame]
        intrinsics[:, :3] = self.index.calibration_intrinsics[row]
        return Camera(
            name=channel,
            image=np.ascontiguousarray(image[..., ::-1]),
            camera_from_ego=inverse_rigid(self.ego_from_sensor(frame)).astype(np.float32),
            intrinsics=intrinsics,
        )

    def path(self, frame: int) -> Path:
        return self.root / self.index.file_of(frame)
