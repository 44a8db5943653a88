"""Learning rate and momentum as functions of how much of the training is done.

They hold no state, so a resumed run needs none and goes on exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mmengine.hooks import Hook


@dataclass(frozen=True)
class OneCycle:
    """Up to the peak and down again along cosines, momentum the other way round.

    Smith, Topin: "Super-Convergence", 2018.

    Args:
        warmup: share of the training in which the rate rises.
        start, end: the first and the last rate, as shares of the peak.
        momentum: of the first moment, at the ends and at the peak.
    """

    warmup: float = 0.4
    start: float = 0.1
    end: float = 1e-5
    momentum: tuple[float, float] = (0.95, 0.85)

    def __post_init__(self):
        if not 0 < self.warmup < 1:
            raise ValueError(f"warmup is {self.warmup}, it must lie between 0 and 1")

    def at(self, progress: float) -> tuple[float, float]:
        """(share of the peak rate, momentum) at `progress` in [0, 1]."""
        if progress < self.warmup:
            turn = _cosine(progress / self.warmup)
            low = self.start
        else:
            turn = _cosine((1 - progress) / (1 - self.warmup))
            low = self.end
        outer, inner = self.momentum
        return low + (1 - low) * turn, outer + (inner - outer) * turn


@dataclass(frozen=True)
class Constant:
    """The same rate throughout."""

    momentum: float = 0.9

    def at(self, progress: float) -> tuple[float, float]:
        return 1.0, self.momentum


def _cosine(x: float) -> float:
    """From 0 at 0 to 1 at 1."""
    return (1 - math.cos(math.pi * min(max(x, 0.0), 1.0))) / 2


class ScheduleHook(Hook):
    """Sets the rate and the momentum before every step."""

    def __init__(self, schedule: OneCycle | Constant, peak_lr: float):
        self.schedule = schedule
        self.peak_lr = peak_lr

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        share, momentum = self.schedule.at(runner.iter / max(runner.max_iters - 1, 1))
        for group in runner.optim_wrapper.optimizer.param_groups:
            group["lr"] = self.peak_lr * share
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            elif "momentum" in group:
                group["momentum"] = momentum
