"""mmengine's Runner with our checkpoints and loop, and without its hundreds of log lines."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import torch
from mmengine.hooks import EMAHook
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from mmengine.runner import BaseLoop, Runner

from detector.errors import InputError
from detector.training.checkpoint import (
    check_weights,
    link_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from detector.training.data import Batches, EpochBatches
from detector.training.distributed import share_buffers
from detector.training.hooks import FiniteLossGuard

STEPS_TO_AGREE = 10


class Stopped(Exception):
    """Training was asked to stop and has saved where it stands."""


class TrainLoop(BaseLoop):
    """Epochs of steps, each epoch followed by a checkpoint and, where due, an evaluation.

    A run that was stopped anywhere, within an epoch too, goes on with the very next batch.

    Args:
        runner: the runner.
        dataloader: training batches.
        batches: the sampler behind them.
        epochs: how many.
        evaluate: gives the scalars of an evaluation of the model as it stands.
        evaluate_every: epochs between evaluations; 0 for the end alone.
        checkpoints: writes them.
    """

    def __init__(
        self, runner: Runner, dataloader: Batches, batches: EpochBatches, epochs: int,
        evaluate: Callable[[], dict[str, float]], evaluate_every: int, checkpoints: Checkpoints,
    ):  # fmt: skip
        self._runner = runner
        self.dataloader = dataloader
        self.batches = batches
        self.max_epochs = epochs
        self.max_iters = epochs * batches.batches
        self.evaluate = evaluate
        self.evaluate_every = evaluate_every
        self.checkpoints = checkpoints
        self.iter = 0
        self.evaluated_epoch = 0
        self.stop_requested = False

    @property
    def epoch(self) -> int:
        """Epochs that are done."""
        return self.iter // self.batches.batches

    @property
    def epoch_of_step(self) -> int:
        """The epoch, from 0, of the last step."""
        return max(self.iter - 1, 0) // self.batches.batches

    def run(self) -> torch.nn.Module:
        self.agreed_at = self.iter
        self.runner.call_hook("before_train")
        # A run that was stopped between an epoch's checkpoint and its evaluation.
        if self.iter and self.iter % self.batches.batches == 0:
            self._evaluate_if_due()
        while self.epoch < self.max_epochs:
            self._run_epoch()
            self.checkpoints.save_epoch(self.runner)
            self._evaluate_if_due()
        self.runner.call_hook("after_train")
        return self.runner.model

    def _run_epoch(self) -> None:
        self.batches.epoch = self.epoch
        self.batches.first_batch = self.iter % self.batches.batches
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        for step, batch in enumerate(self.dataloader, start=self.batches.first_batch):
            self.runner.optim_wrapper.begin_step(step, self.batches.batches)
            self.runner.call_hook("before_train_iter", batch_idx=step, data_batch=batch)
            outputs = self.runner.model.train_step(batch, optim_wrapper=self.runner.optim_wrapper)
            self.runner.call_hook(
                "after_train_iter", batch_idx=step, data_batch=batch, outputs=outputs
            )
            self.iter += 1
            if self._must_stop():
                self.checkpoints.save_latest(self.runner)
                raise Stopped
        self.runner.call_hook("after_train_epoch")

    def _must_stop(self) -> bool:
        # Between updates there are gradients that no checkpoint holds.
        if not self.runner.optim_wrapper.should_update():
            return False
        if not self.runner.distributed:
            return self.stop_requested
        # All processes must stop at the same step; they agree now and then, to wait little.
        if self.iter - self.agreed_at < STEPS_TO_AGREE and self.iter % self.batches.batches:
            return False
        self.agreed_at = self.iter
        flag = torch.tensor(float(self.stop_requested), device=self.runner.device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        return bool(flag.item())

    def _evaluate_if_due(self) -> None:
        due = self.evaluate_every > 0 and self.epoch % self.evaluate_every == 0
        if self.evaluated_epoch == self.epoch or not (due or self.epoch == self.max_epochs):
            return
        self.runner.call_hook("before_val_epoch")
        share_buffers(self.runner.detector)
        metrics = self.evaluate()
        self.evaluated_epoch = self.epoch
        self.runner.call_hook("after_val_epoch", metrics=metrics)
        self.checkpoints.note_evaluation(self.runner, metrics)


class Checkpoints:
    """`latest.pth`, `best.pth` and the last epochs' files in a run's folder.

    Args:
        work_dir: the folder.
        about: what every checkpoint says beside weights and state: config, classes.
        best_metric: the evaluation's scalar that chooses `best.pth`.
        keep: how many epochs' files stay.
        guard: looked at before anything is written.
    """

    def __init__(
        self, work_dir: Path, about: dict[str, Any], best_metric: str, keep: int,
        guard: FiniteLossGuard,
    ):  # fmt: skip
        self.work_dir = work_dir
        self.about = about
        self.best_metric = best_metric
        self.keep = keep
        self.guard = guard
        self.best_score: float | None = None

    @property
    def latest(self) -> Path:
        return self.work_dir / "latest.pth"

    def save_latest(self, runner: QuietRunner) -> None:
        """Where the run stands, within an epoch too."""
        self.guard.check_everywhere()
        if runner.rank == 0:
            save_checkpoint(self.latest, self._content(runner))

    def save_epoch(self, runner: QuietRunner, best: bool = False) -> None:
        """After an epoch: a file of its own, which `latest.pth`, and `best.pth` if it is best,
        then are, too. `latest.pth` is the last of them, so that a run that is killed in between
        does all of this again."""
        self.guard.check_everywhere()
        if runner.rank != 0:
            return
        path = self.work_dir / f"epoch_{runner.epoch}.pth"
        save_checkpoint(path, self._content(runner))
        if best:
            link_checkpoint(path, self.work_dir / "best.pth")
        link_checkpoint(path, self.latest)
        for old in self._epoch_files()[self.keep :]:
            old.unlink(missing_ok=True)

    def note_evaluation(self, runner: QuietRunner, metrics: dict[str, float]) -> None:
        """Writes the epoch's file again with its evaluation, as `best.pth` too if it is best.

        Raises:
            InputError: the evaluation has no such scalar as the config's `best_metric`.
        """
        if self.best_metric not in metrics:
            raise InputError(
                f"best_metric in the config is {self.best_metric!r}, but the evaluation gives "
                f"{', '.join(sorted(metrics))}"
            )
        score = metrics[self.best_metric]
        best = self.best_score is None or score > self.best_score
        if best:
            self.best_score = score
        self.save_epoch(runner, best)

    def newest_usable(self) -> tuple[dict[str, Any], Path] | None:
        """The newest checkpoint that can be read, and a sentence on each that cannot."""
        for path in [self.latest, *self._epoch_files()]:
            if not path.exists():
                continue
            try:
                return load_checkpoint(path), path
            except InputError as error:
                print(f"{error}; trying the one before", flush=True)
        return None

    def _epoch_files(self) -> list[Path]:
        """Newest first."""
        files = [f for f in self.work_dir.glob("epoch_*.pth") if f.stem[6:].isdigit()]
        return sorted(files, key=lambda f: -int(f.stem[6:]))

    def _content(self, runner: QuietRunner) -> dict[str, Any]:
        loop = runner.train_loop
        content = {
            **self.about,
            "state_dict": runner.detector.state_dict(),
            "optimizer": runner.optim_wrapper.state_dict(),
            "iteration": loop.iter,
            "batches_per_epoch": loop.batches.batches,
            "epoch": runner.epoch,
            "evaluated_epoch": loop.evaluated_epoch,
            "best_score": self.best_score,
            "torch_rng": torch.get_rng_state(),
        }
        if runner.device.type == "cuda":
            content["cuda_rng"] = torch.cuda.get_rng_state()
        runner.call_hook("before_save_checkpoint", checkpoint=content)
        return content


class DetectorEMA(EMAHook):
    """The moving average of weights; a checkpoint's `state_dict` is the average, and the weights
    that training goes on with are kept beside it."""

    def before_run(self, runner: QuietRunner) -> None:
        # Of the detector itself, so that names in checkpoints have no prefix.
        self.src_model = runner.detector
        self.ema_model = MODELS.build(self.ema_cfg, default_args={"model": self.src_model})

    def after_load_checkpoint(self, runner: QuietRunner, checkpoint: dict) -> None:
        if "ema_state_dict" not in checkpoint:
            raise InputError(
                "the checkpoint holds no average of weights, the config's ema asks for one; "
                "resume with ema=0 or start anew"
            )
        super().after_load_checkpoint(runner, checkpoint)


class QuietRunner(Runner):
    """A Runner that says nothing of its own and whose checkpoints are ours."""

    def __init__(self, *, checkpoints: Checkpoints, resume: bool, **options):
        self.checkpoints = checkpoints
        super().__init__(**options)
        self._resume = resume
        # The folder for mmengine's own logs stays empty.
        if self.rank == 0:
            shutil.rmtree(self._log_dir, ignore_errors=True)

    def use_loop(self, loop: TrainLoop) -> None:
        """The loop needs the runner, and the runner was made before it."""
        self._train_loop = loop

    @property
    def detector(self) -> torch.nn.Module:
        """The model without what wraps it."""
        return getattr(self.model, "module", self.model).detector

    @property
    def device(self) -> torch.device:
        return next(self.detector.parameters()).device

    def build_logger(self, *args, **options) -> MMLogger:
        return MMLogger.get_instance(self._experiment_name, log_level="ERROR")

    def build_visualizer(self, visualizer=None):
        return SimpleNamespace(add_config=lambda config: None)

    def _log_env(self, env_cfg: dict) -> None:
        pass

    def dump_config(self) -> None:
        pass

    def load_or_resume(self) -> None:
        """Goes on from the newest checkpoint that can be read, or starts at the beginning."""
        if not self._resume:
            return
        found = self.checkpoints.newest_usable()
        if found is None:
            print(f"{self.work_dir}: holds no usable checkpoint, starting from the beginning")
            return
        content, path = found
        loop = self.train_loop
        if content["batches_per_epoch"] != loop.batches.batches:
            raise InputError(
                f"{path}: was saved by a run of {content['batches_per_epoch']} steps an epoch, "
                f"this one has {loop.batches.batches}; resume with the same data, batch_size and "
                f"number of processes"
            )
        check_weights(self.detector, content, path, self.checkpoints.about["classes"])
        self.call_hook("after_load_checkpoint", checkpoint=content)
        self.detector.load_state_dict(content["state_dict"])
        self.optim_wrapper.load_state_dict(content["optimizer"])
        loop.iter = content["iteration"]
        loop.evaluated_epoch = content["evaluated_epoch"]
        self.checkpoints.best_score = content["best_score"]
        torch.set_rng_state(content["torch_rng"])
        if self.device.type == "cuda" and "cuda_rng" in content:
            torch.cuda.set_rng_state(content["cuda_rng"])
        print(
            f"going on from {path}: {content['iteration']} of {loop.max_iters} steps done",
            flush=True,
        )


class StopOnSignal:
    """While active, Ctrl-C and SIGTERM let the step finish and the loop save; twice is at once."""

    def __init__(self, loop: TrainLoop):
        self.loop = loop
        self.signal: int | None = None

    def __enter__(self) -> StopOnSignal:
        self.previous = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.loop.stop_requested:
            raise KeyboardInterrupt
        self.loop.stop_requested, self.signal = True, number
        print("\nstopping after this step; once more stops at once", flush=True)
