"""What happens around training steps: the guard against bad losses, and the records of a run."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor

from detector.cli import write_json
from detector.errors import InputError
from detector.records import Batch
from detector.training.distributed import position


class FiniteLossGuard(Hook):
    """Stops where a loss is not finite, names the frames of that step and writes them down.

    The loss of a step is looked at after the next one has been handed to the GPU, from a copy that
    was asked for right behind its own step, so that the GPU never runs dry; `check` must be called
    before anything is saved.

    Args:
        report: JSON file for the losses and the frames.
    """

    priority = "VERY_HIGH"

    def __init__(self, report: Path):
        self.report = report
        self.pending: tuple[dict[str, Tensor], _HostValue, Batch, int, int] | None = None

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        total = _HostValue(outputs["total"])
        self.check()
        self.pending = (outputs, total, data_batch, runner.epoch, batch_idx)

    def check_everywhere(self) -> None:
        """Looks at the last step of all processes, before its weights are saved.

        Raises:
            InputError: the loss of this or of another process was not finite.
        """
        if position()[1] > 1 and self.pending is not None:
            total = self.pending[0]["total"]
            bad = (~torch.isfinite(total)).float()
            torch.distributed.all_reduce(bad)
            if bad.item() and math.isfinite(total.item()):
                raise InputError("the loss of another process is not finite; see what it says")
        self.check()

    def check(self) -> None:
        """Looks at the last step.

        Raises:
            InputError: its loss was not finite.
        """
        if self.pending is None:
            return
        (terms, total, batch, epoch, step), self.pending = self.pending, None
        if math.isfinite(total.get()):
            return
        values = ", ".join(f"{k} {v.item():.4g}" for k, v in terms.items() if k != "total")
        write_json(
            self.report,
            {
                "epoch": epoch + 1, "step": step + 1, "frames": batch.frame_ids,
                "losses": {k: v.item() for k, v in terms.items()},
            },
            allow_nan=True,
        )  # fmt: skip
        raise InputError(
            f"the loss is not finite ({values}) at epoch {epoch + 1}, step {step + 1}, frames "
            f"{', '.join(batch.frame_ids)} (written to {self.report}); no weights of this were "
            f"saved: look at these frames with tools/visualize.py, or go on from the last "
            f"checkpoint with --resume and a lower optimizer.lr"
        )


class _HostValue:
    """A number of a GPU on its way to the host. `Tensor.item()` would wait for all that the GPU has
    been given by then; this waits for what had been given when it was made."""

    def __init__(self, value: Tensor):
        self.value, self.arrived = value.detach(), None
        if value.is_cuda:
            self.value = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
            self.value.copy_(value.detach(), non_blocking=True)
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    def get(self) -> float:
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.value.item()


class ProgressHook(Hook):
    """Writes losses, speed and time left: lines for people, JSON lines and TensorBoard.

    Args:
        work_dir: where `metrics.jsonl` and `tensorboard/` go.
        batch_size: frames a step, over all processes.
        every_s: seconds between lines; the end of an epoch always gets one.
    """

    priority = "LOW"

    def __init__(self, work_dir: Path, batch_size: int, every_s: float = 10.0):
        self.work_dir = work_dir
        self.batch_size = batch_size
        self.every_s = every_s
        self.board = None
        self.sums: dict[str, Tensor] = {}
        self.points = self.voxels = self.frames = 0
        self.steps = 0
        self.data_s = 0.0

    def before_train(self, runner) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.board = SummaryWriter(str(self.work_dir / "tensorboard"), purge_step=runner.iter)
        self.started = self.last_line = self.last_step = time.perf_counter()
        self.first_iter = runner.iter
        self.evaluation_s = 0.0
        self.warm = False
        runner.detector.encoder.register_forward_hook(self._count_voxels)

    def _count_voxels(self, encoder, inputs, voxels) -> None:
        if encoder.training:
            self.voxels += len(voxels.coordinates)

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.data_s += time.perf_counter() - self.last_step

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        for name, value in outputs.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.steps += 1
        self.frames += data_batch.batch_size
        self.points += len(data_batch.points)
        self.last_step = time.perf_counter()
        if self.last_step - self.last_line >= self.every_s:
            self._write(runner, batch_idx + 1, runner.iter + 1)

    def after_train_epoch(self, runner) -> None:
        if self.steps:
            self._write(runner, runner.train_loop.batches.batches, runner.iter)

    def before_val_epoch(self, runner) -> None:
        self.evaluation_started = time.perf_counter()

    def after_val_epoch(self, runner, metrics: Mapping[str, float] | None = None) -> None:
        now = time.perf_counter()
        self.evaluation_s += now - self.evaluation_started
        self.last_step = self.last_line = now
        # During evaluation the epoch counts as done, at its end too.
        self._append({"epoch": runner.epoch, "step": runner.iter, "evaluation": dict(metrics)})
        for name, value in metrics.items():
            self.board.add_scalar(f"evaluation/{name}", value, runner.iter)

    def after_train(self, runner) -> None:
        self.board.close()

    def _write(self, runner, step_of_epoch: int, step: int) -> None:
        now = time.perf_counter()
        seconds = now - self.last_line
        losses = {k: float(v) / self.steps for k, v in self.sums.items()}
        speed = self.steps * self.batch_size / max(seconds, 1e-9)
        spent = now - self.started - self.evaluation_s
        left = spent / (step - self.first_iter) * (runner.max_iters - step)
        record = {
            "epoch": runner.train_loop.epoch_of_step + 1,
            "step": step,
            "losses": losses,
            "lr": runner.optim_wrapper.optimizer.param_groups[0]["lr"],
            "grad_norm": _finite(runner.optim_wrapper.grad_norm),
            "frames_per_s": speed,
            "step_ms": 1e3 * seconds / self.steps,
            "data_ms": 1e3 * self.data_s / self.steps,
            "data_share": self.data_s / max(seconds, 1e-9),
            "points_per_frame": self.points / self.frames,
            "voxels_per_frame": self.voxels / self.frames,
        }
        if runner.optim_wrapper.scaler.is_enabled():
            record["loss_scale"] = runner.optim_wrapper.scaler.get_scale()
        if torch.cuda.is_available():
            record["gpu_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        self._append(record)
        for name, value in losses.items():
            self.board.add_scalar(f"loss/{name}", value, step)
        for name in sorted(set(record) - {"epoch", "step", "losses"}):
            if record[name] is not None:
                self.board.add_scalar(f"training/{name}", record[name], step)
        terms = ", ".join(f"{k} {v:.3f}" for k, v in losses.items() if k != "total")
        print(
            f"epoch {record['epoch']}/{runner.max_epochs}  "
            f"step {step_of_epoch}/{runner.train_loop.batches.batches}  "
            f"loss {losses['total']:.3f} ({terms})  lr {record['lr']:.2e}  "
            f"{speed:.1f} frames/s  data {100 * record['data_share']:.0f} %  "
            f"left {duration(left)}",
            flush=True,
        )
        self.points = self.voxels = self.frames = 0
        self.sums, self.steps, self.data_s = {}, 0, 0.0
        self.last_line = self.last_step = now
        if not self.warm:
            # The first steps compile kernels and fill caches; what is left takes no such time.
            self.warm, self.started, self.first_iter = True, now, step
            self.evaluation_s = 0.0

    def _append(self, record: dict[str, Any]) -> None:
        path = self.work_dir / "metrics.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror}); make room and go on with --resume"
            ) from error


def _finite(value: Tensor) -> float | None:
    """None, JSON's null, for what has no number: the gradients of a step that float16 could not
    hold, which changes no weights and lowers the loss's scale."""
    number = float(value)
    return number if math.isfinite(number) else None


def duration(seconds: float) -> str:
    """Such as `2 h 05 min`, `3 min 07 s` or `12 s`."""
    seconds = round(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    if seconds >= 60:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds} s"
