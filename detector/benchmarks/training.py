"""How long a training step takes on this machine, and how much of it is waiting for data."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from typing import Any

import torch

from detector.config import Config, build, build_model
from detector.records import Batch
from detector.training.data import EpochBatches, TrainingFrames, training_batches
from detector.training.distributed import device_of_process
from detector.training.step import (
    TrainableDetector,
    UpdateWeights,
    fuse_backbone,
    make_optimizer,
)


@dataclass(frozen=True)
class TrainingTimes:
    """What `measure_training` finds; times are means over the steps measured."""

    config: str
    device: str
    precision: str
    batch_size: int
    workers: int
    compute_ms: float
    """A step with its frames in memory already."""
    step_ms: float
    """A step with frames that come from the loader, augmented."""
    data_ms: float
    """The part of `step_ms` in which the step waited for the loader."""
    kernel_share: float | None
    """Of a step with its frames in memory: share of the time in which the GPU runs a kernel."""
    gpu_memory_gib: float | None
    """The most that tensors took up."""
    points_per_frame: float

    @property
    def frames_per_s(self) -> float:
        return 1e3 * self.batch_size / self.step_ms

    @property
    def data_share(self) -> float:
        return self.data_ms / self.step_ms

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "frames_per_s": self.frames_per_s, "data_share": self.data_share}


def measure_training(config: Config, steps: int, warmup: int = 10) -> TrainingTimes:
    """Trains the config's detector from the beginning for some steps, as tools/train.py would on
    one device, and takes their times."""
    device = device_of_process()
    torch.manual_seed(config.seed)
    torch.backends.cudnn.benchmark = True
    model = TrainableDetector(build_model(config), config.frozen).to(device).train()
    optimizer = make_optimizer(build(config.optimizer), model, device)
    for group in optimizer.param_groups:
        group["lr"] *= 0.1                  # where a schedule begins
    update = UpdateWeights(
        optimizer, clip_norm=config.clip_norm, accumulate=1, precision=config.precision,
        device=device,
    )  # fmt: skip
    fuse_backbone(model.detector, config.fused_backbone, update.dtype, device)
    if config.cuda_graph and device.type == "cuda":
        model.replay_dense_loss(update.dtype)
    frames = TrainingFrames(
        build(config.train_dataset), build(config.train_transforms), config.seed,
        config.cache_frames, config.epochs,
    )  # fmt: skip
    loader = training_batches(frames, _Endless(frames, config), config.workers, device)
    batches = iter(loader)
    kept = list(islice(batches, 8))
    _run(model, update, islice(cycle(kept), warmup), device)
    compute_s, _ = _run(model, update, islice(cycle(kept), steps), device)
    kernel_share = _kernel_share(model, update, kept, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    _run(model, update, islice(batches, 2 + 2 * config.workers), device)
    step_s, data_s = _run(model, update, islice(batches, steps), device)
    batches.close()
    on_gpu = device.type == "cuda"
    return TrainingTimes(
        config=config.path.stem,
        device=torch.cuda.get_device_name() if on_gpu else "cpu",
        precision=config.precision,
        batch_size=config.batch_size,
        workers=config.workers,
        compute_ms=1e3 * compute_s / steps,
        step_ms=1e3 * step_s / steps,
        data_ms=1e3 * data_s / steps,
        kernel_share=kernel_share,
        gpu_memory_gib=torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
        points_per_frame=sum(len(b.points) for b in kept) / sum(b.batch_size for b in kept),
    )


class _Endless:
    """Keys of one epoch after the other."""

    def __init__(self, frames: TrainingFrames, config: Config):
        self.epochs = [
            EpochBatches(len(frames), config.batch_size, config.seed) for _ in range(ENOUGH)
        ]
        for epoch, batches in enumerate(self.epochs):
            batches.epoch = epoch % config.epochs

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batches in self.epochs:
            yield from batches

    def __len__(self) -> int:
        return sum(map(len, self.epochs))


ENOUGH = 50


def _run(
    model: TrainableDetector, update: UpdateWeights, batches: Iterable[Batch],
    device: torch.device,
) -> tuple[float, float]:  # fmt: skip
    """(seconds, of these waiting for batches) of a step with each batch."""
    _wait(device)
    started = time.perf_counter()
    waited, before = 0.0, started
    for batch in batches:
        waited += time.perf_counter() - before
        model.train_step(batch, optim_wrapper=update)
        before = time.perf_counter()
    _wait(device)
    return time.perf_counter() - started, waited


def _kernel_share(model, update, batches: list[Batch], device: torch.device) -> float | None:
    """From the profiler's times of all kernels, overlaps counted once; its own cost is left out by
    taking kernel time a step from it and wall time a step from a run without it."""
    if device.type != "cuda":
        return None
    from torch.profiler import ProfilerActivity, profile

    seconds, _ = _run(model, update, batches, device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")     # about cycles, of which there are none here
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            _run(model, update, batches, device)
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiled.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    busy_us, reached = 0.0, float("-inf")
    for start, end in spans:
        busy_us += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return busy_us / 1e6 / seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def training_table(results: list[TrainingTimes]):
    """A table for the console."""
    from rich.table import Table

    first = results[0]
    table = Table(
        title=f"{first.config}, {first.precision}, {first.points_per_frame:,.0f} points a frame, "
        f"{first.workers} workers, {first.device}"
    )
    headings = (
        "batch", "step ms", "frames/s", "waits", "without data", "GPU busy", "GPU GiB"
    )  # fmt: skip
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for r in results:
        table.add_row(
            str(r.batch_size), f"{r.step_ms:.1f}", f"{r.frames_per_s:.0f}",
            f"{100 * r.data_share:.0f} %", f"{r.compute_ms:.1f}",
            "" if r.kernel_share is None else f"{100 * r.kernel_share:.0f} %",
            "" if r.gpu_memory_gib is None else f"{r.gpu_memory_gib:.1f}",
        )  # fmt: skip
    return table
