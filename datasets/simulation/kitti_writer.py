"""Writes simulated drives in KITTI's layout, with many processes, so that a run can be resumed.

Each file appears in one step, a frame's label last; the splits are written when all frames are
there. `simulation.json` remembers what was asked for.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from datasets.kitti_files import write_objects
from datasets.simulation.kitti_frames import KittiFrame, draw_scene
from datasets.simulation.lidar import LIDARS
from datasets.simulation.output import SETTINGS, clear, read_settings
from datasets.simulation.processes import in_processes
from detector.errors import InputError

_FORMAT = 2
"""Raised whenever the same settings give other frames than before."""
_FOLDERS = ("velodyne", "image_2", "calib", "label_2")
_TRAINING, _VALIDATION = 0, 1


@dataclass(frozen=True)
class Settings:
    """What to simulate."""

    frames: int
    """For training."""
    val_frames: int
    """For validation, from worlds of their own."""
    seed: int = 0
    sensor: str = "hdl64e"
    """A key of `LIDARS`."""
    scene_frames: int = 5
    """Frames of one world: fewer show more worlds, and take a little longer each."""

    def scenes(self) -> list[SceneJob]:
        """All scenes: training first, numbered through."""
        jobs, start = [], 0
        for part, total in ((_TRAINING, self.frames), (_VALIDATION, self.val_frames)):
            for scene, first in enumerate(range(0, total, self.scene_frames)):
                count = min(self.scene_frames, total - first)
                seed = (self.seed, part, scene)
                jobs.append(
                    SceneJob(seed, self.sensor, self.scene_frames, start + first, count)
                )
            start += total
        return jobs


@dataclass(frozen=True)
class SceneJob:
    """One scene's frames."""

    seed: tuple[int, ...]
    sensor: str
    scene_frames: int
    first_id: int
    count: int
    """`scene_frames`, or fewer in a last scene."""

    @property
    def frame_ids(self) -> list[str]:
        return [f"{self.first_id + i:06d}" for i in range(self.count)]


def open_folder(out: Path, settings: Settings, overwrite: bool) -> list[SceneJob]:
    """Makes an output folder ready and says which scenes are still to be simulated.

    A folder with the unfinished frames of the same settings is continued.

    Raises:
        InputError: the folder holds something else and `overwrite` is False, holds a data set
            that no simulation wrote, or can't be written.
    """
    try:
        wanted = {"format": _FORMAT, **asdict(settings)}
        occupied = out.exists() and (not out.is_dir() or any(out.iterdir()))
        if occupied and overwrite:
            clear(out, ("ImageSets", "training"))
        elif occupied and (read_settings(out) != wanted or (out / "ImageSets").exists()):
            raise InputError(
                f"{out}: not empty; give --overwrite to replace what a simulation wrote there, or "
                f"choose another folder (an interrupted run goes on with the same options)"
            )
        for kind in _FOLDERS:
            (out / "training" / kind).mkdir(parents=True, exist_ok=True)
            for torn in (out / "training" / kind).glob(".*.partial"):
                torn.unlink()
        _write(out / SETTINGS, (json.dumps(wanted, indent=2) + "\n").encode())
        done = {path.stem for path in (out / "training" / "label_2").glob("*.txt")}
    except OSError as error:
        raise InputError(
            f"{out}: can't be written ({error.strerror}); choose a folder that you may write to"
        ) from None
    return [job for job in settings.scenes() if not done.issuperset(job.frame_ids)]


def simulate(out: Path, jobs: list[SceneJob], workers: int) -> Iterator[SceneJob]:
    """Simulates scenes in `workers` processes (1: in this one), and yields each when it is done.

    What is written does not depend on the number of processes.

    Raises:
        InputError: the folder can't be written, or a process was killed.
    """
    calls = [(out, job) for job in jobs]
    remedy = ", finished frames are kept"
    for number, _ in in_processes(_simulate_scene, calls, workers, remedy):
        yield jobs[number]


def finish(out: Path, settings: Settings) -> None:
    """Writes the splits train, val and trainval: the mark of a data set that is complete."""
    ids = [f"{i:06d}\n" for i in range(settings.frames + settings.val_frames)]
    splits = {"train": ids[: settings.frames], "val": ids[settings.frames :], "trainval": ids}
    partial = out / ".ImageSets.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for name, members in splits.items():
        if members:
            (partial / f"{name}.txt").write_text("".join(members))
    partial.rename(out / "ImageSets")


def write_frame(out: Path, frame_id: str, frame: KittiFrame) -> None:
    """The four files of a frame."""
    import cv2

    folder = out / "training"
    _write(folder / "velodyne" / f"{frame_id}.bin", frame.points.astype("<f4").tobytes())
    _write(folder / "calib" / f"{frame_id}.txt", frame.rig.text().encode())
    bgr = np.ascontiguousarray(frame.picture[..., ::-1])
    _, png = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    _write(folder / "image_2" / f"{frame_id}.png", png.tobytes())
    label = folder / "label_2" / f"{frame_id}.txt"
    write_objects(_partial(label), frame.objects)
    _partial(label).replace(label)


def _simulate_scene(out: Path, job: SceneJob) -> None:
    scene = draw_scene(job.seed, LIDARS[job.sensor](), job.scene_frames)
    for index, frame_id in enumerate(job.frame_ids):
        if not (out / "training" / "label_2" / f"{frame_id}.txt").exists():
            try:
                write_frame(out, frame_id, scene.frame(index))
            except OSError as error:
                raise InputError(
                    f"{out}: frame {frame_id} can't be written ({error.strerror}); make room and "
                    f"start again, finished frames are kept"
                ) from None


def _write(path: Path, data: bytes) -> None:
    _partial(path).write_bytes(data)
    _partial(path).replace(path)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")
