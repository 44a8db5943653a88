"""Made-up frames of the Waymo Open Dataset: small range images, labels, pictures."""

from __future__ import annotations

import cv2
import numpy as np

from datasets.waymo.frame import CameraShot, FrameLabels, LaserScan, WaymoFrame
from detector.geometry import rotation_z

SEGMENT = "10017090168044687777_6380_000_6400_000"


def pose(x: float, y: float, z: float, yaw: float, tilt: float = 0.01) -> np.ndarray:
    """A mounting or place: turned, a little tilted, moved."""
    cos, sin = np.cos(tilt), np.sin(tilt)
    turned = rotation_z(yaw) @ np.array(
        [[cos, 0, sin, 0], [0, 1, 0, 0], [-sin, 0, cos, 0], [0, 0, 0, 1]]
    )
    turned[:3, 3] = x, y, z
    return turned


def laser_scan(
    laser: int, rng: np.random.Generator, rows: int = 6, columns: int = 10, echoes: int = 2
) -> LaserScan:
    """Ranges of 2 to 50 m in two thirds of the pixels."""
    returns = []
    for _ in range(echoes):
        image = rng.uniform((2, 0, 0, 0), (50, 2, 1, 1), (rows, columns, 4))
        image[..., 3] = np.where(image[..., 3] > 0.8, 1, -1)
        image[rng.uniform(size=(rows, columns)) < 1 / 3] = -1
        returns.append(image.astype(np.float32))
    poses = None
    if laser == 1:
        poses = np.array([0.01, -0.02, 0.6, 1000, -500, 12]) + rng.normal(
            0, 0.01, (rows, columns, 6)
        )
        poses = poses.astype(np.float32)
    return LaserScan(
        laser=laser,
        vehicle_from_laser=pose(1.4 - laser, 0.3 * laser, 1 + 1 / laser, 0.7 * laser),
        inclinations=np.linspace(0.1, -0.4, rows) ** 3 * laser,  # uneven; the same in all frames
        returns=tuple(returns),
        pixel_poses=poses,
        projections=tuple(
            rng.integers(-3, 6, (rows, columns, 6)).astype(np.int32) for _ in range(echoes)
        ),
    )


def labels(rng: np.random.Generator, count: int = 5) -> FrameLabels:
    boxes = np.c_[
        rng.uniform(-40, 40, (count, 2)), rng.uniform(0, 2, count),
        rng.uniform(0.5, 5, (count, 3)), rng.uniform(-np.pi, np.pi, count),
    ]  # fmt: skip
    velocities = rng.normal(0, 5, (count, 3))
    velocities[: count // 3] = np.nan
    return FrameLabels(
        boxes, velocities, np.arange(count) % 4 + 1, np.arange(count) % 3,
        np.arange(count) * 4, tuple(f"object-{rng.integers(1000)}-{i}" for i in range(count)),
    )  # fmt: skip


def picture(camera: int) -> CameraShot:
    _, jpeg = cv2.imencode(".jpg", np.full((8, 12, 3), (10, 40 * camera, 200), np.uint8))
    return CameraShot(
        camera, jpeg.tobytes(), pose(1.5, 0, 2, 0.8 * (camera - 1)),
        np.array([20.0, 21, 6, 4, 0.1, 0, 0, 0, 0]), (12, 8),
    )  # fmt: skip


def waymo_frame(index: int = 0, segment: str = SEGMENT, lasers=(1, 2, 3, 4, 5)) -> WaymoFrame:
    rng = np.random.default_rng(index)
    return WaymoFrame(
        segment=segment,
        time_us=1_553_735_853_462_203 + 100_000 * index,
        world_from_vehicle=pose(1000 + index, -500 + 0.5 * index, 12, 0.6 + 0.01 * index),
        lasers=tuple(laser_scan(laser, rng) for laser in lasers),
        labels=labels(rng),
        shots=(picture(1), picture(4)),
        no_label_zones=(np.array([[0.0, 0], [10, 0], [10, 5], [2, 8]]),),
    )
