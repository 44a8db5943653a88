"""Writes simulated drives in both formats of the Waymo Open Dataset, so that a run can be resumed.

Each segment's files appear in one step. `simulation.json` remembers what was asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from datasets.simulation.output import SETTINGS, clear, read_settings
from datasets.simulation.processes import in_processes
from datasets.simulation.waymo_frames import WaymoDrive, draw_drive, segment_name
from datasets.waymo.writer_v1 import v1_path, write_v1
from datasets.waymo.writer_v2 import write_v2
from detector.cli import write_json
from detector.errors import InputError

FORMATS = ("v1", "v2")
_VERSION = 2
"""Raised whenever the same settings give other frames than before."""
_SPLITS = ("training", "validation")


@dataclass(frozen=True)
class Settings:
    """What to simulate."""

    frames: int
    """For training."""
    val_frames: int
    """For validation, from worlds of their own."""
    seed: int = 0
    segment_frames: int = 4
    """Frames a segment."""
    gap_s: float = 1.0
    """Seconds between them; the data set's own is 0.1."""
    formats: tuple[str, ...] = FORMATS
    with_pictures: bool = False
    columns: int | None = None
    """Of the top laser's range image; None: the data set's 2650."""

    def segments(self) -> list[SegmentJob]:
        """All segments: training first."""
        jobs = []
        for part, total in enumerate((self.frames, self.val_frames)):
            for number, first in enumerate(range(0, total, self.segment_frames)):
                count = min(self.segment_frames, total - first)
                jobs.append(SegmentJob((self.seed, part, number), count, self))
        return jobs


@dataclass(frozen=True)
class SegmentJob:
    """One segment's files."""

    seed: tuple[int, int, int]
    """Run, split, number."""
    count: int
    settings: Settings

    @property
    def split(self) -> str:
        return _SPLITS[self.seed[1]]

    def drive(self) -> WaymoDrive:
        """The drive that the segment shows."""
        return draw_drive(
            self.seed, self.count, self.settings.gap_s, columns=self.settings.columns,
            with_pictures=self.settings.with_pictures,
        )  # fmt: skip


def open_folder(out: Path, settings: Settings, overwrite: bool) -> list[SegmentJob]:
    """Makes an output folder ready and lists the segments to simulate; what an interrupted run
    of the same settings has written is kept.

    Raises:
        InputError: the folder holds something else and `overwrite` is False, holds a data set
            that no simulation wrote, or can't be written.
    """
    wanted = json.loads(json.dumps({"version": _VERSION, **asdict(settings)}))
    try:
        occupied = out.exists() and (not out.is_dir() or any(out.iterdir()))
        if occupied and overwrite:
            clear(out, FORMATS)
        elif occupied and read_settings(out) != wanted:
            raise InputError(
                f"{out}: not empty; give --overwrite to replace what a simulation wrote there, or "
                f"choose another folder (an interrupted run goes on with the same options)"
            )
        for torn in out.rglob(".*.partial"):
            torn.unlink()
    except OSError as error:
        raise InputError(
            f"{out}: can't be written ({error.strerror}); choose a folder that you may write to"
        ) from error
    write_json(out / SETTINGS, wanted)
    return settings.segments()


def simulate(out: Path, jobs: list[SegmentJob], workers: int) -> Iterator[SegmentJob]:
    """Simulates segments in `workers` processes (1: in this one), and yields each when it is
    done. What is written does not depend on the number of processes.

    Raises:
        InputError: the folder can't be written, or a process was killed.
    """
    calls = [(out, job) for job in jobs]
    remedy = ", finished segments are kept"
    for number, _ in in_processes(_simulate_segment, calls, workers, remedy):
        yield jobs[number]


def _simulate_segment(out: Path, job: SegmentJob) -> None:
    name = segment_name(job.seed)
    paths = {
        "v1": v1_path(out / "v1" / job.split, name),
        # The table of poses is the last of format 2 to appear.
        "v2": out / "v2" / job.split / "vehicle_pose" / f"{name}.parquet",
    }
    missing = [kind for kind in job.settings.formats if not paths[kind].is_file()]
    if missing:
        drive = job.drive()
        frames = [drive.frame(index) for index in range(job.count)]
        for kind in missing:
            write = {"v1": write_v1, "v2": write_v2}[kind]
            write(out / kind / job.split, name, frames)
