"""Checkpoints: written all or not at all, read without running code, and checked against a model.

A file holds `state_dict` (the weights to use: the averaged ones where a run keeps an average),
the config's text, the class names, and what a run needs to go on. It is a plain `torch.save`
archive of tensors, numbers and text, so that `torch.load(path, weights_only=True)` reads it.
"""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from detector.errors import InputError

FORMAT = "focal3d checkpoint 1"


def save_checkpoint(path: str | Path, content: Mapping[str, Any]) -> None:
    """Writes beside `path` and renames, so that `path` is the old file or the new, never a part.

    Raises:
        InputError: no room, or a folder that may not be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    writer = None
    try:
        with open(temporary, "wb") as file:
            writer = _Writer(file)
            torch.save({"format": FORMAT, **content}, writer)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        error = (writer and writer.error) or error
        kept = "; the checkpoint that was there before is intact" if path.exists() else ""
        raise InputError(
            f"{path}: the checkpoint cannot be written ({_reason(error)}){kept}; make room or "
            f"choose another --work-dir"
        ) from error


class _Writer:
    """A file that remembers why it could not be written: torch's archive writer says only that it
    could not."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.error: OSError | None = None

    def write(self, data) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def save_text(path: Path, text: str) -> None:
    """Writes a text file into a folder that is made where it is missing.

    Raises:
        InputError: the folder or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path.parent}: cannot be written ({_reason(error)}); choose another folder"
        ) from error


def link_checkpoint(source: Path, path: Path) -> None:
    """Makes `path` the same file as `source`, in one step; copies where links are not possible."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.unlink(missing_ok=True)
    try:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({_reason(error)})") from error


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote, on the CPU; every byte is checked by the archive's checksums.

    Raises:
        InputError: a missing file, a torn or corrupt one, or one of another program.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path}: there is no such checkpoint; tools/train.py writes latest.pth and best.pth "
            f"into its --work-dir"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise zipfile.BadZipFile(f"checksum of {broken} does not match")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError, NotImplementedError) as error:
        raise InputError(
            f"{path}: the checkpoint is corrupt or was cut short ({_reason(error)}); take another "
            f"one or copy it again"
        ) from error
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: holds more than tensors, numbers and text, so it is not one of ours and was "
            f"not loaded"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(
            f"{path}: is a file of another program, not a checkpoint of tools/train.py"
        )
    return content


def check_weights(
    model: nn.Module, content: Mapping[str, Any], path: str | Path, classes: Sequence[str]
) -> None:
    """Whether a checkpoint's weights fit `model`.

    Raises:
        InputError: weights of another model or other classes; says what differs.
    """
    if tuple(content["classes"]) != tuple(classes):
        raise InputError(
            f"{path}: was trained for the classes {', '.join(content['classes'])}; the config has "
            f"{', '.join(classes)}; use the config it was trained with"
        )
    difference = describe_difference(model.state_dict(), content["state_dict"])
    if difference:
        raise InputError(
            f"{path}: holds the weights of another model: {difference}; use the config it was "
            f"trained with"
        )


def describe_difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """In words what keeps `found` from fitting; empty where it fits."""
    missing = [k for k in expected if k not in found]
    surplus = [k for k in found if k not in expected]
    shapes = [
        f"{k} is {tuple(found[k].shape)} and not {tuple(expected[k].shape)}"
        for k in expected
        if k in found and found[k].shape != expected[k].shape
    ]
    parts = [
        _some("lacks", missing),
        _some("has besides", surplus),
        _some("", shapes),
    ]
    return "; ".join(p for p in parts if p)


def _some(verb: str, items: Sequence[str], limit: int = 3) -> str:
    if not items:
        return ""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return f"{verb} {', '.join(items[:limit])}{more}".strip()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
