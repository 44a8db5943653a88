"""Running a detector over a data set and scoring what it finds with the data set's own metric."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from torch import nn

from detector.records import Detections
from detector.training.data import evaluation_batches
from detector.training.distributed import gathered, position
from detector.training.hooks import duration


def evaluate(
    detector: nn.Module, dataset, batch_size: int, workers: int, title: str
) -> tuple[Any, list[Detections]] | None:
    """(what `dataset.evaluate` says, detections of all frames in the data set's order).

    With several processes each takes whole batches, in turns: they are put together as they would
    be for one process, so that every number is the same, and no frame is there twice. The first
    process gets the whole result and the others None.
    """
    rank, processes = position()
    mine = [
        index
        for start in range(rank * batch_size, len(dataset), processes * batch_size)
        for index in range(start, min(start + batch_size, len(dataset)))
    ]
    found = predict_frames(detector, dataset, mine, batch_size, workers, title if not rank else "")
    shares = gathered(found)
    if shares is None:
        return None
    every: list[Detections] = []
    for start in range(0, len(dataset), batch_size):
        share = shares[start // batch_size % processes]
        every += share[:batch_size]
        del share[:batch_size]
    return dataset.evaluate(every), every


def predict_frames(
    detector: nn.Module, dataset, indices: Sequence[int], batch_size: int, workers: int, title: str
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
