"""A vehicle with five lasers and five cameras like those of the Waymo Open Dataset.

Places and angles as its frames give them for one of the vehicles; ranges, fields of view and image
sizes as in Sun et al., "Scalability in perception for autonomous driving", CVPR 2020.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64

from datasets.simulation.lidar import LIDARS, LidarModel
from datasets.simulation.meshes import pose
from datasets.waymo.frame import CAMERAS, LASERS
from datasets.waymo.range_image import column_azimuths, uniform_inclinations

PICTURE_SCALE = 4
"""Pictures are this much smaller than the data set's 1920 x 1280 and 1920 x 886."""


@dataclass(frozen=True)
class RigLaser:
    """One of the five lasers."""

    laser: int
    """Index into `LASERS`."""
    model: LidarModel
    vehicle_from_laser: Float64[np.ndarray, "4 4"]
    half_view: float
    """It sees this far to either side of its x axis, radians."""

    @property
    def inclinations(self) -> Float64[np.ndarray, " H"]:
        """Angle of each row above its horizon, falling."""
        return np.radians(self.model.elevations_deg)

    @cached_property
    def directions(self) -> Float64[np.ndarray, "H W 3"]:
        """Where each pixel looks, unit vectors in the vehicle frame."""
        azimuths = column_azimuths(self.model.columns, self.vehicle_from_laser)
        beams = self.inclinations[:, None]
        local = np.stack(
            [np.cos(beams) * np.cos(azimuths), np.cos(beams) * np.sin(azimuths),
             np.broadcast_to(np.sin(beams), (len(beams), len(azimuths)))], -1,
        )  # fmt: skip
        return local @ self.vehicle_from_laser[:3, :3].T

    @property
    def in_view(self) -> Bool[np.ndarray, " W"]:
        """Which columns it measures."""
        azimuths = column_azimuths(self.model.columns, self.vehicle_from_laser)
        return np.abs((azimuths + np.pi) % (2 * np.pi) - np.pi) <= self.half_view


@dataclass(frozen=True)
class RigCamera:
    """One of the five cameras, without distortion."""

    camera: int
    """Index into `CAMERAS`."""
    vehicle_from_camera: Float64[np.ndarray, "4 4"]
    """Its frame has x ahead, y left, z up."""
    focal_px: float
    center_px: tuple[float, float]
    size: tuple[int, int]


def lasers(columns: int | None = None) -> tuple[RigLaser, ...]:
    """The five lasers, by number: the long-range one on the roof, four short-range ones around.

    Args:
        columns: of the top laser's image, for a smaller one than the data set's 2650; the others
            shrink along.
    """
    top = LIDARS["waymo"]()
    share = 1.0 if columns is None else columns / top.columns
    top = replace(top, columns=top.columns if columns is None else columns)
    rows, side_columns = max(2, round(200 * share**0.5)), max(4, round(600 * share))
    # Mountings: x, y, z, yaw, pitch, roll.
    mountings = {
        "TOP": (1.43, 0.0, 2.184, 2.582, -0.0016, 0.0063),
        "FRONT": (4.07, 0.0, 0.689, -0.0049, 0.0217, -0.0037),
        "SIDE_LEFT": (3.245, 1.025, 0.979, 1.5493, 0.0230, 0.0054),
        "SIDE_RIGHT": (3.245, -1.025, 0.979, -1.6094, 0.0240, 0.0029),
        "REAR": (-1.155, 0.0, 0.464, 3.1131, 0.0270, 0.0082),
    }
    found = []
    for name, place in mountings.items():
        mounting = pose(*place)
        if name == "TOP":
            found.append(RigLaser(LASERS.index(name), top, mounting, np.pi))
            continue
        inclinations = uniform_inclinations(-np.pi / 2, np.pi / 6, rows)
        near = LidarModel(
            elevations_deg=np.degrees(inclinations), heights_m=np.zeros(rows),
            columns=side_columns, range_noise_m=0.012, maximum_range_m=20.0, minimum_range_m=0.2,
            reach_m=40.0, mounting_height_m=place[2],
        )  # fmt: skip
        found.append(RigLaser(LASERS.index(name), near, mounting, np.pi / 2))
    return tuple(found)


def cameras() -> tuple[RigCamera, ...]:
    """The five cameras, by number, their pictures shrunk by PICTURE_SCALE."""
    places = {
        "FRONT": (1.54, -0.02, 2.115, 0.0, 1280), "FRONT_LEFT": (1.50, 0.10, 2.115, 0.785, 1280),
        "FRONT_RIGHT": (1.50, -0.10, 2.115, -0.785, 1280),
        "SIDE_LEFT": (1.43, 0.11, 2.115, 1.571, 886),
        "SIDE_RIGHT": (1.43, -0.11, 2.115, -1.571, 886),
    }  # fmt: skip
    found = []
    for name, (x, y, z, yaw, height) in places.items():
        size = (1920 // PICTURE_SCALE, height // PICTURE_SCALE)
        # The side cameras' pictures are cut from below: their horizon lies higher.
        horizon = 0.5 if height == 1280 else 0.28
        found.append(
            RigCamera(
                CAMERAS.index(name), pose(x, y, z, yaw), 2055 / PICTURE_SCALE,
                (size[0] / 2, size[1] * horizon), size,
            )  # fmt: skip
        )
    return tuple(found)

