"""Writes simulated drives as a nuScenes data set: 13 tables, sensor files, a map, splits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from datasets.simulation.nuscenes_scene import SceneRows, SceneSettings, record_scene
from datasets.simulation.nuscenes_tables import MAP_FILE, fixed_tables
from datasets.simulation.processes import in_processes
from detector.errors import InputError

VERSION = "v1.0-simulated"
TRAIN, VAL = "simulated_train", "simulated_val"
_FOLDERS = ("samples", "sweeps", "maps", VERSION)


@dataclass(frozen=True)
class NuScenesSettings:
    """What to simulate."""

    scenes: int
    """For training."""
    val_scenes: int
    """For validation, of towns of their own."""
    samples: int = 16
    """Key frames a scene, at 2 Hz."""
    seed: int = 0
    lidar_columns: int = 1084
    image_size: tuple[int, int] = (400, 225)

    @property
    def names(self) -> tuple[list[str], list[str]]:
        """Scenes of the two splits."""
        total = self.scenes + self.val_scenes
        names = [f"scene-{9000 + number:04d}" for number in range(total)]
        return names[: self.scenes], names[self.scenes :]

    @property
    def scene_settings(self) -> SceneSettings:
        return SceneSettings(self.samples, self.lidar_columns, self.image_size)


def open_folder(out: Path, overwrite: bool) -> None:
    """Makes the output folder ready.

    Raises:
        InputError: it is not empty and `overwrite` is False, or holds what no simulation wrote.
    """
    try:
        occupied = out.exists() and (not out.is_dir() or any(out.iterdir()))
        if occupied and not overwrite:
            raise InputError(
                f"{out}: not empty; give --overwrite to replace what a simulation wrote there, or "
                f"choose another folder"
            )
        if occupied:
            _clear(out)
        # Stands from the first file on, so that --overwrite knows whose folder it is.
        (out / VERSION).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{out}: can't be written ({error.strerror}); choose a folder that you may write to"
        ) from None


def simulate(out: Path, settings: NuScenesSettings, workers: int) -> Iterator[str]:
    """Simulates all scenes in `workers` processes and writes the tables after the last; yields the
    name of each scene when it is done. What is written does not depend on their number.

    Raises:
        InputError: the folder can't be written, or a process was killed.
    """
    names = [name for part in settings.names for name in part]
    jobs = [
        (out, name, number, (settings.seed, number), settings.scene_settings)
        for number, name in enumerate(names)
    ]
    rows: dict[str, SceneRows] = {}
    try:
        for number, recorded in in_processes(record_scene, jobs, workers, " and --overwrite"):
            rows[names[number]] = recorded
            yield names[number]
        write_tables(out, settings, [rows[name] for name in names])
    except OSError as error:
        raise InputError(
            f"{out}: can't be written ({error.strerror}); make room and start again with "
            f"--overwrite"
        ) from None


def write_tables(out: Path, settings: NuScenesSettings, scenes: list[SceneRows]) -> None:
    """All 13 tables, the splits and the map."""
    import cv2

    tables = fixed_tables(settings.image_size)
    for table in fields(SceneRows):
        tables[table.name] = [row for rows in scenes for row in getattr(rows, table.name)]
    for name, rows in tables.items():
        (out / VERSION / f"{name}.json").write_text(json.dumps(rows, indent=0))
    train, val = settings.names
    (out / VERSION / "splits.json").write_text(json.dumps({TRAIN: train, VAL: val}, indent=1))
    # The official kit opens a map for each log: here a square kilometre in pixels of 0.1 m.
    (out / MAP_FILE).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(out / MAP_FILE), np.full((10000, 10000), 255, np.uint8))


def _clear(out: Path) -> None:
    """Removes a former simulation, and nothing else."""
    if not out.is_dir():
        raise InputError(f"{out}: is a file; choose a folder for --out")
    if not (out / VERSION).is_dir():
        raise InputError(
            f"{out}: holds no folder {VERSION}, so that no simulation wrote it; choose another "
            f"folder"
        )
    for name in _FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)
