"""Which scenes belong to which split: the official ones, and those of a `splits.json`.

The official lists are those of the nuScenes development kit 1.2.0 (`nuscenes/utils/splits.py`),
written as ranges of scene numbers. A file `splits.json` in the version folder, of the form
`{"name": ["scene-0001", ...]}`, adds splits of one's own, as the development kit reads it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from detector.errors import InputError

VAL = (
    "3 12-18 35-39 92-110 221 268-278 329-346 519-524 552-565 625-638 770-784 794-802 904-931 "
    "962-972 1059-1073"
)
TRAIN_DETECT = (
    "1-2 41-76 161-176 190-214 254-324 347-375 382 420-439 457-480 566-583 665-689 739-769 "
    "868-991 1011-1025 1074-1105"
)
MINI_VAL = "103 916"
# The version folder that each official split needs, by how its name ends.
OFFICIAL = {
    "train": "trainval", "val": "trainval", "train_detect": "trainval",
    "train_track": "trainval", "mini_train": "mini", "mini_val": "mini", "test": "test",
}  # fmt: skip


def default_split(version: str) -> str | None:
    """The split that one evaluates on; None, for all samples, where the version is unofficial."""
    endings = {"trainval": "val", "mini": "mini_val", "test": "test"}
    return next((split for end, split in endings.items() if version.endswith(end)), None)


def scenes_of_split(folder: Path, split: str | None, scenes: Sequence[str]) -> set[str]:
    """The scenes of a version folder that belong to a split; all of them for None or "all".

    Raises:
        InputError: the split is unknown, is not one of this version, or has no scene in it.
    """
    own = own_splits(folder)
    if split is None or (split == "all" and "all" not in own):
        return set(scenes)
    if split in own:
        chosen = set(own[split]) & set(scenes)
    elif split in OFFICIAL:
        if not folder.name.endswith(OFFICIAL[split]):
            raise InputError(
                f"split {split} belongs to a version ending in '{OFFICIAL[split]}', not to "
                f"{folder.name}; choose another split or version"
            )
        chosen = {name for name in scenes if _is_in_official(name, split)}
    else:
        raise InputError(
            f"there is no split {split}; take one of {', '.join([*OFFICIAL, *own, 'all'])}, or add "
            f"it to {folder / 'splits.json'}"
        )
    if not chosen:
        raise InputError(f"none of the {len(scenes)} scenes of {folder} is in split {split}")
    return chosen


def own_splits(folder: Path) -> dict[str, list[str]]:
    """The content of `splits.json`; empty where there is no such file."""
    path = folder / "splits.json"
    if not path.is_file():
        return {}
    try:
        splits = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error})") from None
    if not isinstance(splits, dict) or not all(isinstance(s, list) for s in splits.values()):
        raise InputError(f'{path} must look like {{"name": ["scene-0001", ...]}}')
    return splits


def _is_in_official(scene: str, split: str) -> bool:
    number = int(scene.removeprefix("scene-")) if scene[6:].isdigit() else -1
    if split in ("val", "train"):
        return (number in _numbers(VAL)) == (split == "val")
    if split in ("train_detect", "train_track"):
        chosen = (number in _numbers(TRAIN_DETECT)) == (split == "train_detect")
        return chosen and number not in _numbers(VAL)
    if split in ("mini_val", "mini_train"):
        return (number in _numbers(MINI_VAL)) == (split == "mini_val")
    return True


def _numbers(ranges: str) -> set[int]:
    """"3-5 9" -> {3, 4, 5, 9}."""
    ends = [list(map(int, part.split("-"))) for part in ranges.split()]
    return {number for end in ends for number in range(end[0], end[-1] + 1)}
