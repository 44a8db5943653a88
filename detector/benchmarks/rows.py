"""What the parts of the sparse benchmark share: rows, frames, networks, and how they are compared.

All engines get the same frames and weights in one process. A figure is the median over frames that
take turns, so that no cache flatters.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detector.benchmarks.frames import Workload, make_frames, unsorted_voxels
from detector.benchmarks.timing import Time

Voxels = tuple[Tensor, Tensor]
"""Coordinates (V, 4) in a voxelizer's order, features (V, C)."""


@dataclass(frozen=True)
class Row:
    """One figure."""

    what: str
    workload: str
    engine: str
    milliseconds: Time | None
    floor_ms: float | None = None
    mebibytes: float | None = None
    note: str = ""


def batches(workload: Workload, batch_size: int, count: int) -> list[Voxels]:
    """Voxels of `count` batches of `batch_size` frames."""
    frames = make_frames(workload, max(count, batch_size), "cuda")
    made = []
    for first in range(count):
        parts = [
            unsorted_voxels(frames[(first + n) % len(frames)], workload.grid, n)
            for n in range(batch_size)
        ]
        made.append(tuple(torch.cat(part).contiguous() for part in zip(*parts, strict=True)))
    return made


def seeded_encoder(kind: type, workload: Workload, **options) -> nn.Module:
    """An encoder in evaluation mode whose statistics keep features near one."""
    torch.manual_seed(0)
    encoder = kind(workload.columns, workload.spatial_shape, **options).cuda()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 1.0, 1.6)
            nn.init.uniform_(module.bias, -0.1, 0.3)
            nn.init.uniform_(module.running_var, 0.1, 0.3)
    return encoder.eval()


def difference(coordinates: Tensor, features: Tensor, true_coordinates, true_features) -> str:
    if coordinates.shape != true_coordinates.shape:
        return f"{len(coordinates)} voxels, not {len(true_coordinates)}"
    upper = true_coordinates.amax(0).long() + 1
    c = coordinates.long()
    keys = ((c[:, 0] * upper[1] + c[:, 1]) * upper[2] + c[:, 2]) * upper[3] + c[:, 3]
    order = torch.argsort(keys)
    if not torch.equal(coordinates[order], true_coordinates):
        return "other voxels"
    error = (features[order].float() - true_features).norm() / true_features.norm()
    return f"relative error {error:.1e}"


def guarded(what, workload, engine, floor, measure: Callable[[], tuple]) -> Row:
    """A peer that fails is a row that says so."""
    try:
        time, mebibytes, note = measure()
        return Row(what, workload, engine, time, floor, mebibytes, note)
    except Exception as error:
        note = f"{type(error).__name__}: {error}"[:160]
        return Row(what, workload, engine, None, floor, note=note)
    finally:
        gc.collect()
        torch.cuda.empty_cache()
