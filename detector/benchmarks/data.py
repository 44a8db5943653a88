"""How fast training frames come: stage by stage, and through the loader's processes."""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from detector.records import Sample, collate
from detector.training.data import TrainingFrames, training_batches


@dataclass
class Stage:
    """One step on a frame's way, in one thread."""

    name: str
    wall_ms: list[float] = field(default_factory=list)
    """Of each frame."""
    cpu_ms: list[float] = field(default_factory=list)
    """Of each frame; less than the wall's where the process waited for files or for a core."""

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls the function and notes how long it took."""
        wall, cpu = time.perf_counter(), time.thread_time()
        result = function(*arguments)
        self.cpu_ms.append(1e3 * (time.thread_time() - cpu))
        self.wall_ms.append(1e3 * (time.perf_counter() - wall))
        return result


@dataclass(frozen=True)
class DataTimes:
    """What `measure_stages` finds."""

    stages: tuple[Stage, ...]
    """In their order; the times of `collate` are a frame's share."""
    points: float
    """Mean number a frame, after augmentation."""
    boxes: float
    """Mean number a frame, after augmentation."""

    @property
    def frames_per_s(self) -> float:
        """Of one core, by the means of the stages' processor times."""
        return 1e3 / sum(float(np.mean(stage.cpu_ms)) for stage in self.stages)


def measure_stages(
    frames: TrainingFrames, count: int, batch_size: int, epoch: int = 0
) -> DataTimes:
    """Reads and augments `count` frames in this thread, after a few to warm up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)                # as in a loader's process
    try:
        _run_stages(frames, 5, batch_size, epoch)
        return _run_stages(frames, count, batch_size, epoch)
    finally:
        torch.set_num_threads(threads)


def _run_stages(frames: TrainingFrames, count: int, batch_size: int, epoch: int) -> DataTimes:
    transforms = list(frames.transforms_at(epoch))
    read, join = Stage("read"), Stage("collate")
    stages = [Stage(type(transform).__name__) for transform in transforms]
    samples: list[Sample] = []
    for turn in range(count):
        index = turn % len(frames)
        sample = read.run(frames.dataset.__getitem__, index)
        rng = np.random.default_rng((frames.seed, epoch, turn))
        for stage, transform in zip(stages, transforms, strict=True):
            sample = stage.run(transform, sample, rng)
        samples.append(sample)
    for start in range(0, count, batch_size):
        batch = samples[start : start + batch_size]
        join.run(collate, batch)
        for times in (join.wall_ms, join.cpu_ms):
            times[-1] /= len(batch)
    return DataTimes(
        stages=(read, *stages, join),
        points=float(np.mean([len(sample.points) for sample in samples])),
        boxes=float(np.mean([len(sample.boxes) for sample in samples])),
    )


def measure_loader(
    frames: TrainingFrames, batch_size: int, workers: int, seconds: float, epoch: int = 0
) -> tuple[float, float]:
    """(frames a second, processor milliseconds a frame in all processes) of the loader that
    training uses. The first tells about this machine as busy as it is, the second about the
    code."""
    keys = [
        [(epoch, (batch * batch_size + place) % len(frames)) for place in range(batch_size)]
        for batch in range(1_000_000 // batch_size)
    ]
    warm, done, used = 2 * max(workers, 1), 0, _processor_s()
    loader = iter(training_batches(frames, keys, workers, torch.device("cpu")))
    for turn, batch in enumerate(loader):
        if turn == warm:
            started, done_before = time.perf_counter(), done
        done += batch.batch_size
        if turn > warm and time.perf_counter() - started > seconds:
            break
    spent = time.perf_counter() - started
    loader.close()                          # ends its processes, whose time counts from then on
    return (done - done_before) / spent, 1e3 * (_processor_s() - used) / done


def _processor_s() -> float:
    """Of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def data_table(times: DataTimes, title: str):
    """A table for the console."""
    from rich.table import Table

    table = Table(title=f"{title}: {times.points:,.0f} points, {times.boxes:.0f} boxes a frame, "
                        f"one thread, {machine()}")  # fmt: skip
    for heading in ("stage", "processor ms, mean", "wall ms, median", "10 % to 90 %"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage in times.stages:
        low, middle, high = np.quantile(stage.wall_ms, (0.1, 0.5, 0.9))
        cpu = float(np.mean(stage.cpu_ms))
        table.add_row(stage.name, f"{cpu:.2f}", f"{middle:.2f}", f"{low:.2f} to {high:.2f}")
    table.add_section()
    table.add_row("frames/s a core", f"{times.frames_per_s:.0f}")
    return table


def machine() -> str:
    """The processor's name and how many cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = platform.processor() or platform.machine()
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        name = names[0] if names else name
    return f"{name}, {cores} cores"
