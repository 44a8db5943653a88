"""Format 1: a TFRecord file a segment, a `Frame` message a record."""

from __future__ import annotations

from collections.abc import Collection
from mmap import ACCESS_READ, mmap
from pathlib import Path

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
from datasets.waymo.protos import message_class
from datasets.waymo.range_image import uniform_inclinations
from datasets.waymo.tfrecord import RecordSpan, read_part, read_record, record_spans
from datasets.waymo.wire import WireError, read_matrix, wire_field, wire_fields
from detector.errors import InputError

# The first three fields of a frame - context, time, pose - take a few kB.
HEAD_BYTES = 1 << 14
# Segment, time, pose, labels of objects, no-label zones.
FIELDS_WITHOUT_SENSORS = (1, 2, 3, 6, 7)


class SegmentV1:
    """One file of format 1.

    Args:
        path: the TFRecord file.
        table: what it holds, where that is known; otherwise headers and heads are read.

    Raises:
        InputError: the file is damaged, empty, holds frames of two segments or one twice.
    """

    def __init__(self, path: Path | str, table: FrameTable | None = None):
        self.path = Path(path)
        self.table = _read_table(self.path) if table is None else table

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
            InputError: the record is damaged.
        """
        row = self.table.row(time_us)
        span = RecordSpan(int(self.table.starts[row]), int(self.table.lengths[row]))
        frame_class = message_class("Frame")
        from google.protobuf.message import DecodeError

        try:
            whole = bool(lasers) or images
            content = read_record(self.path, span) if whole else self._without_sensors(span)
            message = frame_class.FromString(content)
            return WaymoFrame(
                segment=message.context.name,
                time_us=message.timestamp_micros,
                world_from_vehicle=_transform(message.pose, "the vehicle's pose"),
                lasers=_scans(message, lasers, echoes, projections),
                labels=_labels(message) if labels else FrameLabels.empty(),
                shots=_shots(message) if images else (),
                no_label_zones=tuple(
                    np.stack([np.array(zone.x), np.array(zone.y)], 1)
                    for zone in message.no_label_zones
                    if len(zone.x) == len(zone.y) >= 3
                ),
            )
        except (DecodeError, UnicodeDecodeError, WireError) as error:
            raise InputError(
                f"{self.path}: frame {time_us} can't be decoded: {error}; download or write the "
                f"file again"
            ) from error

    def _without_sensors(self, span: RecordSpan) -> bytes:
        """A frame's message without pictures and range images, which make up most of it and stay
        on the disk; its checksum isn't verified."""
        try:
            with self.path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as whole:
                if span.start + span.length > len(whole):
                    raise WireError("the file is shorter than it was")
                fields = wire_fields(
                    whole, span.start, span.start + span.length, wanted=FIELDS_WITHOUT_SENSORS
                )
                return b"".join(wire_field(number, value) for number, value in fields)
        except OSError as error:
            raise WireError(error.strerror) from error


def _read_table(path: Path) -> FrameTable:
    segment = ""
    times: list[int] = []
    poses, spans = [], record_spans(path)
    for number, span in enumerate(spans):
        name, time_us, pose = _read_head(path, span, number)
        if segment and name != segment:
            raise InputError(
                f"{path}: record {number} is of segment {name}, those before of {segment}; keep "
                f"one segment a file"
            )
        segment = name
        times.append(time_us)
        poses.append(pose)
    if not times:
        raise InputError(f"{path}: holds no frame; download or write it again")
    if len(set(times)) != len(times):
        raise InputError(f"{path}: holds a frame twice; download or write it again")
    return FrameTable.of_frames(
        segment, times, poses, [s.start for s in spans], [s.length for s in spans]
    )


def _read_head(path: Path, span: RecordSpan, number: int) -> tuple[str, int, np.ndarray]:
    """A frame's segment, time and pose, from the first bytes of its record where that will do."""
    found = _head(read_part(path, span.start, min(HEAD_BYTES, span.length)))
    if len(found) < 3 and span.length > HEAD_BYTES:
        found = _head(read_part(path, span.start, span.length))
    context_class, transform_class = message_class("Context"), message_class("Transform")
    from google.protobuf.message import DecodeError

    try:
        if len(found) < 3:
            raise WireError("segment, time or pose is missing")
        name = context_class.FromString(found[1]).name
        pose = _transform(transform_class.FromString(found[3]), "its pose")
    except (DecodeError, UnicodeDecodeError, WireError) as error:
        raise InputError(
            f"{path}: record {number} is no frame of the Waymo Open Dataset ({error}); is it a "
            f"file of the perception data set, whole and undamaged?"
        ) from error
    return name, found[2], pose


def _head(content: bytes) -> dict[int, int | bytes]:
    """Fields 1 (segment), 2 (time) and 3 (pose), as far as `content` holds them."""
    found: dict[int, int | bytes] = {}
    kinds = {1: bytes, 2: int, 3: bytes}
    try:
        for number, value in wire_fields(content):
            if number in kinds and isinstance(value, kinds[number]):
                found[number] = value
            if len(found) == len(kinds):
                break
    except WireError:
        pass  # cut off where it was read, or damaged: the caller sees what is missing
    return found


def _transform(message, what: str) -> Float64[np.ndarray, "4 4"]:
    values = np.array(message.transform, np.float64)
    if values.shape != (16,) or not np.isfinite(values).all():
        raise WireError(f"{what} isn't 16 finite numbers but {values.tolist()}")
    return values.reshape(4, 4)


def _scans(
    message, lasers: Collection[int], echoes: int, projections: bool
) -> tuple[LaserScan, ...]:
    calibrations = {c.name: c for c in message.context.laser_calibrations}
    scans = []
    for laser in sorted(message.lasers, key=lambda laser: laser.name):
        images = [laser.ri_return1, laser.ri_return2][:echoes]
        if laser.name not in lasers or not images[0].range_image_compressed:
            continue
        if laser.name not in calibrations:
            raise WireError(f"laser {laser.name} has no calibration")
        images = [image for image in images if image.range_image_compressed]
        returns = tuple(read_matrix(i.range_image_compressed, np.float32) for i in images)
        pose = images[0].range_image_pose_compressed
        scans.append(
            LaserScan(
                laser=laser.name,
                vehicle_from_laser=_transform(
                    calibrations[laser.name].extrinsic, f"the mounting of laser {laser.name}"
                ),
                inclinations=_inclinations(calibrations[laser.name], len(returns[0])),
                returns=returns,
                pixel_poses=read_matrix(pose, np.float32) if pose else None,
                projections=tuple(
                    read_matrix(i.camera_projection_compressed, np.int32) for i in images
                )
                if projections and all(i.camera_projection_compressed for i in images)
                else (),
            )
        )
    return tuple(scans)


def _inclinations(calibration, rows: int) -> Float64[np.ndarray, " H"]:
    if len(calibration.beam_inclinations):
        return np.array(calibration.beam_inclinations, np.float64)[::-1].copy()
    return uniform_inclinations(
        calibration.beam_inclination_min, calibration.beam_inclination_max, rows
    ).copy()


def _labels(message) -> FrameLabels:
    rows, numbers, ids = [], [], []
    for label in message.laser_labels:
        box, motion = label.box, label.metadata
        if not label.HasField("box"):
            continue
        speed = (np.nan,) * 3
        if motion.HasField("speed_x") and motion.HasField("speed_y"):
            speed = (motion.speed_x, motion.speed_y, motion.speed_z)
        rows.append(
            (box.center_x, box.center_y, box.center_z, box.length, box.width, box.height,
             box.heading, *speed)
        )  # fmt: skip
        numbers.append(
            (label.type, label.detection_difficulty_level, label.num_lidar_points_in_box)
        )
        ids.append(label.id)
    row = np.array(rows, np.float64).reshape(-1, 10)
    number = np.array(numbers, np.int64).reshape(-1, 3)
    if not np.isfinite(row[:, :7]).all():
        raise WireError("a label's box isn't finite")
    return FrameLabels(row[:, :7], row[:, 7:], *number.T, tuple(ids))


def _shots(message) -> tuple[CameraShot, ...]:
    calibrations = {c.name: c for c in message.context.camera_calibrations}
    shots = []
    for image in sorted(message.images, key=lambda image: image.name):
        if image.name not in calibrations:
            raise WireError(f"camera {image.name} has no calibration")
        calibration = calibrations[image.name]
        intrinsics = np.array(calibration.intrinsic, np.float64)
        if intrinsics.shape != (9,):
            raise WireError(f"camera {image.name} has {len(intrinsics)} intrinsics instead of 9")
        shots.append(
            CameraShot(
                camera=image.name,
                jpeg=image.image,
                vehicle_from_camera=_transform(
                    calibration.extrinsic, f"the mounting of camera {image.name}"
                ),
                intrinsics=intrinsics,
                size=(calibration.width, calibration.height),
            )
        )
    return tuple(shots)
