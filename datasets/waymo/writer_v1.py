"""Writes frames in format 1: a TFRecord file a segment."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from datasets.waymo.frame import FrameLabels, LaserScan, WaymoFrame
from datasets.waymo.protos import message_class
from datasets.waymo.tfrecord import write_records
from datasets.waymo.wire import varint

COMPRESSION_LEVEL = 1


def v1_path(folder: Path | str, segment: str) -> Path:
    """Where the data set's own naming puts a segment of format 1."""
    return Path(folder) / f"segment-{segment}_with_camera_labels.tfrecord"


def write_v1(folder: Path | str, segment: str, frames: Iterable[WaymoFrame]) -> Path:
    """Writes one segment as a TFRecord file and returns its path.

    Raises:
        InputError: the file can't be written.
    """
    path = v1_path(folder, segment)
    write_records(path, (frame_message(frame).SerializeToString() for frame in frames))
    return path


def frame_message(frame: WaymoFrame):
    """The `Frame` message of one frame."""
    message = message_class("Frame")(timestamp_micros=frame.time_us)
    message.context.name = frame.segment
    message.pose.transform.extend(frame.world_from_vehicle.ravel().tolist())
    for scan in frame.lasers:
        calibration = message.context.laser_calibrations.add(name=scan.laser)
        calibration.extrinsic.transform.extend(scan.vehicle_from_laser.ravel().tolist())
        calibration.beam_inclinations.extend(scan.inclinations[::-1].tolist())
        calibration.beam_inclination_min = float(scan.inclinations[-1])
        calibration.beam_inclination_max = float(scan.inclinations[0])
        _fill_laser(message.lasers.add(name=scan.laser), scan)
    for shot in frame.shots:
        calibration = message.context.camera_calibrations.add(
            name=shot.camera, width=shot.size[0], height=shot.size[1]
        )
        calibration.intrinsic.extend(shot.intrinsics.tolist())
        calibration.extrinsic.transform.extend(shot.vehicle_from_camera.ravel().tolist())
        image = message.images.add(name=shot.camera, image=shot.jpeg)
        image.pose.transform.extend(frame.world_from_vehicle.ravel().tolist())
        image.pose_timestamp = frame.time_us * 1e-6
    _fill_labels(message, frame.labels)
    for number, zone in enumerate(frame.no_label_zones):
        message.no_label_zones.add(
            x=zone[:, 0].tolist(), y=zone[:, 1].tolist(), id=f"{frame.segment}_{number}"
        )
    return message


def _fill_laser(laser, scan: LaserScan) -> None:
    targets = (laser.ri_return1, laser.ri_return2)
    for number, (target, image) in enumerate(zip(targets, scan.returns, strict=False)):
        target.range_image_compressed = _matrix(image, "MatrixFloat")
        if number == 0 and scan.pixel_poses is not None:
            target.range_image_pose_compressed = _matrix(scan.pixel_poses, "MatrixFloat")
        if scan.projections:
            target.camera_projection_compressed = _matrix(
                scan.projections[number], "MatrixInt32"
            )


def _matrix(image: np.ndarray, kind: str) -> bytes:
    message = message_class(kind)()
    message.shape.dims.extend(image.shape)
    if kind == "MatrixFloat":
        # The numbers as they lie in memory are field 1, packed; a message of them one by one
        # would take seconds a frame.
        numbers = image.astype("<f4").tobytes()
        content = b"\x0a" + varint(len(numbers)) + numbers + message.SerializeToString()
    else:
        message.data.extend(image.ravel().tolist())
        content = message.SerializeToString()
    return zlib.compress(content, COMPRESSION_LEVEL)


def _fill_labels(message, labels: FrameLabels) -> None:
    for row in range(len(labels)):
        label = message.laser_labels.add(id=labels.ids[row], type=int(labels.types[row]))
        box = label.box
        (
            box.center_x, box.center_y, box.center_z, box.length, box.width, box.height,
            box.heading,
        ) = labels.boxes[row].tolist()  # fmt: skip
        if np.isfinite(labels.velocities[row]).all():
            speed = labels.velocities[row].tolist()
            label.metadata.speed_x, label.metadata.speed_y, label.metadata.speed_z = speed
        if labels.difficulties[row]:
            label.detection_difficulty_level = int(labels.difficulties[row])
        label.num_lidar_points_in_box = int(labels.point_counts[row])
