"""Files of serialized `Objects`: what the official metric and the leaderboard read."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int8, Int32

from datasets.waymo.protos import message_class
from datasets.waymo.wire import LENGTH, WireError, read_varint
from detector.errors import InputError
from detector.metrics.waymo import WaymoPredictions, WaymoTruth

# Bytes handed to protobuf at once; an object takes 100 to 200.
PIECE_BYTES = 4 << 20


@dataclass(frozen=True)
class ObjectTable:
    """All objects of a file, one row each, in the file's order."""

    frames: tuple[tuple[str, int], ...]
    """Each frame's name and time (microseconds): `frame` is an index into it. The name is the
    segment's with the camera's number behind, as the official tool tells frames apart."""
    frame: Int32[np.ndarray, " N"]
    boxes: Float64[np.ndarray, "N 7"]
    """As in `detector.geometry`, vehicle frame."""
    types: Int8[np.ndarray, " N"]
    """As in `detector.metrics.waymo.OBJECT_TYPES`."""
    scores: Float32[np.ndarray, " N"]
    in_no_label_zone: Bool[np.ndarray, " N"]
    difficulties: Int8[np.ndarray, " N"]
    """1 or 2, 0 where it isn't given."""
    point_counts: Int32[np.ndarray, " N"]
    """LiDAR points in the box, 0 where it isn't given."""


def read_objects(path: Path | str) -> ObjectTable:
    """Reads a file of one serialized `Objects` message, piece by piece.

    Raises:
        InputError: the file is missing or isn't such a message, or a number isn't finite.
    """
    path = Path(path)
    objects_class = message_class("Objects")
    from google.protobuf.message import DecodeError

    frames: dict[tuple[str, int], int] = {}
    numbers, integers = [np.empty((0, 8))], [np.empty((0, 5), np.int64)]
    try:
        for piece in _pieces(path):
            rows = [_row(item, frames) for item in objects_class.FromString(piece).objects]
            if rows:
                numbers.append(np.array([row[0] for row in rows]))
                integers.append(np.array([row[1] for row in rows], np.int64))
    except (DecodeError, UnicodeDecodeError, WireError) as error:
        raise InputError(
            f"{path}: not a serialized waymo.open_dataset.Objects message ({error}); give a .bin "
            f"file as the official tools write it"
        ) from error
    number, integer = np.concatenate(numbers), np.concatenate(integers)
    bad = ~np.isfinite(number).all(1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"{path}: object {row} has a box or score that isn't finite, {number[row].tolist()}; "
            f"leave such objects out"
        )
    return ObjectTable(
        frames=tuple(frames),
        frame=integer[:, 0].astype(np.int32),
        boxes=np.ascontiguousarray(number[:, :7]),
        types=integer[:, 1].astype(np.int8),
        scores=number[:, 7].astype(np.float32),
        in_no_label_zone=integer[:, 2].astype(bool),
        difficulties=integer[:, 3].astype(np.int8),
        point_counts=integer[:, 4].astype(np.int32),
    )


def _row(item, frames: dict[tuple[str, int], int]) -> tuple[tuple, tuple]:
    label = item.object
    box = label.box
    key = (f"{item.context_name}_{item.camera_name}", item.frame_timestamp_micros)
    numbers = (
        box.center_x, box.center_y, box.center_z, box.length, box.width, box.height, box.heading,
        item.score,
    )  # fmt: skip
    kind = label.type if 0 <= label.type <= 4 else 0
    return numbers, (
        frames.setdefault(key, len(frames)), kind, item.overlap_with_nlz,
        label.detection_difficulty_level, label.num_lidar_points_in_box,
    )  # fmt: skip


def _pieces(path: Path) -> Iterator[bytes]:
    """The file cut between objects into pieces that are messages themselves."""
    try:
        size = path.stat().st_size
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); check the path") from error
    with file:
        if size == 0:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            start = place = 0
            while place < size:
                place = _after_field(content, place)
                if place - start >= PIECE_BYTES:
                    yield content[start:place]
                    start = place
            yield content[start:place]


def _after_field(content: mmap.mmap, place: int) -> int:
    """Where the field that starts at `place` ends."""
    tag, after = read_varint(content, place)
    if tag >> 3 not in (1, 2) or tag & 7 != LENGTH:
        raise WireError(f"field {tag >> 3} of wire type {tag & 7} at byte {place}")
    length, after = read_varint(content, after)
    if after + length > len(content):
        raise WireError(f"cut short in the object at byte {place}")
    return after + length


def paired_frames(
    truth: ObjectTable, predictions: ObjectTable
) -> Iterator[tuple[WaymoTruth, WaymoPredictions]]:
    """The frames of both tables in the order in which the official tool adds them up."""
    truth_rows, prediction_rows = _rows_by_frame(truth), _rows_by_frame(predictions)
    nothing = np.empty(0, np.int64)
    for key in sorted({*truth_rows, *prediction_rows}):
        rows, found = truth_rows.get(key, nothing), prediction_rows.get(key, nothing)
        yield (
            WaymoTruth.from_labels(
                truth.boxes[rows], truth.types[rows], truth.difficulties[rows],
                truth.point_counts[rows],
            ),
            WaymoPredictions(
                predictions.boxes[found], predictions.types[found], predictions.scores[found],
                predictions.in_no_label_zone[found],
            ),
        )  # fmt: skip


def _rows_by_frame(table: ObjectTable) -> dict[tuple[str, int], np.ndarray]:
    order = np.argsort(table.frame, kind="stable")
    edges = np.searchsorted(table.frame[order], np.arange(len(table.frames) + 1))
    return {
        key: order[edges[index] : edges[index + 1]] for index, key in enumerate(table.frames)
    }
