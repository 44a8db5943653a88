"""From a checkpoint and frames to detections."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detector.config import Config, build_model
from detector.errors import InputError
from detector.records import Batch, Detections, Sample, collate
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


def predictor(
    model: nn.Module, cuda_graph: bool | None = None
) -> Callable[[Batch], list[Detections]]:
    """The model's `predict` for single frames, as one CUDA graph where that can be done; a frame
    that a graph has no room for goes the ordinary way.

    Args:
        cuda_graph: None takes a graph on a GPU where the model allows it; True insists.

    Raises:
        InputError: a graph was asked for and can't be had.
    """
    on_gpu = next(model.parameters()).is_cuda
    if cuda_graph is False or not (on_gpu or cuda_graph):
        return model.predict
    if not on_gpu:
        raise InputError("a CUDA graph needs a GPU; leave --cuda-graph out on a CPU")
    from detector.models.graphed import GraphedDetector

    try:
        graphed = GraphedDetector(model)
    except ValueError as error:
        if cuda_graph:
            raise InputError(f"no CUDA graph for this model: {error}") from error
        return model.predict

    def predict(batch: Batch) -> list[Detections]:
        try:
            return graphed.predict(batch)
        except OverflowError as error:
            warnings.warn(f"{batch.frame_ids[0]} ran without the CUDA graph: {error}", stacklevel=2)
            return model.predict(batch)

    return predict


def detect(
    model: nn.Module,
    samples: Sequence[Sample],
    batch_size: int = 1,
    predict: Callable[[Batch], list[Detections]] | None = None,
) -> list[Detections]:
    """What the model finds in each frame, on the CPU.

    Args:
        predict: of batches of that size, such as `predictor` gives; None is the model's own.

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
        found += [d.cpu() for d in (predict or model.predict)(collate(group).to(device))]
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
