"""A tiny data set in KITTI's own layout and formats, written without the code that reads it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

IMAGE_SIZE = (1242, 375)
P2 = np.array([[721.5, 0, 609.6, 44.86], [0, 721.5, 172.9, 0.2164], [0, 0, 1, 0.002746]])


def _turn(axis: int, angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = np.eye(3)
    first, second = [i for i in range(3) if i != axis]
    rotation[first, first] = rotation[second, second] = cos
    rotation[first, second], rotation[second, first] = -sin, sin
    return rotation


# Tilts of the size that KITTI's own have.
R0_RECT = _turn(0, 0.004) @ _turn(1, 0.008) @ _turn(2, -0.01)
TR_VELO_TO_CAM = np.column_stack(
    [
        _turn(0, 0.015) @ _turn(1, -0.007) @ np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]),
        [-0.004, -0.076, -0.272],
    ]
)


@dataclass(frozen=True)
class TinyObject:
    """One label, and how many points the scan has inside it."""

    type: str = "Car"
    location: tuple[float, float, float] = (2.0, 1.7, 15.0)
    dimensions: tuple[float, float, float] = (1.5, 1.6, 3.9)
    rotation_y: float = 0.3
    truncation: float = 0.0
    occlusion: int = 0
    points: int = 200


CAR = TinyObject()
PEDESTRIAN = TinyObject("Pedestrian", (-3.0, 1.6, 9.0), (1.75, 0.6, 0.8), 1.2, points=120)
CYCLIST = TinyObject("Cyclist", (5.0, 1.65, 18.0), (1.7, 0.6, 1.8), -1.5, points=90)
VAN = TinyObject("Van", (-6.0, 1.8, 25.0), (2.2, 1.9, 5.0), 1.57)
DONT_CARE = "DontCare -1 -1 -10 503.89 169.71 590.61 190.13 -1 -1 -1 -1000 -1000 -1000 -10"


def write_kitti(
    root: Path,
    frames: Mapping[str, Sequence[TinyObject]] | None = None,
    *,
    images: bool = True,
    folder: str = "training",
    ground_points: int = 3000,
    seed: int = 0,
) -> Path:
    """Frames with a flat road and points inside the objects; splits train (the first half, at
    least one), val (the rest, or all of one) and trainval."""
    rng = np.random.default_rng(seed)
    if frames is None:
        frames = {"000000": [CAR, PEDESTRIAN, VAN], "000001": [CAR, CYCLIST], "000007": []}
    base = root / folder
    for kind in ("velodyne", "calib", "label_2") + (("image_2",) if images else ()):
        (base / kind).mkdir(parents=True, exist_ok=True)
    for frame_id, objects in frames.items():
        scan = [_ground(rng, ground_points)] + [_surface(rng, thing) for thing in objects]
        np.concatenate(scan).astype("<f4").tofile(base / "velodyne" / f"{frame_id}.bin")
        (base / "calib" / f"{frame_id}.txt").write_text(calibration_text())
        lines = [label_line(thing) for thing in objects] + [DONT_CARE]
        (base / "label_2" / f"{frame_id}.txt").write_text("\n".join(lines) + "\n")
        if images:
            write_png(base / "image_2" / f"{frame_id}.png", IMAGE_SIZE)
    ids = list(frames)
    half = max(1, len(ids) // 2)
    splits = {"train": ids[:half], "val": ids[half:] or ids, "trainval": ids}
    if folder == "testing":
        splits = {"test": ids}
    (root / "ImageSets").mkdir(exist_ok=True)
    for name, members in splits.items():
        (root / "ImageSets" / f"{name}.txt").write_text("".join(f"{i}\n" for i in members))
    return root


def calibration_text() -> str:
    rows = {f"P{i}": P2 for i in range(4)} | {
        "R0_rect": R0_RECT, "Tr_velo_to_cam": TR_VELO_TO_CAM, "Tr_imu_to_velo": np.eye(4)[:3],
    }  # fmt: skip
    return "".join(
        f"{name}: {' '.join(f'{value:.12e}' for value in np.ravel(matrix))}\n"
        for name, matrix in rows.items()
    )


def label_line(thing: TinyObject) -> str:
    """15 columns; the 2D box is that of the projected corners, clipped to the picture."""
    x, _, z = thing.location
    corners = _from_object(thing, np.array([
        (a, b, c) for a in (-1, 1) for b in (-2, 0) for c in (-1, 1)
    ]) / 2)  # fmt: skip
    pixels = np.column_stack([corners, np.ones(8)]) @ P2.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    low = np.clip(pixels.min(0), 0, np.subtract(IMAGE_SIZE, 1))
    high = np.clip(pixels.max(0), 0, np.subtract(IMAGE_SIZE, 1))
    alpha = thing.rotation_y - np.arctan2(x, z)
    numbers = [alpha, *low, *high, *thing.dimensions, *thing.location, thing.rotation_y]
    words = [thing.type, f"{thing.truncation:.2f}", str(thing.occlusion)]
    return " ".join(words + [f"{number:.2f}" for number in numbers])


def write_png(path: Path, size: tuple[int, int]) -> None:
    """A grey RGB picture of (width, height)."""
    width, height = size
    rows = (b"\0" + b"\x80" * (3 * width)) * height
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ):
        data += struct.pack(">I", len(content)) + kind + content
        data += struct.pack(">I", zlib.crc32(kind + content))
    path.write_bytes(data)


def _from_object(thing: TinyObject, local: np.ndarray) -> np.ndarray:
    """Camera coordinates of (along, down, across) in units of length, height and width."""
    height, width, length = thing.dimensions
    along, down, across = (local * (length, height, width)).T
    cos, sin = np.cos(thing.rotation_y), np.sin(thing.rotation_y)
    rows = [along * cos + across * sin, down, -along * sin + across * cos]
    return np.stack(rows, -1) + thing.location


def _surface(rng: np.random.Generator, thing: TinyObject) -> np.ndarray:
    local = rng.uniform((-0.48, -0.98, -0.48), (0.48, -0.02, 0.48), (thing.points, 3))
    camera = _from_object(thing, local)
    unrectified = camera @ R0_RECT                                    # its inverse, transposed
    velodyne = (unrectified - TR_VELO_TO_CAM[:, 3]) @ TR_VELO_TO_CAM[:, :3]
    return np.column_stack([velodyne, rng.random(thing.points)])


def _ground(rng: np.random.Generator, count: int) -> np.ndarray:
    """Points all around on z = -1.73 in the Velodyne frame."""
    angle, distance = rng.uniform(-np.pi, np.pi, count), rng.uniform(3, 60, count)
    z, intensity = np.full(count, -1.73), rng.random(count)
    return np.column_stack([distance * np.cos(angle), distance * np.sin(angle), z, intensity])
