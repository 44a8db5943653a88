"""Which label file goes with which result file."""

from __future__ import annotations

from pathlib import Path

from datasets.kitti_files import read_split
from detector.errors import InputError


def pair_results(
    labels: str | Path, results: str | Path, split: str | Path | None = None
) -> list[tuple[Path, Path]]:
    """(label file, result file) of every frame to score, in the order of the split or by name.

    As KITTI asks of a submission, every frame needs a result file, an empty one where nothing was
    found; a frame without one is an error, for a detector that stopped half-way would otherwise
    be scored on the frames that it happened to reach.

    Args:
        labels: folder with `000000.txt`, ...
        results: folder with files of the same names, or one that holds them in `data/`, as KITTI
            packs submissions.
        split: file with the ids of the frames to score; None: all that have labels.

    Raises:
        InputError: a missing folder or split, a frame of the split without label, a frame without
            result, and without a split a result without label.
    """
    labels, results = _folder(labels, "labels"), _folder(results, "results")
    if not any(results.glob("*.txt")) and (results / "data").is_dir():
        results = results / "data"
    labelled = {path.stem for path in labels.glob("*.txt")}
    found = {path.stem for path in results.glob("*.txt")}
    if not labelled:
        raise InputError(
            f"{labels}: no label files; KITTI's are called 000000.txt, 000001.txt, ..., in a "
            f"folder 'label_2'"
        )
    if split is None:
        frames = sorted(labelled)
        _check(
            f"{results}: no label in {labels} for", sorted(found - labelled), len(found),
            "remove what is no result, or name the frames to score in a split file",
        )  # fmt: skip
    else:
        frames = read_split(split)
        _check(
            f"{labels}: no label for", [f for f in frames if f not in labelled], len(frames),
            f"check the folder against {split}",
        )  # fmt: skip
    _check(
        f"{results}: no result for", [f for f in frames if f not in found], len(frames),
        "write an empty file for a frame where nothing was found"
        + ("" if split else ", or name the frames to score in a split file"),
    )  # fmt: skip
    return [(labels / f"{frame}.txt", results / f"{frame}.txt") for frame in frames]


def _folder(path: str | Path, kind: str) -> Path:
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; give the folder with the {kind}")
    return path


def _check(complaint: str, missing: list[str], total: int, remedy: str) -> None:
    if missing:
        raise InputError(
            f"{complaint} {len(missing)} of {total} frames, the first is {missing[0]}; {remedy}"
        )
