"""KITTI's calibration files: where camera 2 is relative to the scanner, and how it projects."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float

from datasets.text_files import finite_numbers, read_text, write_text
from detector.errors import InputError


@dataclass(frozen=True)
class KittiCalibration:
    """Where camera 2 is relative to the scanner, and how it projects; all in float64.

    The camera frame is the rectified frame of camera 0 (x right, y down, z forward), in which
    labels are given. The ego frame is the Velodyne's (x forward, y left, z up).
    """

    projection: Float[np.ndarray, "3 4"]
    """P2: homogeneous camera coordinates -> pixels of the left colour image, times depth."""
    rectification: Float[np.ndarray, "3 3"]
    """R0_rect: turns the unrectified frame of camera 0 into the rectified one."""
    camera_from_velodyne: Float[np.ndarray, "3 4"]
    """Tr_velo_to_cam: Velodyne frame -> unrectified frame of camera 0."""

    @cached_property
    def camera_from_ego(self) -> Float[np.ndarray, "4 4"]:
        rectify, transform = np.eye(4), np.eye(4)
        rectify[:3, :3] = self.rectification
        transform[:3] = self.camera_from_velodyne
        return rectify @ transform

    @cached_property
    def ego_from_camera(self) -> Float[np.ndarray, "4 4"]:
        # A true inverse: the printed rotations are orthonormal to 7 digits only.
        return np.linalg.inv(self.camera_from_ego)

    @property
    def typical_image_size(self) -> tuple[int, int]:
        """(width, height) of the pictures of KITTI's recording with this focal length, for scans
        that come without pictures; 1242 x 375 for a focal length that is none of KITTI's."""
        focal_length = self.projection[0, 0]
        nearest = min(_IMAGE_SIZES, key=lambda known: abs(known - focal_length))
        return _IMAGE_SIZES[nearest if abs(nearest - focal_length) < 0.01 else _MOST_COMMON]

    def camera_points(self, ego_points: Float[np.ndarray, "P 3+"]) -> Float[np.ndarray, "P 3"]:
        """x, y, z of ego points in the camera frame, float64."""
        rotation, translation = self.camera_from_ego[:3, :3], self.camera_from_ego[:3, 3]
        return ego_points[:, :3].astype(np.float64) @ rotation.T + translation

    def pixels(
        self, camera_points: Float[np.ndarray, "P 3"]
    ) -> tuple[Float[np.ndarray, "P 2"], Float[np.ndarray, " P"]]:
        """Pixel (u, v) and depth of points in the camera frame; (u, v) only means something where
        the depth is positive."""
        projected = camera_points @ self.projection[:, :3].T + self.projection[:, 3]
        depth = projected[:, 2]
        safe = np.where(np.abs(depth) > 1e-9, depth, 1e-9)
        return projected[:, :2] / safe[:, None], depth


# Focal length in pixels -> picture size of KITTI's five recording days. Widths and heights agree
# with the largest 2D boxes among the 7481 training labels.
_IMAGE_SIZES = {
    721.5377: (1242, 375),
    707.0493: (1224, 370),
    718.3351: (1238, 374),
    718.856: (1241, 376),
    707.0912: (1226, 370),
}
_MOST_COMMON = 721.5377

# The object benchmark's names first, then those of the tracking benchmark.
_CALIBRATION_KEYS = {
    "P2": (("P2",), (3, 4)),
    "R0_rect": (("R0_rect", "R_rect"), (3, 3)),
    "Tr_velo_to_cam": (("Tr_velo_to_cam", "Tr_velo_cam"), (3, 4)),
}


def read_calibration(path: str | Path) -> KittiCalibration:
    """P2, R0_rect and Tr_velo_to_cam of a `calib` file; other lines are not looked at.

    Raises:
        InputError: no such file, a missing line, a wrong number of values, a value that is no
            finite number, a rotation that is none, or a focal length that is not positive.
    """
    path = Path(path)
    lines: dict[str, tuple[int, list[str]]] = {}
    for number, line in enumerate(read_text(path, "calibration file").splitlines(), 1):
        words = line.split()
        if words:
            lines[words[0].rstrip(":")] = (number, words[1:])
    matrices = []
    for name, (aliases, shape) in _CALIBRATION_KEYS.items():
        key = next((alias for alias in aliases if alias in lines), None)
        if key is None:
            raise InputError(
                f"{path}: the line '{name}:' is missing; copy the calibration file anew"
            )
        number, words = lines[key]
        if len(words) != shape[0] * shape[1]:
            raise InputError(
                f"{path}:{number}: {key} has {len(words)} values, not {shape[0] * shape[1]}; "
                f"copy the calibration file anew"
            )
        values = finite_numbers(words, f"{path}:{number}", [key] * len(words))
        matrices.append(np.array(values).reshape(shape))
    calibration = KittiCalibration(*matrices)
    for name, rotation in (
        ("R0_rect", calibration.rectification),
        ("Tr_velo_to_cam", calibration.camera_from_velodyne[:, :3]),
    ):
        if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
            raise InputError(
                f"{path}: {name} holds no rotation (its rows are not perpendicular unit vectors); "
                f"copy the calibration file anew"
            )
    if not (calibration.projection[0, 0] > 0 and calibration.projection[1, 1] > 0):
        raise InputError(
            f"{path}: P2 has focal lengths {calibration.projection[0, 0]} and "
            f"{calibration.projection[1, 1]}, which must be positive; copy the file anew"
        )
    return calibration


def write_calibration(path: str | Path, calibration: KittiCalibration) -> None:
    """A `calib` file with all of KITTI's lines; P0 to P3 are all the projection of camera 2, and
    the inertial unit coincides with the scanner.

    Raises:
        InputError: the file can't be written.
    """
    matrices = {f"P{i}": calibration.projection for i in range(4)}
    matrices["R0_rect"] = calibration.rectification
    matrices["Tr_velo_to_cam"] = calibration.camera_from_velodyne
    matrices["Tr_imu_to_velo"] = np.eye(4)[:3]
    lines = [
        f"{name}: " + " ".join(f"{value:.12e}" for value in np.ravel(matrix)) + "\n"
        for name, matrix in matrices.items()
    ]
    write_text(Path(path), "".join(lines))
