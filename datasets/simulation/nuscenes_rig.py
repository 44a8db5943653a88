"""Where the sensors sit on nuScenes' cars, about; ego frame on the ground, x forward, y left.

Source of the layout: https://www.nuscenes.org/nuscenes#data-collection, "Car setup".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.simulation.meshes import pose

FULL_SIZE = (1600, 900)
# Camera axes in a frame that looks along x: x right, y down, z forward.
_FORWARD_FROM_CAMERA = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])


@dataclass(frozen=True)
class Mount:
    """One sensor."""

    modality: str
    """lidar, radar or camera."""
    ego_from_sensor: np.ndarray
    """(4, 4)."""
    focal_px: float = 0.0
    """Of a camera with pictures of `FULL_SIZE`."""

    def intrinsics(self, size: tuple[int, int]) -> np.ndarray:
        """(3, 3) of a picture of another size; the middle of the picture is its principal point."""
        focal = self.focal_px * size[0] / FULL_SIZE[0]
        return np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1.0]])


def _radar(x, y, z, yaw_deg) -> Mount:
    return Mount("radar", pose(x, y, z, np.radians(yaw_deg)))


def _camera(x, y, yaw_deg, focal_px=1260.0) -> Mount:
    placed = pose(x, y, 1.51, np.radians(yaw_deg)) @ _FORWARD_FROM_CAMERA
    return Mount("camera", placed, focal_px)


MOUNTS = {
    # The scanner's x points to the right, its y forward.
    "LIDAR_TOP": Mount("lidar", pose(0.94, 0.0, 1.84, -np.pi / 2)),
    "RADAR_FRONT": _radar(3.41, 0.0, 0.5, 0),
    "RADAR_FRONT_LEFT": _radar(2.42, 0.8, 0.78, 90),
    "RADAR_FRONT_RIGHT": _radar(2.42, -0.8, 0.77, -90),
    "RADAR_BACK_LEFT": _radar(-0.56, 0.63, 0.53, 176),
    "RADAR_BACK_RIGHT": _radar(-0.56, -0.62, 0.53, -176),
    "CAM_FRONT": _camera(1.70, 0.0, 0),
    "CAM_FRONT_RIGHT": _camera(1.55, -0.49, -55),
    "CAM_BACK_RIGHT": _camera(1.01, -0.48, -110),
    "CAM_BACK": _camera(0.03, 0.0, 180, 809.0),
    "CAM_BACK_LEFT": _camera(1.03, 0.48, 110),
    "CAM_FRONT_LEFT": _camera(1.52, 0.49, 55),
}
