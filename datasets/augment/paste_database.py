"""True objects with their points in one memory-mapped file, for `GroundTruthPaste`.

The file: a magic word; float32 points of all objects, one after another; the arrays that say what
and where the objects are; their table as JSON; a footer that points to it. It is written front to
back in constant memory, and opening it reads the arrays once to check them; points are looked up
where they lie and checked against a checksum each time an object is used.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float, Float32
from numba import njit

from datasets.augment.ground import GroundMap
from detector.errors import InputError
from detector.records import Sample

MAGIC = b"FOCAL3D OBJECTS\n"
FORMAT = 1
_FOOTER = struct.Struct("<QII16s")  # offset, length and crc32 of the table; MAGIC again
_ALIGNMENT = 64
_ARRAYS = {
    "boxes": "<f4",             # (N, 7|9) in the ego frame of its own frame
    "labels": "<i8",            # (N,) index into classes
    "starts": "<i8",            # (N + 1,) object n's points are rows starts[n] to starts[n + 1]
    "checksums": "<u4",         # (N,) crc32 of the bytes of its points
    "above_ground": "<f4",      # (N,) height of the box's lower face over the ground, or NaN
    "frames": "<i4",            # (N,) row of frame_ids
}  # fmt: skip


@dataclass(frozen=True)
class FrameObjects:
    """The objects of one frame."""

    frame_id: str
    point_features: tuple[str, ...]
    boxes: Float32[np.ndarray, "N 7|9"]
    labels: np.ndarray
    points: tuple[Float32[np.ndarray, "P C"], ...]
    """Of each object, relative to its box's centre."""
    above_ground: Float32[np.ndarray, " N"]


def cut_objects(sample: Sample) -> FrameObjects:
    """The boxes of a frame that hold points, with these points; of what moves, points of older
    sweeps where it was then belong to it, too."""
    points = np.ascontiguousarray(sample.points, np.float32)
    boxes = np.ascontiguousarray(sample.boxes, np.float32)
    age_s, velocity = np.zeros(len(points), np.float32), np.zeros((len(boxes), 2), np.float32)
    if "age_s" in sample.point_features and boxes.shape[1] == 9:
        age_s = np.ascontiguousarray(points[:, sample.point_features.index("age_s")])
        velocity = np.nan_to_num(boxes[:, 7:])
    owner, rows = _points_of_boxes(points, age_s, boxes.astype(np.float64), velocity)
    rows = rows[np.argsort(owner, kind="stable")]
    counts = np.bincount(owner, minlength=len(boxes))
    kept, ends = np.flatnonzero(counts), np.cumsum(counts)
    cut = []
    for n in kept:
        own = points[rows[ends[n] - counts[n] : ends[n]]]
        own[:, :3] -= boxes[n, :3]
        cut.append(own)
    above = boxes[kept, 2] - boxes[kept, 5] / 2 - GroundMap(points).heights(boxes[kept])
    return FrameObjects(
        sample.frame_id, sample.point_features, boxes[kept], sample.labels[kept], tuple(cut),
        above.astype(np.float32),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _points_of_boxes(points, age_s, boxes, velocity):
    """Pairs of a box and a point that lies in it, or lies where it was `age_s` ago."""
    box_of = np.empty(len(points), np.int64)
    point_of = np.empty(len(points), np.int64)
    count, boxes_count = 0, len(boxes)
    cos, sin, reach = np.cos(boxes[:, 6]), np.sin(boxes[:, 6]), np.empty(boxes_count)
    for n in range(boxes_count):
        reach[n] = np.hypot(boxes[n, 3], boxes[n, 4]) / 2
    for p in range(len(points)):
        for n in range(boxes_count):
            if abs(points[p, 2] - boxes[n, 2]) > boxes[n, 5] / 2:
                continue
            for then in range(2):
                x = points[p, 0] - boxes[n, 0] + then * age_s[p] * velocity[n, 0]
                y = points[p, 1] - boxes[n, 1] + then * age_s[p] * velocity[n, 1]
                if abs(x) > reach[n] or abs(y) > reach[n]:
                    continue
                along, across = x * cos[n] + y * sin[n], y * cos[n] - x * sin[n]
                if abs(along) <= boxes[n, 3] / 2 and abs(across) <= boxes[n, 4] / 2:
                    if count == len(box_of):            # boxes that overlap
                        box_of = np.concatenate((box_of, np.empty_like(box_of)))
                        point_of = np.concatenate((point_of, np.empty_like(point_of)))
                    box_of[count], point_of[count] = n, p
                    count += 1
                    break
    return box_of[:count], point_of[:count]


class ObjectsOfFrames:
    """A data set's frames as `FrameObjects`, map-style, so that a loader's workers can cut them."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> FrameObjects:
        return cut_objects(self.dataset[index])


def write_paste_database(
    path: str | Path, frames: Iterable[FrameObjects], classes: Sequence[str], source: str
) -> None:
    """Writes the objects of all frames; there is the whole file at the end, or what was there.

    Args:
        path: of the file.
        frames: such as those of `ObjectsOfFrames(dataset)`.
        classes: names of the labels.
        source: what the frames are, for people.

    Raises:
        InputError: the file can't be written, there is no object, or frames have different point
            columns.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            _write(file, path, frames, classes, source)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise InputError(
            f"{path}: can't be written ({error.strerror}); make room or choose another file"
        ) from None
    finally:
        with suppress(OSError):
            partial.unlink()


def _write(file: BinaryIO, path: Path, frames, classes: Sequence[str], source: str) -> None:
    file.write(MAGIC)
    columns: dict[str, list[Any]] = {name: [] for name in ("boxes", "labels", "above_ground")}
    frame_of, checksums, counts, frame_ids = [], [], [], []
    features: tuple[str, ...] | None = None
    for frame in frames:
        features = features or frame.point_features
        if frame.point_features != features:
            raise InputError(
                f"frame {frame.frame_id} has point columns {frame.point_features}, the frames "
                f"before it {features}; write a database of frames of one kind"
            )
        if not len(frame.boxes):
            continue
        for name, values in columns.items():
            values.append(getattr(frame, name))
        for points in frame.points:
            data = np.ascontiguousarray(points, "<f4").tobytes()
            file.write(data)
            checksums.append(zlib.crc32(data))
            counts.append(len(points))
            frame_of.append(len(frame_ids))
        frame_ids.append(frame.frame_id)
    if not counts:
        raise InputError(
            f"{path}: not written, as {source} has no box with points in it; check the data set's "
            f"labels and classes"
        )
    arrays = {name: np.concatenate(values) for name, values in columns.items()}
    arrays |= {
        "starts": np.concatenate([[0], np.cumsum(counts)]), "checksums": np.array(checksums),
        "frames": np.array(frame_of),
    }  # fmt: skip
    table: dict[str, Any] = {
        "format": FORMAT, "classes": list(classes), "point_features": list(features),
        "source": source, "arrays": {}, "frame_ids": frame_ids,
    }  # fmt: skip
    for name, dtype in _ARRAYS.items():
        file.write(b"\0" * (-file.tell() % _ALIGNMENT))
        data = np.ascontiguousarray(arrays[name], dtype)
        table["arrays"][name] = {
            "offset": file.tell(), "shape": list(data.shape), "crc32": zlib.crc32(data.tobytes()),
        }  # fmt: skip
        file.write(data.tobytes())
    text = json.dumps(table).encode()
    offset = file.tell()
    file.write(text)
    file.write(_FOOTER.pack(offset, len(text), zlib.crc32(text), MAGIC))


class PasteDatabase:
    """Objects to paste, from a file of `write_paste_database`; read-only and cheap to hand to
    other processes.

    Attributes:
        classes: names of the labels.
        point_features: names of the columns of points.
        source: what the objects were cut from.
        boxes, labels, starts, above_ground, frames: an entry an object, see `_ARRAYS`.
        frame_ids: the frames that objects are from.

    Raises:
        InputError: no such file, one of another program or release, one that was cut short or is
            damaged.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        table = self._read_table()
        self.classes = tuple(table["classes"])
        self.point_features = tuple(table["point_features"])
        self.source = table["source"]
        self.frame_ids = tuple(table["frame_ids"])
        self._places = table["arrays"]
        for name, dtype in _ARRAYS.items():
            setattr(self, name, self._map(dtype, self._places[name]))
            if zlib.crc32(np.ascontiguousarray(getattr(self, name))) != self._places[name]["crc32"]:
                raise self._damaged(f"the checksum of '{name}' does not match")

    def __len__(self) -> int:
        return len(self.labels)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])

    @property
    def counts(self) -> np.ndarray:
        """(N,) how many points each object has."""
        return np.diff(self.starts)

    @cached_property
    def _points(self) -> np.ndarray:
        shape = (int(self.starts[-1]), len(self.point_features))
        return self._map("<f4", {"offset": len(MAGIC), "shape": shape})

    def points(self, index: int) -> Float[np.ndarray, "P C"]:
        """A copy of an object's points, relative to its box's centre.

        Raises:
            InputError: they are not what was written.
        """
        points = np.array(self._points[self.starts[index] : self.starts[index + 1]], np.float32)
        if zlib.crc32(points) != self.checksums[index]:
            raise self._damaged(
                f"the points of object {index}, a {self.classes[self.labels[index]]} of frame "
                f"{self.frame_ids[self.frames[index]]}, are not what was written"
            )
        return points

    def check(self) -> Iterator[int]:
        """Reads all objects, one by one, and raises `InputError` as `points` does."""
        for index in range(len(self)):
            self.points(index)
            yield index

    def _map(self, dtype: str, place: dict[str, Any]) -> np.ndarray:
        shape = tuple(place["shape"])
        if 0 in shape:
            return np.zeros(shape, dtype)
        return np.memmap(self.path, dtype, "r", place["offset"], shape)

    def _read_table(self) -> dict[str, Any]:
        try:
            with self.path.open("rb") as file:
                start = file.read(len(MAGIC))
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _FOOTER.size))
                footer = file.read()
                if start != MAGIC:
                    raise InputError(
                        f"{self.path}: is no database of objects; write one with "
                        f"`tools/prepare.py paste CONFIG`"
                    )
                if len(footer) < _FOOTER.size or not footer.endswith(MAGIC):
                    raise self._damaged(f"it was cut short at {size} bytes")
                offset, length, checksum, _ = _FOOTER.unpack(footer)
                if offset + length + _FOOTER.size != size:
                    raise self._damaged(f"its size of {size} bytes is not what was written")
                file.seek(offset)
                text = file.read(length)
        except OSError as error:
            raise InputError(
                f"{self.path}: can't be read ({error.strerror}); write the database of objects "
                f"with `tools/prepare.py paste CONFIG`"
            ) from None
        if zlib.crc32(text) != checksum:
            raise self._damaged("the checksum of its table does not match")
        table = json.loads(text)
        if table["format"] != FORMAT:
            raise InputError(
                f"{self.path}: was written by another release (format {table['format']}, not "
                f"{FORMAT}); write it anew with `tools/prepare.py paste CONFIG`"
            )
        return table

    def _damaged(self, what: str) -> InputError:
        return InputError(
            f"{self.path}: the database of objects is damaged: {what}; write it anew with "
            f"`tools/prepare.py paste CONFIG`"
        )
