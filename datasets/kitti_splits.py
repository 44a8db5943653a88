"""Split files: where they are, and for a folder in KITTI's layout that has none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from datasets.kitti_files import read_split
from datasets.text_files import write_text
from detector.errors import InputError


def halves(ids: Sequence[str]) -> tuple[list[str], list[str]]:
    """Two halves (the first has one more where the number is odd) by the order of the ids'
    SHA-256, each in the order given; the same on every machine."""
    by_hash = sorted(ids, key=lambda frame_id: hashlib.sha256(frame_id.encode()).digest())
    first = set(by_hash[: (len(ids) + 1) // 2])
    return [i for i in ids if i in first], [i for i in ids if i not in first]


def write_splits(
    root: Path, training: Sequence[str], testing: Sequence[str], source: Path | None
) -> list[str]:
    """Writes the files of `root/ImageSets` that are absent; what is there stays as it is.

    With `source` they are copied from there. Without it, `train` and `val` become the `halves` of
    training where both are absent, `trainval` is all of training and `test` all of testing.

    Args:
        root: folder of the data set.
        training: ids of the frames in `training/`.
        testing: ids of the frames in `testing/`.
        source: folder with `train.txt`, `val.txt`, ...

    Returns:
        Sentences about what was written.

    Raises:
        InputError: `source` holds no split file or a bad one, or a file can't be written.
    """
    target = root / "ImageSets"
    if source is not None:
        files = sorted(source.glob("*.txt"))
        if not files:
            raise InputError(
                f"{source}: holds no split file; --splits wants a folder with train.txt, val.txt"
            )
        splits = {path.stem: read_split(path) for path in files}
    else:
        splits = {"trainval": list(training), "test": list(testing)}
        if not any((target / f"{name}.txt").is_file() for name in ("train", "val")):
            splits["train"], splits["val"] = halves(training)
    sentences = []
    for name, ids in splits.items():
        path = target / f"{name}.txt"
        if ids and not path.is_file():
            write_text(path, "".join(f"{i}\n" for i in ids))
            sentences.append(f"{path}: written, {len(ids)} frames.")
    if source is None and "train" in splits:
        sentences.append(
            "ATTENTION: train and val are halves by a hash of the frame ids, NOT the 3712/3769 "
            "split that papers use, which can't be derived from the data: neighbouring frames of "
            "a drive fall into both halves, and scores on val come out too high. For figures that "
            "compare, remove these files and give --splits DIR."
        )
    return sentences

def find_split(root: Path, split: str | Path) -> Path:
    """The file of a split: `root/ImageSets/SPLIT.txt`, or `split` itself where it is a file.

    Raises:
        InputError: neither is there; the message lists the splits that are.
    """
    named = root / "ImageSets" / f"{split}.txt"
    if named.is_file():
        return named
    if Path(split).is_file():
        return Path(split)
    present = sorted(path.stem for path in (root / "ImageSets").glob("*.txt"))
    raise InputError(
        f"{named}: no such split; "
        + (f"there are {', '.join(present)}" if present else "there are none")
        + " (write one with `tools/prepare.py kitti`, or give the path of a file with frame ids)"
    )
