"""Writes simulated drives as a nuScenes data set: 13 tables, sensor files, a map, splits.

The tables are written when all scenes are there; until then the folder `scenes` keeps each finished
one's rows, so that a run can be resumed. `simulation.json` remembers what was asked for.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from datasets.simulation.nuscenes_scene import SceneRows, SceneSettings, record_scene
from datasets.simulation.nuscenes_tables import MAP_FILE, fixed_tables
from datasets.simulation.output import SETTINGS, clear, read_settings
from datasets.simulation.processes import in_processes
from detector.cli import write_json
from detector.errors import InputError

VERSION = "v1.0-simulated"
TRAIN, VAL = "simulated_train", "simulated_val"
_FORMAT = 3
"""Raised whenever the same settings give other files than before."""
_FINISHED = "scenes"
_FOLDERS = ("samples", "sweeps", "maps", _FINISHED, VERSION)


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


def open_folder(out: Path, settings: NuScenesSettings, overwrite: bool) -> int:
    """Makes the output folder ready; what an interrupted run of the same settings has written is
    kept, and the number of its finished scenes returned.

    Raises:
        InputError: the folder holds something else and `overwrite` is False, holds a data set
            that no simulation wrote, or can't be written.
    """
    wanted = json.loads(json.dumps({"format": _FORMAT, **asdict(settings)}))
    try:
        occupied = out.exists() and (not out.is_dir() or any(out.iterdir()))
        if occupied and overwrite:
            clear(out, _FOLDERS)
        elif occupied and (
            read_settings(out) != wanted or not (out / _FINISHED).is_dir()
        ):
            raise InputError(
                f"{out}: not empty; give --overwrite to replace what a simulation wrote there, or "
                f"choose another folder (an interrupted run goes on with the same options)"
            )
        (out / _FINISHED).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{out}: can't be written ({error.strerror}); choose a folder that you may write to"
        ) from None
    write_json(out / SETTINGS, wanted)
    return len(list((out / _FINISHED).glob("*.json")))


def simulate(out: Path, settings: NuScenesSettings, workers: int) -> Iterator[str]:
    """Simulates the scenes that are not there yet in `workers` processes and writes the tables
    after the last; yields the name of each scene when it is done. What is written does not depend
    on the number of processes.

    Raises:
        InputError: the folder can't be written, or a process was killed.
    """
    names = [name for part in settings.names for name in part]
    jobs = [
        (out, name, number, (settings.seed, number), settings.scene_settings)
        for number, name in enumerate(names)
        if not _rows_of(out, name).exists()
    ]
    try:
        for number, _ in in_processes(_record, jobs, workers, "; finished scenes are kept"):
            yield jobs[number][1]
        rows = [SceneRows(**json.loads(_rows_of(out, name).read_text())) for name in names]
        write_tables(out, settings, rows)
        shutil.rmtree(out / _FINISHED)
    except OSError as error:
        raise InputError(
            f"{out}: can't be written ({error.strerror}); make room and start again, finished "
            f"scenes are kept"
        ) from None


def _rows_of(out: Path, name: str) -> Path:
    return out / _FINISHED / f"{name}.json"


def _record(out: Path, name: str, *scene) -> None:
    """Simulates one scene; its rows are the last to appear, in one step."""
    write_json(_rows_of(out, name), asdict(record_scene(out, name, *scene)))


def write_tables(out: Path, settings: NuScenesSettings, scenes: list[SceneRows]) -> None:
    """All 13 tables, the splits and the map."""
    import cv2

    tables = fixed_tables(settings.image_size)
    for table in fields(SceneRows):
        tables[table.name] = [row for rows in scenes for row in getattr(rows, table.name)]
    (out / VERSION).mkdir(exist_ok=True)
    for name, rows in tables.items():
        (out / VERSION / f"{name}.json").write_text(json.dumps(rows, indent=0))
    train, val = settings.names
    (out / VERSION / "splits.json").write_text(json.dumps({TRAIN: train, VAL: val}, indent=1))
    # The official kit opens a map for each log: here a square kilometre in pixels of 0.1 m.
    (out / MAP_FILE).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(out / MAP_FILE), np.full((10000, 10000), 255, np.uint8))
