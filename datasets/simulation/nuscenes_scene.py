"""One simulated drive as nuScenes records it: sensor files, poses, tracks of boxes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from datasets.nuscenes.sensor_files import RADAR_DTYPE
from datasets.simulation.camera import CameraModel, draw_light, render
from datasets.simulation.lidar import LIDARS, LidarModel, scan
from datasets.simulation.meshes import pose
from datasets.simulation.moments import Moments
from datasets.simulation.nuscenes_rig import MOUNTS
from datasets.simulation.nuscenes_tables import CATEGORY_OF_ACTOR, chain, placed, token
from datasets.simulation.radar import RadarModel, RadarTargets, sense
from datasets.simulation.raycast import owners
from datasets.simulation.reflectors import Reflectors
from datasets.simulation.town import draw_world
from datasets.simulation.world import Actor

SAMPLE_PERIOD_S = 0.5
# Where the world's origin lies on the map, so that global coordinates are no small numbers.
GLOBAL_FROM_WORLD = pose(500.0, 500.0)
_FARTHEST_BOX_M = 75.0
_VISIBILITY_RAYS = 16


@dataclass(frozen=True)
class SceneSettings:
    """What to record of each drive."""

    samples: int
    """Key frames, 0.5 s apart."""
    lidar_columns: int
    """Firings a turn; the real scanner has 1084."""
    image_size: tuple[int, int]
    """Width, height of the pictures."""


@dataclass
class SceneRows:
    """What one drive adds to the tables."""

    scene: list[dict] = field(default_factory=list)
    sample: list[dict] = field(default_factory=list)
    sample_data: list[dict] = field(default_factory=list)
    ego_pose: list[dict] = field(default_factory=list)
    instance: list[dict] = field(default_factory=list)
    sample_annotation: list[dict] = field(default_factory=list)


def record_scene(
    root: Path, name: str, number: int, seed: tuple[int, ...], settings: SceneSettings
) -> SceneRows:
    """Simulates a drive, writes its sensor files below `root` and returns its rows."""
    return _Recorder(root, name, number, seed, settings).record()


class _Recorder:
    def __init__(self, root, name, number, seed, settings: SceneSettings):
        self.root, self.name, self.settings = root, name, settings
        self.rng = np.random.default_rng(seed)
        self.duration_s = (settings.samples - 1) * SAMPLE_PERIOD_S
        duration_s = max(self.duration_s, SAMPLE_PERIOD_S) + 0.2
        self.world = draw_world(self.rng, duration_s, many_kinds=True)
        self.moments = Moments(self.world)
        self.light = draw_light(self.rng)
        self.start_us = 1_600_000_000_000_000 + number * 100_000_000
        self.rows = SceneRows()
        self.tokens = [token(name, "sample", i) for i in range(settings.samples)]
        # Points on each actor in each sample, by sensor.
        self.lidar_points = np.zeros((settings.samples, len(self.world.actors)), int)
        self.radar_points = np.zeros_like(self.lidar_points)

    def record(self) -> SceneRows:
        self._record_lidar()
        self._record_radars()
        self._record_cameras()
        self._add_annotations()
        samples = [
            {"token": own, "timestamp": self._time_us(i * SAMPLE_PERIOD_S),
             "scene_token": token("scene", self.name)}
            for i, own in enumerate(self.tokens)
        ]  # fmt: skip
        self.rows.sample = chain(samples)
        self.rows.scene = [{
            "token": token("scene", self.name), "name": self.name, "log_token": token("log"),
            "description": f"simulated, {self.world.district}", "nbr_samples": len(samples),
            "first_sample_token": self.tokens[0], "last_sample_token": self.tokens[-1],
        }]  # fmt: skip
        return self.rows

    # ------------------------------------------------------------------------------ sensors

    def _record_lidar(self) -> None:
        lidar: LidarModel = replace(LIDARS["hdl32e"](), columns=self.settings.lidar_columns)
        times_s = np.arange(round(self.duration_s * lidar.rate_hz) + 1) / lidar.rate_hz
        frames = []
        for time_s, key in zip(times_s, self._keys(times_s), strict=True):
            scene, snapshot = self.moments.at(time_s)
            seen = scan(lidar, scene, snapshot, self._world_from("LIDAR_TOP", time_s), self.rng)
            row = self._frame("LIDAR_TOP", time_s, key, "pcd.bin")
            frames.append(row)
            intensity = np.round(seen.points[:, 3] * 255)
            points = np.column_stack([seen.points[:, :3], intensity, seen.ring])
            points.astype("<f4").tofile(self.root / row["filename"])
            if key >= 0:
                self.lidar_points[key] = self._count(seen.owner)
        self.rows.sample_data += chain(frames)

    def _record_radars(self) -> None:
        radar, reflectors = RadarModel(), Reflectors.draw(self.world, self.rng)
        channels = [channel for channel, mount in MOUNTS.items() if mount.modality == "radar"]
        frames: dict[str, list[dict]] = {channel: [] for channel in channels}
        times_s = np.arange(round(self.duration_s * radar.rate_hz) + 1) / radar.rate_hz
        for time_s, key in zip(times_s, self._keys(times_s), strict=True):
            scene, snapshot = self.moments.at(time_s)
            for channel in channels:
                targets = sense(
                    radar, scene, snapshot, self.world, reflectors, time_s,
                    self._world_from(channel, time_s), self.rng,
                )  # fmt: skip
                row = self._frame(channel, time_s, key, "pcd")
                frames[channel].append(row)
                write_radar_file(self.root / row["filename"], targets)
                if key >= 0:
                    self.radar_points[key] += self._count(targets.owner)
        for rows in frames.values():
            self.rows.sample_data += chain(rows)

    def _record_cameras(self) -> None:
        import cv2

        size = self.settings.image_size
        frames: dict[str, list[dict]] = {}
        for key in range(self.settings.samples):
            time_s = key * SAMPLE_PERIOD_S
            scene, snapshot = self.moments.at(time_s)
            for channel, mount in MOUNTS.items():
                if mount.modality != "camera":
                    continue
                projection = np.column_stack([mount.intrinsics(size), np.zeros(3)])
                picture = render(
                    CameraModel(projection, size), scene, snapshot,
                    self._world_from(channel, time_s), self.light,
                )  # fmt: skip
                row = self._frame(channel, time_s, key, "jpg")
                row["width"], row["height"] = size
                frames.setdefault(channel, []).append(row)
                cv2.imwrite(str(self.root / row["filename"]), picture[..., ::-1])
        for rows in frames.values():
            self.rows.sample_data += chain(rows)

    # -------------------------------------------------------------------------------- boxes

    def _add_annotations(self) -> None:
        visible = [self._visible_shares(key * SAMPLE_PERIOD_S) for key in range(len(self.tokens))]
        for index, actor in enumerate(self.world.actors):
            instance = token(self.name, "instance", index)
            boxes = [
                self._annotation(key, index, actor, instance, visible[key][index])
                for key in range(len(self.tokens))
                if visible[key][index] is not None
            ]
            if not boxes:
                continue
            self.rows.sample_annotation += chain(boxes)
            self.rows.instance.append({
                "token": instance, "nbr_annotations": len(boxes),
                "category_token": token("category", CATEGORY_OF_ACTOR[actor.category]),
                "first_annotation_token": boxes[0]["token"],
                "last_annotation_token": boxes[-1]["token"],
            })  # fmt: skip

    def _annotation(self, key, index, actor: Actor, instance, visible: float) -> dict:
        time_s = key * SAMPLE_PERIOD_S
        global_from_actor = GLOBAL_FROM_WORLD @ actor.track.pose(time_s)
        length, width, height = actor.size
        center = global_from_actor @ (0, 0, height / 2, 1)
        yaw = np.arctan2(global_from_actor[1, 0], global_from_actor[0, 0])
        level = int(np.searchsorted([0.4, 0.6, 0.8], visible))
        return {
            "token": token(self.name, "annotation", index, key),
            "sample_token": self.tokens[key],
            "instance_token": instance,
            "visibility_token": str(level + 1),
            "attribute_tokens": [
                token("attribute", name) for name in attributes_of(actor, time_s)
            ],
            "translation": center[:3].tolist(),
            "size": [width, length, height],
            "rotation": placed(pose(yaw=yaw))["rotation"],
            "num_lidar_pts": int(self.lidar_points[key, index]),
            "num_radar_pts": int(self.radar_points[key, index]),
        }

    def _visible_shares(self, time_s: float) -> list[float | None]:
        """Share of each actor's surface towards the LiDAR that nothing hides; None: too far."""
        scene, snapshot = self.moments.at(time_s)
        eye = self._world_from("LIDAR_TOP", time_s)[:3, 3]
        shares: list[float | None] = [None] * len(self.world.actors)
        rays, whose = [], []
        for index, actor in enumerate(self.world.actors):
            first, last = snapshot.ranges[index]
            away = np.hypot(*(actor.track.pose(time_s)[:2, 3] - eye[:2]))
            if first == last or away > _FARTHEST_BOX_M:
                continue
            triangles = snapshot.mesh.triangles[self.rng.integers(first, last, _VISIBILITY_RAYS)]
            towards = snapshot.mesh.vertices[triangles].mean(1) - eye
            towards /= np.linalg.norm(towards, axis=1, keepdims=True)
            rays.append(np.column_stack([np.broadcast_to(eye, towards.shape), towards]))
            whose.append(index)
        if rays:
            hit = owners(scene.cast(np.concatenate(rays)), snapshot).reshape(len(whose), -1)
            for index, owner in zip(whose, hit, strict=True):
                shares[index] = float((owner == index).mean())
        return shares

    # ------------------------------------------------------------------------------ helpers

    def _keys(self, times_s: np.ndarray) -> np.ndarray:
        """The sample that each time is the nearest frame of, or -1."""
        keys = np.full(len(times_s), -1)
        for sample in range(self.settings.samples):
            keys[np.argmin(np.abs(times_s - sample * SAMPLE_PERIOD_S))] = sample
        return keys

    def _frame(self, channel: str, time_s: float, key: int, extension: str) -> dict:
        """A row of sample_data, with its ego pose entered."""
        time_us = self._time_us(time_s)
        own = token(self.name, channel, time_us)
        folder = Path("samples" if key >= 0 else "sweeps", channel)
        (self.root / folder).mkdir(parents=True, exist_ok=True)
        nearest = min(round(time_s / SAMPLE_PERIOD_S), len(self.tokens) - 1)
        self.rows.ego_pose.append({
            "token": own, "timestamp": time_us,
            **placed(GLOBAL_FROM_WORLD @ self.world.drive.pose(time_s)),
        })  # fmt: skip
        return {
            "token": own,
            "sample_token": self.tokens[key if key >= 0 else nearest],
            "ego_pose_token": own,
            "calibrated_sensor_token": token("calibrated", channel),
            "timestamp": time_us,
            "fileformat": extension.removesuffix(".bin"),
            "is_key_frame": bool(key >= 0),
            "height": 0,
            "width": 0,
            "filename": (folder / f"{self.name}__{channel}__{time_us}.{extension}").as_posix(),
        }

    def _world_from(self, channel: str, time_s: float) -> np.ndarray:
        return self.world.drive.pose(time_s) @ MOUNTS[channel].ego_from_sensor

    def _time_us(self, time_s: float) -> int:
        return self.start_us + round(float(time_s) * 1e6)

    def _count(self, owner: np.ndarray) -> np.ndarray:
        return np.bincount(owner[owner >= 0], minlength=len(self.world.actors))


_LASTING_ATTRIBUTES = {
    "cyclist": ("cycle.with_rider",), "motorcyclist": ("cycle.with_rider",),
    "motorcycle": ("cycle.without_rider",), "sitting_person": ("pedestrian.sitting_lying_down",),
    "traffic_cone": (), "barrier": (),
}  # fmt: skip


def attributes_of(actor: Actor, time_s: float) -> tuple[str, ...]:
    """nuScenes' attributes of an actor at a time: one, or none of what has none."""
    if actor.category in _LASTING_ATTRIBUTES:
        return _LASTING_ATTRIBUTES[actor.category]
    moving = np.hypot(*actor.track.velocity(time_s)[:2]) > 0.2
    if actor.category == "pedestrian":
        return ("pedestrian.moving" if moving else "pedestrian.standing",)
    if moving:
        return ("vehicle.moving",)
    # Buses stand at stops.
    parked = len(actor.track.times_s) == 1 and actor.category != "bus"
    return ("vehicle.parked" if parked else "vehicle.stopped",)


def write_radar_file(path: Path, targets: RadarTargets) -> None:
    """A nuScenes radar `.pcd`; a sweep without targets holds one that is NaN."""
    count = max(len(targets.rcs_dbsm), 1)
    rows = np.zeros(count, RADAR_DTYPE)
    if len(targets.rcs_dbsm):
        rows["x"], rows["y"] = targets.position.T
        rows["vx"], rows["vy"] = targets.relative_velocity.T
        rows["vx_comp"], rows["vy_comp"] = targets.velocity.T
        rows["rcs"] = targets.rcs_dbsm
        rows["dyn_prop"] = targets.dynamic_property
        rows["invalid_state"] = targets.invalid_state
        rows["ambig_state"] = targets.ambiguity_state
        rows["pdh0"] = targets.false_alarm
    else:
        rows["x"] = np.nan
    rows["id"] = np.arange(count)
    rows["is_quality_valid"] = 1
    for name in ("x_rms", "y_rms", "vx_rms", "vy_rms"):
        rows[name] = 19
    kinds = ["F" if RADAR_DTYPE[name].kind == "f" else "I" for name in RADAR_DTYPE.names]
    sizes = [str(RADAR_DTYPE[name].itemsize) for name in RADAR_DTYPE.names]
    header = (
        "# .PCD v0.7 - Point Cloud Data file format\n"
        "VERSION 0.7\n"
        f"FIELDS {' '.join(RADAR_DTYPE.names)}\n"
        f"SIZE {' '.join(sizes)}\n"
        f"TYPE {' '.join(kinds)}\n"
        f"COUNT {' '.join('1' for _ in sizes)}\n"
        f"WIDTH {count}\n"
        "HEIGHT 1\n"
        "VIEWPOINT 0 0 0 1 0 0 0\n"
        f"POINTS {count}\n"
        "DATA binary\n"
    )
    # Real files are padded to the largest sweep; the official reader needs a byte at least.
    path.write_bytes(header.encode() + rows.tobytes() + bytes(RADAR_DTYPE.itemsize))
