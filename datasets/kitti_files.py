"""KITTI's own files, one reader and one writer a kind: labels, results, calibration, scans, splits.

Layout and columns follow the development kit's readme of the 3D object benchmark (Geiger et al.,
"Are we ready for autonomous driving? The KITTI vision benchmark suite", CVPR 2012). Whatever is
wrong with a file raises `InputError` that names the file, the line, the value and the remedy.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from datasets.kitti_calibration import KittiCalibration, read_calibration, write_calibration
from datasets.text_files import finite_numbers, read_text, write_text
from detector.errors import InputError
from detector.metrics.kitti import KittiObjects

__all__ = [
    "FIELDS",
    "KITTI_TYPES",
    "POINT_FEATURES",
    "KittiCalibration",
    "KittiObjects",
    "read_calibration",
    "read_image_size",
    "read_objects",
    "read_plane",
    "read_scan",
    "read_split",
    "write_calibration",
    "write_objects",
]

KITTI_TYPES = (
    "Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc", "DontCare",
)  # fmt: skip
"""Every type that the object benchmark labels."""

FIELDS = (
    "type", "truncation", "occlusion", "alpha", "left", "top", "right", "bottom",
    "height", "width", "length", "x", "y", "z", "rotation_y", "score",
)  # fmt: skip
"""Columns of a label line, and of a result line with the score at the end."""

POINT_FEATURES = ("x", "y", "z", "intensity")
_POINT_BYTES = 4 * len(POINT_FEATURES)


# ---------------------------------------------------------------------------- labels and results


def read_objects(
    path: str | Path, with_scores: bool = False, *, other_types: Iterable[str] = ()
) -> KittiObjects:
    """A label file (15 columns), or with `with_scores` a result file (16 columns).

    Types are matched without regard to case, as the official evaluator does, and come back in
    KITTI's spelling. `other_types` are names that a data set in KITTI's layout has besides
    KITTI's. An empty file is a frame without objects.

    Raises:
        InputError: no such file, a line with another number of columns, a field that is no
            finite number, or an unknown type.
    """
    path = Path(path)
    known = {name.lower(): name for name in (*KITTI_TYPES, *other_types)}
    columns = len(FIELDS) if with_scores else len(FIELDS) - 1
    kind = "result" if with_scores else "label"
    types: list[str] = []
    rows: list[list[float]] = []
    for number, line in enumerate(read_text(path, f"{kind} file").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != columns:
            hint = _columns_hint(len(words), with_scores)
            raise InputError(
                f"{path}:{number}: {len(words)} fields where a {kind} line has {columns} "
                f"({FIELDS[0]} ... {FIELDS[columns - 1]}); {hint}"
            )
        name = known.get(words[0].lower())
        if name is None:
            raise InputError(
                f"{path}:{number}: unknown type '{words[0]}'; the known ones are "
                f"{', '.join(known.values())}"
            )
        types.append(name)
        rows.append(finite_numbers(words[1:], f"{path}:{number}", FIELDS[1:]))
    table = np.array(rows, np.float64).reshape(len(rows), columns - 1)
    return KittiObjects(
        types=types,
        truncation=table[:, 0],
        occlusion=table[:, 1].astype(np.int64),
        alpha=table[:, 2],
        bbox=table[:, 3:7],
        dimensions=table[:, 7:10],
        location=table[:, 10:13],
        rotation_y=table[:, 13],
        score=table[:, 14] if with_scores else None,
    )


def write_objects(path: str | Path, objects: KittiObjects) -> None:
    """A result file (16 columns) for objects with scores, a label file (15 columns) for others.

    Numbers are written with 4 digits behind the point (scores 6), more than KITTI's own 2.

    Raises:
        InputError: the file can't be written.
    """
    lines = []
    for i, name in enumerate(objects.types):
        occlusion = int(objects.occlusion[i])
        row = [
            objects.alpha[i], *objects.bbox[i], *objects.dimensions[i], *objects.location[i],
            objects.rotation_y[i],
        ]  # fmt: skip
        words = [name, f"{objects.truncation[i]:.2f}", str(occlusion)]
        words += [f"{value:.4f}" for value in row]
        if objects.score is not None:
            words.append(f"{objects.score[i]:.6f}")
        lines.append(" ".join(words) + "\n")
    write_text(Path(path), "".join(lines))


def _columns_hint(found: int, with_scores: bool) -> str:
    if with_scores and found == len(FIELDS) - 1:
        return "the score is missing: is this a label file?"
    if not with_scores and found == len(FIELDS):
        return "is this a result file (with scores) in the place of the labels?"
    return "mend the line, or write the file anew if it was cut short"


# ---------------------------------------------------------------------------- scans and images


def read_scan(
    path: str | Path, *, drop_not_finite: bool = False
) -> tuple[Float32[np.ndarray, "P 4"], int]:
    """Points of a Velodyne scan, and how many were dropped because they are not finite.

    Args:
        path: little-endian float32 x, y, z, intensity a point.
        drop_not_finite: leave out points with NaN or infinity instead of raising.

    Raises:
        InputError: no such file, a size that is no whole number of points, no point at all, or
            points that are not finite.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: can't read the scan ({error.strerror}); check the path"
        ) from None
    if len(data) % _POINT_BYTES:
        raise InputError(
            f"{path}: {len(data)} bytes is not a multiple of {_POINT_BYTES}; a KITTI scan holds "
            f"float32 x, y, z, intensity. Is the download complete?"
        )
    if not data:
        raise InputError(f"{path}: the scan is empty (0 points); copy or download it again")
    points = np.frombuffer(data, "<f4").astype(np.float32).reshape(-1, len(POINT_FEATURES))
    finite = np.isfinite(points)
    if finite.all():
        return points, 0
    finite = finite.all(1)
    dropped = len(points) - int(finite.sum())
    if not drop_not_finite or dropped == len(points):
        first = int(np.argmin(finite))
        values = ", ".join(f"{value:g}" for value in points[first])
        remedy = "record or copy the scan again"
        if dropped < len(points):
            remedy = (
                "drop such points on purpose (--drop-not-finite, or drop_not_finite=True in a "
                "config) or copy the scan again"
            )
        raise InputError(
            f"{path}: {dropped} of {len(points)} points are NaN or infinite, the first is point "
            f"{first} ({values}); {remedy}"
        )
    return points[finite], dropped


def read_image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) in pixels from the header of a PNG.

    Raises:
        InputError: no such file, or no PNG.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            header = file.read(24)
    except OSError as error:
        raise InputError(f"{path}: can't read the image ({error.strerror})") from None
    if len(header) < 24 or header[:8] != b"\x89PNG\r\n\x1a\n" or header[12:16] != b"IHDR":
        raise InputError(f"{path}: not a PNG image; KITTI's images are PNG, copy it again")
    return struct.unpack(">II", header[16:24])


# ---------------------------------------------------------------------------- splits and planes


def read_split(path: str | Path) -> list[str]:
    """Frame ids of an `ImageSets` file, one a line, in the file's order.

    Raises:
        InputError: no such file, no ids, a line with more than one word, or an id twice.
    """
    path = Path(path)
    ids: dict[str, int] = {}
    for number, line in enumerate(read_text(path, "split file").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 1 or "/" in words[0]:
            raise InputError(
                f"{path}:{number}: '{line.strip()}' is no frame id; a split file has one id a "
                f"line, such as 000042"
            )
        if words[0] in ids:
            raise InputError(
                f"{path}:{number}: frame {words[0]} stands in line {ids[words[0]]} already; "
                f"remove one of the two"
            )
        ids[words[0]] = number
    if not ids:
        raise InputError(f"{path}: the split lists no frame; write one id a line")
    return list(ids)


def read_plane(path: str | Path) -> Float[np.ndarray, " 4"]:
    """(a, b, c, d) of the road plane a x + b y + c z + d = 0 in the camera frame; the normal
    (a, b, c) has length 1 and points up (b < 0).

    Raises:
        InputError: no such file, or no line of four numbers at its end.
    """
    path = Path(path)
    lines = [line for line in read_text(path, "plane file").splitlines() if line.strip()]
    words = lines[-1].split() if lines else []
    if len(words) != 4:
        raise InputError(
            f"{path}: the last line must hold the 4 numbers of a plane, found {len(words)}; "
            f"remove the file (planes are optional) or copy it anew"
        )
    plane = np.array(finite_numbers(words, f"{path}:{len(lines)}", ["plane"] * 4))
    length = np.linalg.norm(plane[:3])
    if length < 1e-6:
        raise InputError(f"{path}: the plane's normal is zero; copy the file anew")
    return plane / length * (-1 if plane[1] > 0 else 1)
