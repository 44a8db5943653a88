"""Writes files of Waymo `Objects` for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.waymo.protos import message_class


@dataclass(frozen=True)
class ObjectRow:
    """One object of a file; what a test doesn't name is plain."""

    context: str = "a"
    time: int = 1
    kind: int = 1
    box: Sequence[float] = (10, 2, 3, 4, 2, 1.5, 0.5)
    score: float | None = None
    points: int = 9
    camera: int = 0


def write_objects_file(path: Path, rows: Sequence[ObjectRow], zones: int = 0) -> Path:
    message = message_class("Objects")()
    for row in rows:
        item = message.objects.add(context_name=row.context, frame_timestamp_micros=row.time)
        if row.camera:
            item.camera_name = row.camera
        if row.score is not None:
            item.score = row.score
        item.object.type = row.kind
        item.object.num_lidar_points_in_box = row.points
        box = item.object.box
        box.center_x, box.center_y, box.center_z = row.box[:3]
        box.length, box.width, box.height, box.heading = row.box[3:]
    for _ in range(zones):
        message.no_label_zone_objects.add(context_name="a")
    path.write_bytes(message.SerializeToString())
    return path
