"""Writes files of serialized `Objects`: predictions and labels."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from datasets.waymo.frame import FrameLabels
from datasets.waymo.protos import message_class
from detector.errors import InputError
from detector.metrics.waymo import WaymoPredictions


def write_objects(
    path: Path | str, frames: Iterable[tuple[str, int, WaymoPredictions | FrameLabels]]
) -> None:
    """Writes one file, frame by frame, in one step: all frames, or what was there before.

    Args:
        frames: each frame's segment, time (microseconds) and objects.

    Raises:
        InputError: the file can't be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            # Messages written one after another are one message with the objects of all.
            for segment, time_us, found in frames:
                file.write(_message(segment, time_us, found).SerializeToString())
        partial.replace(path)
    except OSError as error:
        raise InputError(
            f"{path}: can't be written ({error.strerror}); choose a file that you may write to"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def _message(segment: str, time_us: int, found: WaymoPredictions | FrameLabels):
    message = message_class("Objects")()
    for row in range(len(found.boxes)):
        item = message.objects.add(context_name=segment, frame_timestamp_micros=time_us)
        label = item.object
        box = label.box
        (
            box.center_x, box.center_y, box.center_z, box.length, box.width, box.height,
            box.heading,
        ) = found.boxes[row, :7].tolist()  # fmt: skip
        label.type = int(found.types[row])
        if isinstance(found, FrameLabels):
            label.id = found.ids[row]
            label.num_lidar_points_in_box = int(found.point_counts[row])
            if found.difficulties[row]:
                label.detection_difficulty_level = int(found.difficulties[row])
        else:
            item.score = float(found.scores[row])
            if found.in_no_label_zone[row]:
                item.overlap_with_nlz = True
    return message
