"""Looks through a folder in KITTI's layout for everything that would trouble training."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64

from datasets.kitti import SUFFIXES
from datasets.kitti_boxes import (
    camera_corners,
    difficulties,
    ego_boxes,
    image_boxes,
    observation_angle,
)
from datasets.kitti_files import (
    KittiCalibration,
    KittiObjects,
    read_calibration,
    read_image_size,
    read_objects,
    read_scan,
    read_split,
)
from datasets.kitti_view import in_camera_view
from detector.errors import InputError
from detector.ops.boxes import points_in_boxes

# What KITTI's own labels keep to, but for 25 of 40570 objects that are wrong indeed.
FARTHEST_M = 150.0
LONGEST_M = 40.0
ALPHA_TOLERANCE = 0.5
# Intersection over union of the labelled 2D box and the projected 3D box.
LEAST_2D_OVERLAP = 0.1


@dataclass(frozen=True)
class FrameCheck:
    """What one frame holds, and what is wrong with it."""

    frame_id: str
    errors: tuple[str, ...]
    """Sentences; the frame can't be used until they are mended."""
    remarks: tuple[str, ...]
    """Sentences; the frame can be used, but someone should look."""
    points: int = 0
    points_in_view: int = 0
    types: tuple[str, ...] = ()
    """Of the objects with a box, as are the columns below."""
    levels: Int64[np.ndarray, " N"] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Difficulty, see `datasets.kitti_boxes.difficulties`."""
    boxes: Float[np.ndarray, "N 7"] = field(default_factory=lambda: np.zeros((0, 7)))
    """In the ego frame."""
    box_points: Int64[np.ndarray, " N"] = field(default_factory=lambda: np.zeros(0, np.int64))
    """How many points of the scan lie in each box."""


def frames_present(folder: Path) -> list[str]:
    """Ids of the scans in `folder/velodyne`, sorted.

    Raises:
        InputError: there is no such folder, or no scan in it.
    """
    scans = folder / "velodyne"
    if not scans.is_dir():
        raise InputError(
            f"{scans}: no such folder; --root must be the folder that holds KITTI's 'training'"
        )
    ids = sorted(path.stem for path in scans.glob(f"*{SUFFIXES['velodyne']}"))
    if not ids:
        raise InputError(f"{scans}: holds no .bin scan; unpack KITTI's velodyne archive there")
    return ids


def missing_files(folder: Path, ids: list[str], labelled: bool) -> list[str]:
    """A sentence for each kind of file that frames lack; pictures only where there are some."""
    sentences = []
    for kind in ("calib", *(["label_2"] if labelled else []), "image_2"):
        present = {path.stem for path in (folder / kind).glob(f"*{SUFFIXES[kind]}")}
        lacking = [i for i in ids if i not in present]
        if lacking and (present or kind != "image_2"):
            sentences.append(
                f"{folder / kind}: {len(lacking)} of {len(ids)} scans lack their file, the first "
                f"is {lacking[0]}{SUFFIXES[kind]}; download or copy it"
            )
    return sentences


def check_split(path: Path, present: set[str]) -> list[str]:
    """What is wrong with a file of `ImageSets`."""
    try:
        ids = read_split(path)
    except InputError as error:
        return [str(error)]
    lacking = [i for i in ids if i not in present]
    if not lacking:
        return []
    return [
        f"{path}: {len(lacking)} of its {len(ids)} frames have no scan, the first is {lacking[0]}; "
        f"complete the scans, or take the frames out"
    ]


def check_frame(folder: Path, frame_id: str, labelled: bool) -> FrameCheck:
    """Reads all files of one frame that are there; missing ones are `missing_files`' business."""
    errors: list[str] = []
    remarks: list[str] = []

    def attempt(reader, kind):
        path = folder / kind / f"{frame_id}{SUFFIXES[kind]}"
        if not path.exists():
            return None
        try:
            return reader(path)
        except InputError as error:
            errors.append(str(error))
            return None

    scan = attempt(read_scan, "velodyne")
    calibration = attempt(read_calibration, "calib")
    objects = attempt(read_objects, "label_2") if labelled else None
    size = attempt(read_image_size, "image_2")
    points = scan[0] if scan else np.zeros((0, 4), np.float32)
    if len(points):
        remarks += _scan_remarks(folder / "velodyne" / f"{frame_id}.bin", points)
    if calibration is None:
        return FrameCheck(frame_id, tuple(errors), tuple(remarks), len(points))
    size = size or calibration.typical_image_size
    seen = in_camera_view(points, calibration, size)
    if len(points) and not seen.any():
        errors.append(
            f"{folder / 'velodyne' / frame_id}.bin: none of its {len(points)} points lies in the "
            f"camera's view; is the calibration that of this frame?"
        )
    check = FrameCheck(frame_id, (), (), len(points), int(seen.sum()))
    if objects is None:
        return _with(check, errors, remarks)
    label_path = folder / "label_2" / f"{frame_id}.txt"
    sized = (objects.dimensions > 0).all(1) & (np.abs(objects.location) < 1000).all(1)
    boxed = np.array([name != "DontCare" for name in objects.types], bool)
    for i in np.flatnonzero(boxed & ~sized):
        errors.append(
            f"{label_path}: object {i + 1} is a {objects.types[i]} without size or place; make it "
            f"a DontCare or mend the line"
        )
    boxed &= sized
    remarks += _label_remarks(label_path, objects, boxed, calibration, size)
    boxes = ego_boxes(
        objects.location[boxed], objects.dimensions[boxed], objects.rotation_y[boxed], calibration
    )
    inside = points_in_boxes(torch.from_numpy(points[:, :3]), torch.from_numpy(boxes).float())
    check = FrameCheck(
        frame_id, (), (), check.points, check.points_in_view,
        tuple(name for name, kept in zip(objects.types, boxed, strict=True) if kept),
        difficulties(objects)[boxed], boxes, inside.sum(0).numpy(),
    )  # fmt: skip
    return _with(check, errors, remarks)


def _with(check: FrameCheck, errors: list[str], remarks: list[str]) -> FrameCheck:
    return FrameCheck(**{**vars(check), "errors": tuple(errors), "remarks": tuple(remarks)})


def _scan_remarks(path: Path, points: np.ndarray) -> list[str]:
    remarks = []
    low, high = float(points[:, 3].min()), float(points[:, 3].max())
    if low < 0 or high > 1:
        remarks.append(
            f"{path}: intensity runs from {low:g} to {high:g}, KITTI's from 0 to 1; scale it"
        )
    farthest = float(np.abs(points[:, :3]).max())
    if farthest > 10 * FARTHEST_M:
        remarks.append(f"{path}: a point lies {farthest:g} m away; is the scan in metres?")
    return remarks


def _label_remarks(
    path: Path,
    objects: KittiObjects,
    boxed: np.ndarray,
    calibration: KittiCalibration,
    size: tuple[int, int],
) -> list[str]:
    remarks = []
    corners = camera_corners(objects.location, objects.dimensions, objects.rotation_y)
    projected, seen = image_boxes(corners, calibration, size)
    alpha = observation_angle(objects.location, objects.rotation_y, calibration)
    turned = np.abs((alpha - objects.alpha + np.pi) % (2 * np.pi) - np.pi)
    overlap = _overlap_2d(projected, objects.bbox)
    for i in np.flatnonzero(boxed):
        name = f"{path}: object {i + 1} ({objects.types[i]})"
        far = float(np.hypot(objects.location[i, 0], objects.location[i, 2]))
        if far > FARTHEST_M:
            remarks.append(f"{name} is {far:.0f} m away; is its place right?")
        if objects.dimensions[i].max() > LONGEST_M:
            remarks.append(f"{name} is {objects.dimensions[i].max():.1f} m long; is that right?")
        if not seen[i]:
            remarks.append(
                f"{name} lies outside the picture; is its place right, and the calibration that "
                f"of this frame?"
            )
        elif overlap[i] < LEAST_2D_OVERLAP:
            remarks.append(
                f"{name} projects far from its 2D box (overlap {overlap[i]:.2f}); is its "
                f"place right, and the calibration that of this frame?"
            )
        if objects.alpha[i] > -9 and turned[i] > ALPHA_TOLERANCE:
            remarks.append(
                f"{name} has alpha {objects.alpha[i]:.2f}, but {alpha[i]:.2f} follows from its "
                f"place and rotation_y"
            )
    return remarks


def _overlap_2d(a: Float[np.ndarray, "N 4"], b: Float[np.ndarray, "N 4"]) -> np.ndarray:
    """Intersection over union of the boxes row by row."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    both = np.clip(sides, 0, None).prod(1)
    areas = [(c[:, 2:] - c[:, :2]).clip(0).prod(1) for c in (a, b)]
    return both / np.maximum(areas[0] + areas[1] - both, 1e-9)
