"""One training step: the detector as mmengine's Runner wants it, and the update of its weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from detector.errors import InputError
from detector.models.backbones import SparseEncoder
from detector.records import Batch, Detections
from detector.training.graphed import GraphedDenseLoss

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype that products are computed in; None for float32 throughout.

    "auto" is bfloat16 where the device has instructions for it: without them a CPU would be
    slower for it, not faster.
    """
    if precision != "auto":
        return PRECISIONS[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    try:
        features = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return None
    return torch.bfloat16 if features & {"avx512_bf16", "amx_bf16", "bf16"} else None


def fuse_backbone(
    detector: nn.Module, fused: bool, dtype: torch.dtype | None, device: torch.device
) -> str | None:
    """Has the sparse backbone's layers trained as one step of autograd, or one by one.

    Returns:
        How they are, as a sentence to print; None where there is no choice: on a CPU, or without
        a sparse backbone.
    """
    backbone = getattr(detector, "backbone", None)
    if not isinstance(backbone, SparseEncoder):
        return None
    backbone.fused = fused
    if device.type != "cuda":
        return None
    from detector.sparse.planned.chain import obstacle

    reasons = [obstacle(chain, dtype or torch.float32, device) for chain, _ in backbone.chains()]
    reason = next(filter(None, reasons), None) if fused else "fused_backbone is False"
    if reason is not None:
        return f"sparse backbone: layer by layer, because {reason}"
    between = " between focal stages" if backbone.focal else ""
    return f"sparse backbone: fused, the layers{between} are one step of autograd"


class ToDevice(nn.Module):
    """Moves a batch to where the weights are."""

    def __init__(self):
        super().__init__()
        self.register_buffer("here", torch.zeros(0), persistent=False)

    def forward(self, batch: Batch, training: bool = False) -> dict[str, Batch]:
        return {"batch": batch.to(self.here.device)}


class TrainableDetector(BaseModel):
    """Gives a detector's `loss` and `predict` to the Runner.

    Args:
        detector: the detector.
        frozen: names of its parts that training leaves as they are, statistics of norms included.

    Raises:
        InputError: it has no such part.
    """

    def __init__(self, detector: nn.Module, frozen: Sequence[str] = ()):
        super().__init__(data_preprocessor=ToDevice())
        self.detector = detector
        try:
            self.frozen = [detector.get_submodule(name) for name in frozen]
        except AttributeError as error:
            raise InputError(
                f"frozen: {error}; parts are {', '.join(n for n, _ in detector.named_children())} "
                f"and what is in them, such as bev.blocks.0"
            ) from None
        for part in self.frozen:
            part.requires_grad_(False)
        self._options: dict[str, Any] = {}

    def replay_dense_loss(self, dtype: torch.dtype | None) -> None:
        """From now on, what comes behind the sparse backbone is replayed (see
        `detector.training.graphed`), which asks that every backward be followed by an update."""
        self._options = {"dense_loss": GraphedDenseLoss(self.detector, dtype)}

    def train(self, mode: bool = True) -> TrainableDetector:
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def forward(self, batch: Batch, mode: str) -> dict[str, Tensor] | list[Detections]:
        if mode != "loss":
            return self.detector.predict(batch)
        return self.detector.loss(batch, **self._options)

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Every term counts, whatever its name; they stay on the device until they are written."""
        total = sum(losses.values())
        return total, {"total": total.detach(), **{k: v.detach() for k, v in losses.items()}}

    def init_weights(self) -> None:
        """The detector's constructors have done it."""


class UpdateWeights(OptimWrapper):
    """Backward and update, with autocast, gradient scaling, clipping and accumulation.

    Args:
        optimizer: over the model's parameters.
        clip_norm: gradients are scaled down to this norm.
        accumulate: steps to an update.
        precision: see `autocast_dtype`; float16 scales gradients on a GPU.
        device: where the model is.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, *, clip_norm: float, accumulate: int,
        precision: str, device: torch.device,
    ):  # fmt: skip
        super().__init__(optimizer, accumulative_counts=accumulate)
        self.accumulate = accumulate
        self.step_of_epoch, self.steps_of_epoch = 0, 1
        self.clip_norm = clip_norm
        self.dtype = autocast_dtype(precision, device)
        self.device = device
        scales = precision == "float16" and device.type == "cuda"
        self.scaler = torch.amp.GradScaler(device.type, enabled=scales)
        self.grad_norm = torch.zeros(())

    def begin_step(self, step: int, steps: int) -> None:
        """Says where in an epoch the step is. Every epoch ends with an update, so that at its end,
        where checkpoints are written, no gradients are left over."""
        self.step_of_epoch, self.steps_of_epoch = step, steps

    def should_update(self) -> bool:
        """Whether the weights change at this step; all else only adds gradients up."""
        done = self.step_of_epoch + 1
        return done % self.accumulate == 0 or done == self.steps_of_epoch

    def should_sync(self) -> bool:
        """Processes add their gradients up once for each update."""
        return self.should_update()

    def scale_loss(self, loss: Tensor) -> Tensor:
        """The loss's share in the mean over the steps to an update."""
        first = self.step_of_epoch - self.step_of_epoch % self.accumulate
        return loss / min(self.accumulate, self.steps_of_epoch - first)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model):
            if self.dtype is None:
                yield
            else:
                with torch.autocast(self.device.type, self.dtype):
                    yield

    def backward(self, loss: Tensor, **options: Any) -> None:
        super().backward(self.scaler.scale(loss), **options)

    def step(self, **options: Any) -> None:
        self.scaler.unscale_(self.optimizer)
        parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        self.grad_norm = torch.nn.utils.clip_grad_norm_(parameters, self.clip_norm).detach()
        self.scaler.step(self.optimizer, **options)
        self.scaler.update()

    def state_dict(self) -> dict:
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        saved = state["optimizer"]
        # How updates are computed is this machine's matter, not that of the one that saved.
        groups = [
            {**theirs, **{k: ours[k] for k in IMPLEMENTATIONS if k in ours}}
            for theirs, ours in zip(
                saved["param_groups"], self.optimizer.param_groups, strict=True
            )
        ]
        self.optimizer.load_state_dict({**saved, "param_groups": groups})
        # Empty where the run went on without scaling: on a CPU, or in another precision.
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])


def make_optimizer(
    factory: Callable[..., torch.optim.Optimizer], model: nn.Module, device: torch.device
) -> torch.optim.Optimizer:
    """The config's optimizer over a model's parameters.

    On a GPU it is fused where torch has that: one kernel updates all weights, and it finds out by
    itself whether a scaled loss left gradients that are not finite, for which the host would
    otherwise wait at every step.
    """
    arguments = inspect.signature(factory).parameters
    chosen = any(name in getattr(factory, "keywords", {}) for name in IMPLEMENTATIONS)
    options = {}
    if device.type == "cuda" and "fused" in arguments and not chosen:
        options["fused"] = True
    return factory(parameter_groups(model), **options)


IMPLEMENTATIONS = ("fused", "foreach", "capturable", "differentiable")
"""Options of torch's optimizers that say how, and not what, they compute."""


def parameter_groups(model: nn.Module) -> list[dict]:
    """Weights, and apart from them what is not decayed: biases and scales of norms."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
