"""The folder that a simulation writes: what it was asked for, and how it is cleared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from detector.errors import InputError

SETTINGS = "simulation.json"
"""Marks a folder as a simulation's, and holds the options it was made with."""


def read_settings(out: Path) -> dict | None:
    """The options a simulation in `out` was made with; None where there is none."""
    try:
        return json.loads((out / SETTINGS).read_text())
    except (OSError, ValueError):
        return None


def clear(out: Path, names: Sequence[str]) -> None:
    """Removes these folders of a former simulation, and nothing else.

    Raises:
        InputError: `out` is a file, or such a folder was not written by a simulation.
    """
    if not out.is_dir():
        raise InputError(f"{out}: is a file; choose a folder for --out")
    ours = (out / SETTINGS).exists()
    for name in names:
        if (out / name).exists():
            if not ours:
                raise InputError(
                    f"{out}: holds a '{name}' folder that no simulation wrote (there is no "
                    f"{SETTINGS}); choose another folder"
                )
            shutil.rmtree(out / name)
