"""Running a detector over a data set and scoring what it finds with the data set's own metric."""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from torch import nn

from detector.records import Detections
from detector.training.data import evaluation_batches
from detector.training.hooks import duration


def evaluate(
    detector: nn.Module, dataset, batch_size: int, workers: int, title: str
) -> tuple[Any, list[Detections]]:
    """(what `dataset.evaluate` says, detections of all frames in the data set's order).

    With several processes each takes its share of the frames and all get the whole result.
    """
    rank, processes = _position()
    mine = range(rank, len(dataset), processes)
    found = predict_frames(detector, dataset, mine, batch_size, workers, title if not rank else "")
    if processes > 1:
        shares: list[Any] = [None] * processes
        torch.distributed.all_gather_object(shares, found)
        by_index = {
            index: detections
            for share_rank, share in enumerate(shares)
            for index, detections in zip(
                range(share_rank, len(dataset), processes), share, strict=True
            )
        }
        found = [by_index[index] for index in range(len(dataset))]
    return dataset.evaluate(found), found


def predict_frames(
    detector: nn.Module, dataset, indices: range, batch_size: int, workers: int, title: str
) -> list[Detections]:
    """Detections of the given frames, on the CPU, in order."""
    device = next(detector.parameters()).device
    training = detector.training
    detector.eval()
    found: list[Detections] = []
    started = time.perf_counter()
    try:
        for batch in evaluation_batches(dataset, indices, batch_size, workers):
            found += [d.cpu() for d in detector.predict(batch.to(device))]
            if title and sys.stdout.isatty():
                print(f"\r{title}: {len(found)}/{len(indices)} frames", end="", flush=True)
    finally:
        detector.train(training)
    if title:
        seconds = time.perf_counter() - started
        start = "\r" if sys.stdout.isatty() else ""
        print(
            f"{start}{title}: {len(found)} frames in {duration(seconds)} "
            f"({len(found) / max(seconds, 1e-9):.1f} frames/s)",
            flush=True,
        )
    return found


def _position() -> tuple[int, int]:
    """(rank, number of processes)."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
