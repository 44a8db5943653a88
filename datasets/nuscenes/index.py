"""The tables as arrays, joined once: what the adapter and the metric look up.

`tools/prepare.py nuscenes` writes them to one `.npz` beside the tables; without it they are built
in memory each time (a quarter of a minute for v1.0-trainval).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from datasets.nuscenes.tables import TABLES, table_folder
from detector.errors import InputError

INDEX_NAME = "focal3d_index.npz"
# Raised when the arrays change, so that an index of an older release is not misread.
INDEX_FORMAT = 1


@dataclass(frozen=True)
class NuScenesIndex:
    """Arrays by sample, calibration, frame (one sensor file) and annotation.

    Poses are translation in metres and quaternion w, x, y, z; times are microseconds.
    """

    table_bytes: str
    """Sizes of the table files as JSON: tells an index that no longer fits its tables."""
    scene_names: np.ndarray
    """(C,) str."""
    sample_tokens: np.ndarray
    """(S,) str, in the table's order."""
    sample_scene: np.ndarray
    """(S,) int32 row of `scene_names`."""
    sample_time_us: np.ndarray
    """(S,) int64."""
    channels: np.ndarray
    """(H,) str: LIDAR_TOP, CAM_FRONT, RADAR_FRONT, ..."""
    key_frames: np.ndarray
    """(S, H) int32: frame of each channel that belongs to the sample, or -1."""
    calibration_channel: np.ndarray
    """(K,) int32 row of `channels`."""
    calibration_translation: np.ndarray
    """(K, 3) float64: sensor in the ego frame."""
    calibration_rotation: np.ndarray
    """(K, 4) float64."""
    calibration_intrinsics: np.ndarray
    """(K, 3, 3) float64; zeros unless a camera."""
    frame_calibration: np.ndarray
    """(F,) int32. Frames are all LiDAR and radar sweeps, and the cameras' key frames."""
    frame_time_us: np.ndarray
    """(F,) int64."""
    frame_translation: np.ndarray
    """(F, 3) float64: ego vehicle in the global frame."""
    frame_rotation: np.ndarray
    """(F, 4) float64."""
    frame_previous: np.ndarray
    """(F,) int32: the sweep before, or -1."""
    frame_file: np.ndarray
    """(F,) int32 row of `file_patterns`."""
    file_patterns: np.ndarray
    """(T,) str: paths below the root, with {} for the frame's time."""
    annotation_begin: np.ndarray
    """(S + 1,) int64: annotations of sample s are rows begin[s] to begin[s + 1]."""
    annotation_category: np.ndarray
    """(A,) int32 row of `category_names`."""
    annotation_attribute: np.ndarray
    """(A,) int32 row of `attribute_names`; -1 for none, -2 for more than one."""
    annotation_visibility: np.ndarray
    """(A,) int32 row of `visibility_levels`, or -1."""
    annotation_instance: np.ndarray
    """(A,) int32: the same number is the same object."""
    annotation_lidar_points: np.ndarray
    """(A,) int32."""
    annotation_radar_points: np.ndarray
    """(A,) int32."""
    annotation_translation: np.ndarray
    """(A, 3) float64, global."""
    annotation_size: np.ndarray
    """(A, 3) float64: width, length, height."""
    annotation_rotation: np.ndarray
    """(A, 4) float64, global."""
    annotation_velocity: np.ndarray
    """(A, 2) float64, global x and y, m/s; NaN where it can't be told."""
    category_names: np.ndarray
    attribute_names: np.ndarray
    visibility_levels: np.ndarray

    @cached_property
    def sample_row(self) -> dict[str, int]:
        """Row of each sample token."""
        return {token: row for row, token in enumerate(self.sample_tokens.tolist())}

    @cached_property
    def channel_row(self) -> dict[str, int]:
        """Row of each channel's name."""
        return {channel: row for row, channel in enumerate(self.channels.tolist())}

    def file_of(self, frame: int) -> str:
        """Path of a frame's file below the data set's root."""
        pattern = str(self.file_patterns[self.frame_file[frame]])
        return pattern.replace("{}", str(self.frame_time_us[frame]))

    def annotations_of(self, sample: int) -> slice:
        """Rows of the annotations of a sample."""
        return slice(int(self.annotation_begin[sample]), int(self.annotation_begin[sample + 1]))

    def lidar_frames(self) -> np.ndarray:
        """(S,) frame of the LiDAR in each sample: its ego pose is the sample's.

        Raises:
            InputError: a sample without LIDAR_TOP.
        """
        row = self.channel_row.get("LIDAR_TOP")
        frames = np.full(len(self.key_frames), -1) if row is None else self.key_frames[:, row]
        if len(bad := np.flatnonzero(frames < 0)):
            raise InputError(
                f"sample {self.sample_tokens[bad[0]]} has no key frame of LIDAR_TOP in "
                f"sample_data.json ({len(bad)} such samples); are the tables complete?"
            )
        return frames

    def save(self, path: Path) -> None:
        """Writes the file in one step, so that no half-written index is left behind."""
        arrays = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            with partial.open("wb") as file:
                np.savez(file, format=np.asarray(INDEX_FORMAT), **_as_bytes(arrays))
            partial.replace(path)
        except OSError as error:
            raise InputError(
                f"{path} can't be written ({error.strerror}); give another place with --out"
            ) from None
        finally:
            partial.unlink(missing_ok=True)


def table_bytes(folder: Path) -> str:
    """Sizes of the table files, as JSON."""
    paths = [folder / f"{table}.json" for table in TABLES]
    return json.dumps({path.name: path.stat().st_size for path in paths if path.is_file()})


def load_index(path: Path, folder: Path) -> NuScenesIndex:
    """An index from its file.

    Raises:
        InputError: it is no index, one of another release, or one of other tables.
    """
    remedy = "write it anew with tools/prepare.py nuscenes"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if int(arrays.pop("format", -1)) != INDEX_FORMAT:
            raise InputError(f"{path} was written by another release of Focal3D; {remedy}")
        index = NuScenesIndex(**_as_text(arrays))
    except (OSError, ValueError, TypeError, EOFError, KeyError, BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not a readable index ({error}); {remedy}") from None
    if index.table_bytes != table_bytes(folder):
        raise InputError(f"{path} does not fit the tables in {folder}, which changed; {remedy}")
    return index


def open_index(
    root: str | Path, version: str, path: str | Path | None = None
) -> NuScenesIndex:
    """The index of a version folder: from `path`, from its usual place, or built in memory."""
    folder = table_folder(root, version)
    usual = folder / INDEX_NAME
    if path is not None or usual.is_file():
        return load_index(Path(path or usual), folder)
    from datasets.nuscenes.build_index import build_index

    return build_index(root, version)


def _as_bytes(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Text as UTF-8, which takes a quarter of the space."""
    return {
        name: np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array
        for name, array in arrays.items()
    }


def _as_text(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    text = {
        name: np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
        for name, array in arrays.items()
    }
    return {**text, "table_bytes": str(text["table_bytes"])}
