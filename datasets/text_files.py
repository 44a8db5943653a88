"""Text files from outside: read, written and parsed with errors that a user can act on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from detector.errors import InputError


def write_text(path: Path, text: str) -> None:
    """Writes a file, making its folder first.

    Raises:
        InputError: the folder or the file can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise InputError(
            f"{path}: can't be written ({error.strerror}); choose a folder that you may write to"
        ) from None


def read_text(path: Path, kind: str) -> str:
    """The text of a file; `kind` names it in errors.

    Raises:
        InputError: the file can't be read or is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; copy the {kind} anew") from None
    except OSError as error:
        raise InputError(
            f"{path}: can't read the {kind} ({error.strerror}); check the path"
        ) from None


def finite_numbers(words: Sequence[str], place: str, names: Sequence[str]) -> list[float]:
    """The words as floats.

    Args:
        words: what stands in the file.
        place: file and line, for errors.
        names: name of each field, for errors.

    Raises:
        InputError: a word that is no finite number.
    """
    values = []
    for name, word in zip(names, words, strict=False):
        try:
            value = float(word)
        except ValueError:
            value = float("nan")
        if not math.isfinite(value):
            raise InputError(f"{place}: {name} is '{word}', not a finite number; mend the line")
        values.append(value)
    return values
