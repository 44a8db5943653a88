"""`train`: from a config to checkpoints."""

from __future__ import annotations

import signal
import uuid
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from detector.config import Config, build, build_model
from detector.errors import InputError
from detector.training.checkpoint import check_weights, load_checkpoint, save_text
from detector.training.data import Batches, EpochBatches, TrainingFrames, training_batches
from detector.training.distributed import (
    device_of_process,
    from_first,
    join,
    lost_process_named,
)
from detector.training.evaluation import evaluate
from detector.training.hooks import FiniteLossGuard, ProgressHook
from detector.training.runner import (
    Checkpoints,
    DetectorEMA,
    QuietRunner,
    StopOnSignal,
    Stopped,
    TrainLoop,
)
from detector.training.schedule import ScheduleHook
from detector.training.step import (
    TrainableDetector,
    UpdateWeights,
    autocast_dtype,
    fuse_backbone,
    make_optimizer,
)
from detector.training.sync_norm import synchronise_norms


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended."""

    work_dir: Path
    """Holds `latest.pth`, `best.pth`, `metrics.jsonl` and `tensorboard/`."""
    finished: bool
    """False if it was stopped; it can go on with `resume`."""
    interrupted: bool
    """Whether Ctrl-C stopped it, and not a scheduler's SIGTERM."""
    best_score: float | None
    """Best value of the config's `best_metric`."""


def train(
    config: Config, work_dir: str | Path, resume: bool = False, weights: Path | None = None
) -> TrainingResult:
    """Trains the config's detector and evaluates it as the config says.

    Under `torchrun` every process calls this. Ctrl-C and SIGTERM finish the step, save, and
    return.

    Args:
        resume: go on with the run that is in `work_dir`.
        weights: a checkpoint whose weights a new run starts from, to fine-tune them.

    Raises:
        InputError: a folder that cannot be written or holds a run already, data or settings that
            cannot be used, a loss that is not finite.
    """
    work_dir = Path(work_dir)
    # Its successor does not exist in the older versions of torch that are supported.
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    rank, processes = join()
    if rank == 0:
        prepare_work_dir(work_dir, config, resume)
    torch.manual_seed(config.seed)
    model = TrainableDetector(build_model(config), config.frozen)
    if weights is not None:
        content = load_checkpoint(weights)
        check_weights(model.detector, content, weights, config.classes)
        model.detector.load_state_dict(content["state_dict"])
    if config.sync_norm and processes > 1:
        synchronise_norms(model)

    dataset = build(config.train_dataset)
    if len(dataset) == 0:
        raise InputError(f"{config.path}: the training data set has no frames; check its split")
    validation = build(config.val_dataset)
    frames = TrainingFrames(
        dataset, build(config.train_transforms), config.seed, config.cache_frames, config.epochs
    )
    device = device_of_process()
    dtype = autocast_dtype(config.precision, device)
    backbone = fuse_backbone(model.detector, config.fused_backbone, dtype, device)
    batches = EpochBatches(len(frames), config.batch_size, config.seed, rank, processes)
    loader = training_batches(frames, batches, config.workers, device, config.skip_bad_frames)

    name = "not_finite.json" if rank == 0 else f"not_finite_{rank}.json"
    guard = FiniteLossGuard(work_dir / name)
    about = {"config": config.text(), "classes": tuple(config.classes), "seed": config.seed}
    checkpoints = Checkpoints(
        work_dir, about, config.best_metric, config.keep_checkpoints, guard
    )
    optimizer = make_optimizer(build(config.optimizer), model.to(device), device)
    if config.cuda_graph and device.type == "cuda" and processes == config.accumulate == 1:
        model.replay_dense_loss(dtype)
    hooks = [
        guard,
        ScheduleHook(build(config.schedule), optimizer.param_groups[0]["lr"]),
    ]
    if config.ema:
        hooks.append(DetectorEMA(momentum=1 - config.ema))
    if rank == 0:
        hooks.append(ProgressHook(work_dir, config.batch_size * processes))
    runner = QuietRunner(
        checkpoints=checkpoints,
        resume=resume,
        model=model,
        work_dir=str(work_dir),
        train_dataloader=loader,
        train_cfg={},
        optim_wrapper=UpdateWeights(
            optimizer, clip_norm=config.clip_norm, accumulate=config.accumulate,
            precision=config.precision, device=device,
        ),
        default_hooks={name: None for name in UNUSED_HOOKS},
        # The dense maps have the same size at every step.
        env_cfg={"cudnn_benchmark": True},
        custom_hooks=hooks,
        launcher="pytorch" if processes > 1 else "none",
        cfg={} if device.type == "cuda" else {"model_wrapper_cfg": CPU_WRAPPER},
        randomness={"seed": config.seed},
        # mmengine keeps a logger for each name.
        experiment_name=f"{config.path.stem}-{uuid.uuid4().hex[:8]}",
    )  # fmt: skip

    def evaluate_now() -> dict[str, float]:
        evaluated = evaluate(
            runner.detector, validation, config.batch_size, config.workers, "evaluating"
        )
        return from_first(evaluated[0].scalars() if evaluated else None)

    loop = TrainLoop(
        runner, loader, batches, config.epochs, evaluate_now, config.evaluate_every, checkpoints
    )
    runner.use_loop(loop)
    if rank == 0:
        size = sum(p.numel() for p in model.parameters())
        print(
            f"{config.path.stem}: {size:,} weights, {len(frames)} frames, {batches.batches} "
            f"steps an epoch, {config.epochs} epochs, on {processes} x {device.type}",
            *filter(None, [backbone]), sep="\n", flush=True,
        )  # fmt: skip
    try:
        with StopOnSignal(loop) as stop, lost_process_named(rank, processes):
            runner.train()
    except Stopped:
        if rank == 0:
            print(
                f"stopped at step {loop.iter} of {loop.max_iters}; everything is saved in "
                f"{checkpoints.latest}; go on with the same command and --resume",
                flush=True,
            )
        interrupted = stop.signal == signal.SIGINT
        return TrainingResult(work_dir, False, interrupted, checkpoints.best_score)
    finally:
        _report_skipped(loader)
    return TrainingResult(work_dir, True, False, checkpoints.best_score)


def _report_skipped(loader: Batches) -> None:
    """Says at the end how many frames were bad, where that did not stop the run."""
    if loader.skipped:
        print(f"skipped {len(loader.skipped)} bad frames in this run, first:")
        for sentence in list(loader.skipped)[:5]:
            print(f"  {sentence}", flush=True)


# What mmengine's Runner does on its own and ours does otherwise.
UNUSED_HOOKS = (
    "runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint"
)  # fmt: skip
CPU_WRAPPER = {
    "type": "MMDistributedDataParallel", "device_ids": None, "broadcast_buffers": False
}  # fmt: skip


def prepare_work_dir(work_dir: Path, config: Config, resume: bool) -> None:
    """Makes the folder and writes the config there.

    Raises:
        InputError: it cannot be written, or holds a run and `resume` was not asked for.
    """
    if not resume and (work_dir / "latest.pth").exists():
        raise InputError(
            f"{work_dir}: holds a run already (latest.pth); go on with --resume or choose another "
            f"--work-dir"
        )
    for leftover in work_dir.glob(".*.part"):
        # Of a run that was killed while it wrote.
        leftover.unlink(missing_ok=True)
    save_text(work_dir / "config.txt", config.text())
