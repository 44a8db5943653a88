"""One frame of the data set as its files hold it, whichever format they have."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Float64, Int, Int32, Int64

LASERS = ("UNKNOWN", "TOP", "FRONT", "SIDE_LEFT", "SIDE_RIGHT", "REAR")
"""Names by number, as in `dataset.proto`."""
CAMERAS = ("UNKNOWN", "FRONT", "FRONT_LEFT", "FRONT_RIGHT", "SIDE_LEFT", "SIDE_RIGHT")
TOP = LASERS.index("TOP")
ALL_LASERS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class LaserScan:
    """What one laser measured, as images: a row is a beam, the highest first; a column is a
    direction, from behind over left, front and right to behind."""

    laser: int
    """Index into LASERS."""
    vehicle_from_laser: Float64[np.ndarray, "4 4"]
    inclinations: Float64[np.ndarray, " H"]
    """Angle of each row above the laser's horizon, radians, falling."""
    returns: tuple[Float32[np.ndarray, "H W 4"], ...]
    """First and second echo: range in metres (not above 0: nothing came back), intensity,
    elongation of the pulse, and 1 in a no-label zone or -1 outside."""
    pixel_poses: Float32[np.ndarray, "H W 6"] | None = None
    """Where the vehicle was at each pixel: roll, pitch, yaw, x, y, z in the world; given for the
    top laser alone, the others' images are already those of the frame's pose."""
    projections: tuple[Int32[np.ndarray, "H W 6"], ...] = ()
    """For each return, the pixels of up to two pictures: camera (0: none), column, row, twice."""


@dataclass(frozen=True)
class FrameLabels:
    """The labelled objects of one frame, in the vehicle frame."""

    boxes: Float64[np.ndarray, "N 7"]
    """As in `detector.geometry`."""
    velocities: Float64[np.ndarray, "N 3"]
    """m/s over ground in the world's axes; NaN where unknown."""
    types: Int[np.ndarray, " N"]
    """As in `detector.metrics.waymo.OBJECT_TYPES`."""
    difficulties: Int[np.ndarray, " N"]
    """1 or 2, 0 where the number of points decides."""
    point_counts: Int[np.ndarray, " N"]
    """LiDAR points in the box."""
    ids: tuple[str, ...]
    """One id an object, the same in all frames of a segment."""

    def __len__(self) -> int:
        return len(self.types)

    @classmethod
    def empty(cls) -> FrameLabels:
        nothing = np.zeros(0, np.int64)
        return cls(np.zeros((0, 7)), np.zeros((0, 3)), nothing, nothing, nothing, ())


@dataclass(frozen=True)
class CameraShot:
    """A picture, still compressed, and the camera that took it."""

    camera: int
    """Index into CAMERAS."""
    jpeg: bytes
    vehicle_from_camera: Float64[np.ndarray, "4 4"]
    """From the camera's frame, which here looks along +x with y left and z up."""
    intrinsics: Float64[np.ndarray, " 9"]
    """Focal lengths f_u, f_v, centre c_u, c_v in pixels, distortion k1, k2, p1, p2, k3."""
    size: tuple[int, int]
    """Width and height, pixels."""


@dataclass(frozen=True)
class WaymoFrame:
    """One frame of a segment (a drive of 20 s, 10 frames a second)."""

    segment: str
    """Name of the segment (`Context.name`)."""
    time_us: int
    """Start of the frame, microseconds; tells the frames of a segment apart."""
    world_from_vehicle: Float64[np.ndarray, "4 4"]
    """The pose that boxes and points are given in."""
    lasers: tuple[LaserScan, ...] = ()
    """By number; a laser without any return is left out."""
    labels: FrameLabels = field(default_factory=FrameLabels.empty)
    shots: tuple[CameraShot, ...] = ()
    no_label_zones: tuple[Float64[np.ndarray, "K 2"], ...] = ()
    """Outlines of areas where nothing was labelled, in the world; format 1 alone has them."""


@dataclass(frozen=True)
class FrameTable:
    """What a segment's file holds, known without reading the frames; sorted by time."""

    segment: str
    times_us: Int64[np.ndarray, " F"]
    world_from_vehicle: Float64[np.ndarray, "F 4 4"]
    starts: Int64[np.ndarray, " F"]
    """Format 1: first byte of each record's content."""
    lengths: Int64[np.ndarray, " F"]
    """Format 1: bytes of content."""

    @classmethod
    def of_frames(
        cls, segment: str, times_us: list[int], poses: list[np.ndarray],
        starts: list[int] | None = None, lengths: list[int] | None = None,
    ) -> FrameTable:  # fmt: skip
        """In any order."""
        order = np.argsort(np.array(times_us, np.int64), kind="stable")
        nothing = [0] * len(times_us)
        columns = (times_us, starts or nothing, lengths or nothing)
        times, starts_, lengths_ = (np.array(c, np.int64)[order] for c in columns)
        stacked = np.stack(poses)[order] if poses else np.zeros((0, 4, 4))
        return cls(segment, times, stacked, starts_, lengths_)

    def row(self, time_us: int) -> int:
        """Where the frame of a time stands.

        Raises:
            KeyError: there is none.
        """
        row = int(np.searchsorted(self.times_us, time_us))
        if row == len(self.times_us) or self.times_us[row] != time_us:
            raise KeyError(f"segment {self.segment} has no frame at {time_us} microseconds")
        return row
