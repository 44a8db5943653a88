"""The segments of a split, in either format, and the index that makes opening them quick."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from datasets.waymo.frame import FrameTable
from datasets.waymo.v1 import SegmentV1
from datasets.waymo.v2 import SegmentV2
from detector.errors import InputError

INDEX_NAME = "focal3d_index.npz"
INDEX_VERSION = 1
Segment = SegmentV1 | SegmentV2


def segment_paths(folder: Path) -> list[Path]:
    """One file a segment: TFRecords of format 1, or tables of poses of format 2.

    Raises:
        InputError: the folder holds neither.
    """
    for found in (folder.glob("*.tfrecord"), (folder / "vehicle_pose").glob("*.parquet")):
        paths = sorted(path for path in found if not path.name.startswith("."))
        if paths:
            return paths
    raise InputError(
        f"{folder}: holds neither .tfrecord files (Waymo's format 1) nor vehicle_pose/*.parquet "
        f"(format 2); name the folder that holds 'training' and 'validation' as root"
    )


def open_segments(
    folder: Path,
    index: Path | str | None = None,
    *,
    anew: bool = False,
    progress: Callable[[Sequence], Iterable] = lambda files: files,
) -> list[Segment]:
    """All segments of a split, sorted by name.

    Args:
        index: file written by `save_index`; by default `focal3d_index.npz` in the folder, where
            there is one. Without, each file is opened, which takes minutes for the whole set.
        anew: open each file, whatever index there is.
        progress: wraps the files, to show how far it is.

    Raises:
        InputError: no segments, a damaged file, or an index that isn't of these files.
    """
    paths = segment_paths(folder)
    path = Path(index) if index is not None else folder / INDEX_NAME
    tables: Iterable[FrameTable | None] = [None] * len(paths)
    if not anew and (index is not None or path.is_file()):
        tables = _load_index(path, paths)
    segments = [
        _open(folder, path, table)
        for path, table in progress(list(zip(paths, tables, strict=True)))
    ]
    names = [segment.table.segment for segment in segments]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{folder}: segment {twice} is in two files; remove one of them")
    return sorted(segments, key=lambda segment: segment.table.segment)


def _open(folder: Path, path: Path, table: FrameTable | None) -> Segment:
    if path.suffix == ".tfrecord":
        return SegmentV1(path, table)
    return SegmentV2(folder, path.stem, table)


def save_index(path: Path | str, segments: Sequence[Segment]) -> None:
    """Writes what is known of the frames, so that the files needn't be opened for it again.

    Raises:
        InputError: the file can't be written.
    """
    path = Path(path)
    tables = [segment.table for segment in segments]
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            np.savez_compressed(
                file,
                version=INDEX_VERSION,
                files=np.array([segment.path.name for segment in segments]),
                sizes=np.array([segment.path.stat().st_size for segment in segments]),
                segments=np.array([table.segment for table in tables]),
                frame_counts=np.array([len(table.times_us) for table in tables]),
                times_us=np.concatenate([table.times_us for table in tables]),
                world_from_vehicle=np.concatenate([t.world_from_vehicle for t in tables]),
                starts=np.concatenate([table.starts for table in tables]),
                lengths=np.concatenate([table.lengths for table in tables]),
            )
        partial.replace(path)
    except OSError as error:
        raise InputError(
            f"{path}: can't be written ({error.strerror}); choose a file that you may write to"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def _load_index(path: Path, files: list[Path]) -> list[FrameTable]:
    remedy = "write it again with tools/prepare.py waymo"
    try:
        with np.load(path, allow_pickle=False) as archive:
            columns = {name: archive[name] for name in archive.files}
        version = int(columns["version"])
        if version != INDEX_VERSION:
            raise InputError(f"{path}: an index of version {version}; {remedy}")
        sizes = dict(zip(columns["files"].tolist(), columns["sizes"].tolist(), strict=True))
        edges = np.cumsum([0, *columns["frame_counts"]])
        rows = {
            name: slice(start, stop)
            for name, start, stop in zip(sizes, edges[:-1], edges[1:], strict=True)
        }
        names = dict(zip(sizes, columns["segments"].tolist(), strict=True))
        tables = []
        for file in files:
            if sizes.get(file.name) != file.stat().st_size:
                raise InputError(f"{path}: {file.name} isn't the file that it lists; {remedy}")
            row = rows[file.name]
            parts = ("times_us", "world_from_vehicle", "starts", "lengths")
            tables.append(FrameTable(names[file.name], *(columns[part][row] for part in parts)))
    except InputError:
        raise
    except (OSError, KeyError, ValueError, EOFError) as error:
        raise InputError(f"{path}: no index that can be read ({error}); {remedy}") from error
    return tables
