"""From a checkpoint and frames to detections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detector.config import Config, build_model
from detector.errors import InputError
from detector.records import Detections, Sample, collate
from detector.training.checkpoint import check_weights, load_checkpoint


def load_model(
    config: Config, checkpoint: str | Path, device: torch.device | str | None = None
) -> nn.Module:
    """The config's detector with a checkpoint's weights, ready to predict.

    Args:
        device: where to put it; None takes a GPU where there is one.

    Raises:
        InputError: a checkpoint that is missing, corrupt or of another model.
    """
    content = load_checkpoint(checkpoint)
    model = build_model(config)
    check_weights(model, content, checkpoint, config.classes)
    model.load_state_dict(content["state_dict"])
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval()


def detect(model: nn.Module, samples: Sequence[Sample], batch_size: int = 1) -> list[Detections]:
    """What the model finds in each frame, on the CPU.

    Raises:
        InputError: points with other columns than the model was trained on.
    """
    device = next(model.parameters()).device
    expected = model.encoder.point_channels
    found: list[Detections] = []
    for start in range(0, len(samples), batch_size):
        group = samples[start : start + batch_size]
        for sample in group:
            if sample.points.shape[1] != expected:
                raise InputError(
                    f"{sample.frame_id}: points have {sample.points.shape[1]} columns, the model "
                    f"was trained on {expected}"
                )
        found += [d.cpu() for d in model.predict(collate(group).to(device))]
    return found


def as_dict(detections: Detections, classes: Sequence[str]) -> dict[str, Any]:
    """Detections of one frame for JSON: boxes (x, y, z, l, w, h, yaw[, vx, vy]) in the ego frame,
    metres and radians, best score first."""
    return {
        "frame_id": detections.frame_id,
        "boxes": [[round(v, 4) for v in box] for box in detections.boxes.tolist()],
        "scores": [round(v, 4) for v in detections.scores.tolist()],
        "classes": [classes[label] for label in detections.labels.tolist()],
    }
