"""Range images to points in the vehicle frame.

Geometry as in `utils/range_image_utils.py` and `utils/frame_utils.py` of waymo-open-dataset
(99a4cb3), in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int8, Int32
from numba import njit

from datasets.waymo.frame import ALL_LASERS, TOP, LaserScan, WaymoFrame
from detector.errors import InputError
from detector.geometry import inverse_rigid
from detector.ops.threads import in_threads

# Rough cost of one pixel in units of 10 ns, see `in_threads`.
PIXEL_COST = 10


@dataclass(frozen=True)
class FramePoints:
    """The points of a frame with all that is known of each: lasers by number, of each laser the
    first and then the second return, of each return row by row."""

    xyz: Float32[np.ndarray, "P 3"]
    """Vehicle frame at the frame's pose, metres."""
    intensity: Float32[np.ndarray, " P"]
    """As measured: mostly below 1, of retroreflectors up to tens of thousands."""
    elongation: Float32[np.ndarray, " P"]
    """How much longer than emitted the pulse was."""
    in_no_label_zone: Bool[np.ndarray, " P"]
    laser: Int8[np.ndarray, " P"]
    """Index into `datasets.waymo.frame.LASERS`."""
    echo: Int8[np.ndarray, " P"]
    """1 or 2: which return of its pulse."""
    projection: Int32[np.ndarray, "P 6"] | None
    """Camera (0: none), column and row of up to two pictures; None where they weren't read."""


def uniform_inclinations(lowest: float, highest: float, rows: int) -> Float64[np.ndarray, " H"]:
    """Centres of equal steps from `lowest` to `highest`, falling."""
    return ((np.arange(rows) + 0.5) / rows * (highest - lowest) + lowest)[::-1]


def column_azimuths(columns: int, vehicle_from_laser: Float64[np.ndarray, "4 4"]) -> np.ndarray:
    """(W,) angle of each column in the laser's frame; columns follow the vehicle's directions."""
    turn = math.atan2(vehicle_from_laser[1, 0], vehicle_from_laser[0, 0])
    return ((columns - np.arange(columns) - 0.5) / columns * 2 - 1) * math.pi - turn


def frame_points(
    frame: WaymoFrame, *, echoes: Sequence[int] = (1, 2), lasers: Sequence[int] = ALL_LASERS
) -> FramePoints:
    """All points of the chosen lasers and returns.

    Raises:
        InputError: images that don't fit together, or values that aren't finite.
    """
    parts = []
    for scan in sorted(frame.lasers, key=lambda scan: scan.laser):
        if scan.laser in lasers:
            for echo in echoes:
                if echo <= len(scan.returns):
                    parts.append(_return_points(frame, scan, echo))
    with_projection = bool(parts) and all(part.projection is not None for part in parts)
    return FramePoints(
        xyz=_joined([p.xyz for p in parts], (0, 3), np.float32),
        intensity=_joined([p.intensity for p in parts], 0, np.float32),
        elongation=_joined([p.elongation for p in parts], 0, np.float32),
        in_no_label_zone=_joined([p.in_no_label_zone for p in parts], 0, np.bool_),
        laser=_joined([p.laser for p in parts], 0, np.int8),
        echo=_joined([p.echo for p in parts], 0, np.int8),
        projection=np.concatenate([p.projection for p in parts]) if with_projection else None,
    )


def _joined(parts: list[np.ndarray], empty_shape: int | tuple, dtype: type) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(empty_shape, dtype)


def _return_points(frame: WaymoFrame, scan: LaserScan, echo: int) -> FramePoints:
    image = scan.returns[echo - 1]
    _check(frame, scan, image)
    row, column = np.nonzero(image[..., 0] > 0)
    measured = image[row, column]
    xyz = np.empty((len(row), 3), np.float32)
    poses = np.zeros((0, 0, 6), np.float32)
    if scan.laser == TOP and scan.pixel_poses is not None:
        poses = scan.pixel_poses
    in_threads(
        _place_points, len(row), row, column, np.ascontiguousarray(measured[:, 0]),
        scan.inclinations, column_azimuths(image.shape[1], scan.vehicle_from_laser),
        scan.vehicle_from_laser, poses, inverse_rigid(frame.world_from_vehicle), xyz,
        work_per_item=PIXEL_COST,
    )  # fmt: skip
    if not (np.isfinite(xyz).all() and np.isfinite(measured).all()):
        raise _wrong(frame, scan, "holds numbers that aren't finite")
    return FramePoints(
        xyz=xyz,
        intensity=measured[:, 1],
        elongation=measured[:, 2],
        in_no_label_zone=measured[:, 3] > 0,
        laser=np.full(len(row), scan.laser, np.int8),
        echo=np.full(len(row), echo, np.int8),
        projection=scan.projections[echo - 1][row, column] if scan.projections else None,
    )


def _check(frame: WaymoFrame, scan: LaserScan, image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] < 4:
        raise _wrong(frame, scan, f"has shape {image.shape} instead of rows, columns, 4")
    if len(scan.inclinations) != len(image):
        raise _wrong(
            frame, scan, f"has {len(image)} rows but {len(scan.inclinations)} beam inclinations"
        )
    if scan.pixel_poses is not None and scan.pixel_poses.shape != (*image.shape[:2], 6):
        raise _wrong(
            frame, scan, f"has shape {image.shape}, its poses have {scan.pixel_poses.shape}"
        )
    for projection in scan.projections:
        if projection.shape != (*image.shape[:2], 6):
            raise _wrong(
                frame, scan, f"has shape {image.shape}, its projections {projection.shape}"
            )


def _wrong(frame: WaymoFrame, scan: LaserScan, what: str) -> InputError:
    return InputError(
        f"segment {frame.segment}, frame {frame.time_us}: the range image of laser {scan.laser} "
        f"{what}; the file is damaged: download or write it again"
    )


@njit(cache=True, nogil=True)
def _place_points(
    start, stop, rows, columns, ranges, inclinations, azimuths, vehicle_from_laser, poses,
    vehicle_from_world, xyz,
):  # fmt: skip
    for point in range(start, stop):
        row, column, distance = rows[point], columns[point], ranges[point]
        flat = math.cos(inclinations[row]) * distance
        x, y, z = _moved(
            vehicle_from_laser, flat * math.cos(azimuths[column]),
            flat * math.sin(azimuths[column]), math.sin(inclinations[row]) * distance,
        )  # fmt: skip
        if poses.size:
            # The vehicle as it was at this pixel, over the world, to the frame's pose.
            roll, pitch, yaw = poses[row, column, 0], poses[row, column, 1], poses[row, column, 2]
            x, y, z = _turned(float(roll), float(pitch), float(yaw), x, y, z)
            x += poses[row, column, 3]
            y += poses[row, column, 4]
            z += poses[row, column, 5]
            x, y, z = _moved(vehicle_from_world, x, y, z)
        xyz[point, 0], xyz[point, 1], xyz[point, 2] = x, y, z


@njit(cache=True, nogil=True)
def _moved(transform, x, y, z):
    return (
        transform[0, 0] * x + transform[0, 1] * y + transform[0, 2] * z + transform[0, 3],
        transform[1, 0] * x + transform[1, 1] * y + transform[1, 2] * z + transform[1, 3],
        transform[2, 0] * x + transform[2, 1] * y + transform[2, 2] * z + transform[2, 3],
    )


@njit(cache=True, nogil=True)
def _turned(roll, pitch, yaw, x, y, z):
    """About x by roll, then about y by pitch, then about z by yaw."""
    y, z = math.cos(roll) * y - math.sin(roll) * z, math.sin(roll) * y + math.cos(roll) * z
    x, z = math.cos(pitch) * x + math.sin(pitch) * z, math.cos(pitch) * z - math.sin(pitch) * x
    return math.cos(yaw) * x - math.sin(yaw) * y, math.sin(yaw) * x + math.cos(yaw) * y, z
