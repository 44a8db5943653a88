"""nuScenes' sensor files: LiDAR `.pcd.bin` and radar `.pcd`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from detector.errors import InputError

LIDAR_COLUMNS = 5
# The 18 fields of a radar target, packed as they are on disk.
RADAR_DTYPE = np.dtype([
    ("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("dyn_prop", "i1"), ("id", "<i2"), ("rcs", "<f4"),
    ("vx", "<f4"), ("vy", "<f4"), ("vx_comp", "<f4"), ("vy_comp", "<f4"),
    ("is_quality_valid", "i1"), ("ambig_state", "i1"), ("x_rms", "i1"), ("y_rms", "i1"),
    ("invalid_state", "i1"), ("pdh0", "i1"), ("vx_rms", "i1"), ("vy_rms", "i1"),
])  # fmt: skip


@dataclass(frozen=True)
class RadarFilter:
    """Which radar targets to keep, by the states that the radar gives them; None keeps all.

    The development kit's defaults are `RadarFilter.official()`. They drop dynamic property 7,
    stopped: cars at a traffic light. So nothing is dropped unless asked for.
    """

    invalid_states: Collection[int] | None = None
    """0 is valid; 4, 8 to 12 and 15 to 17 are valid with a reservation."""
    dynamic_properties: Collection[int] | None = None
    """0 moving, 1 stationary, 2 oncoming, 3 stationary candidate, 4 unknown, 5 crossing
    stationary, 6 crossing moving, 7 stopped."""
    ambiguity_states: Collection[int] | None = None
    """3 is an unambiguous Doppler speed."""

    @classmethod
    def official(cls) -> RadarFilter:
        """What the official development kit keeps by default."""
        return cls((0,), range(7), (3,))

    def __call__(self, targets: np.ndarray) -> np.ndarray:
        """(P,) bool of a structured array of `RADAR_DTYPE`."""
        keep = np.ones(len(targets), bool)
        for field, states in (
            ("invalid_state", self.invalid_states),
            ("dyn_prop", self.dynamic_properties),
            ("ambig_state", self.ambiguity_states),
        ):
            if states is not None:
                keep &= np.isin(targets[field], list(states))
        return keep


def read_lidar(path: str | Path) -> Float32[np.ndarray, "P 5"]:
    """x, y, z in metres in the LiDAR's frame, intensity 0 to 255, ring; points that are not
    finite are left out.

    Raises:
        InputError: the file is missing or not a whole number of points.
    """
    content = _read(Path(path))
    if len(content) % (4 * LIDAR_COLUMNS):
        raise InputError(
            f"{path}: {len(content)} bytes is not a multiple of 20; a nuScenes sweep holds float32 "
            f"x, y, z, intensity, ring. Is the download complete?"
        )
    points = np.frombuffer(content, "<f4").reshape(-1, LIDAR_COLUMNS)
    finite = np.isfinite(points)
    return points if finite.all() else points[finite.all(1)]


def read_radar(path: str | Path) -> np.ndarray:
    """(P,) structured array of `RADAR_DTYPE`, in the radar's frame: x forward, y left.

    The header's POINTS counts, not the file's length: files are padded with zeros. A first point
    that is NaN stands for an empty sweep; other targets without a position are left out.

    Raises:
        InputError: the file is missing, has other fields, or is shorter than POINTS says.
    """
    content = _read(Path(path))
    header, separator, body = content.partition(b"\nDATA binary\n")
    if not separator:
        raise InputError(f"{path} has no line 'DATA binary'; is it a nuScenes radar file?")
    lines = (line.split() for line in header.decode("ascii", "replace").splitlines())
    entries = {words[0]: words[1:] for words in lines if words and words[0] != "#"}
    expected = {
        "FIELDS": list(RADAR_DTYPE.names),
        "SIZE": [str(RADAR_DTYPE[name].itemsize) for name in RADAR_DTYPE.names],
        "TYPE": ["F" if RADAR_DTYPE[name].kind == "f" else "I" for name in RADAR_DTYPE.names],
    }
    for key, values in expected.items():
        if entries.get(key) != values:
            raise InputError(
                f"{path}: {key} is '{' '.join(entries.get(key, ['absent']))}'; a nuScenes radar "
                f"file has '{' '.join(values)}'"
            )
    points = " ".join(entries.get("POINTS", ["absent"]))
    if not points.isdigit():
        raise InputError(f"{path}: POINTS is '{points}'; it must be a number")
    needed = int(points) * RADAR_DTYPE.itemsize
    if len(body) < needed:
        raise InputError(
            f"{path}: POINTS is {points}, which takes {needed} bytes, but {len(body)} follow the "
            f"header; is the download complete?"
        )
    targets = np.frombuffer(body, RADAR_DTYPE, int(points))
    known = ~(np.isnan(targets["x"]) | np.isnan(targets["y"]) | np.isnan(targets["z"]))
    if len(known) and not known[0]:
        return targets[:0]
    return targets if known.all() else targets[known]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} can't be read ({error.strerror}), though sample_data.json lists it; is this "
            f"part of nuScenes downloaded and unpacked in the root folder?"
        ) from None
