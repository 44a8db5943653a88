"""Scenes in an Open3D window that can be turned with the mouse."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from detector.errors import InputError
from detector.viz.offscreen import run_worker, write_scene
from detector.viz.scene import Scene


def show(scene: Scene, *, size: tuple[int, int] = (1600, 900)) -> None:
    """Shows a scene until the window is closed.

    Raises:
        InputError: there is no display, or Open3D can't be loaded or can't draw.
    """
    if not has_display(os.environ):
        raise InputError(
            "there is no display to open a window on (DISPLAY and WAYLAND_DISPLAY are not set); "
            "write a picture instead, which needs none"
        )
    with tempfile.TemporaryDirectory(prefix="focal3d-") as folder:
        write_scene(Path(folder) / "0.npz", scene, size, point_size=2.0)
        run_worker("view", Path(folder), None)


def has_display(environment: Mapping[str, str]) -> bool:
    """Whether windows can be opened; elsewhere than on Linux they can."""
    if not sys.platform.startswith("linux"):
        return True
    return bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))
