"""Raw scans to voxels, ours beside the installed peers'."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from detector.benchmarks.frames import Workload, make_frames
from detector.benchmarks.rows import Row, guarded
from detector.benchmarks.timing import latency
from detector.ops.voxelize import voxelize
from detector.sparse.planned import GraphedVoxelizer


def voxelization_rows(workload: Workload, peers: list, frames: int = 8, repeats: int = 24):
    """Raw scans to voxels with mean features."""
    scans = make_frames(workload, frames, "cuda")
    for limit in (None, 10):
        kind = "dynamic" if limit is None else f"hard, {limit} points"
        yield Row(f"voxelization ({kind}), mean", workload.name, "native",
                  latency([partial(voxelize, s, workload.grid, limit) for s in scans], repeats))
        most = max(map(len, scans))
        graphed = GraphedVoxelizer(workload.grid, most, most, workload.columns, limit)
        yield Row(f"voxelization ({kind}), mean", workload.name, "native, one graph",
                  latency([partial(graphed, s) for s in scans], repeats))

    def by_unique(points: Tensor):
        cells = workload.grid.coordinates(points)
        inside = cells[:, 0] >= 0
        coordinates, inverse = torch.unique(cells[inside], dim=0, return_inverse=True)
        sums = torch.zeros(len(coordinates), points.shape[1], device=points.device)
        sums.index_add_(0, inverse, points[inside])
        return coordinates, sums / torch.bincount(inverse)[:, None]

    yield Row("voxelization (dynamic), mean", workload.name, "torch.unique",
              latency([partial(by_unique, s) for s in scans], repeats))
    for peer in peers:
        if getattr(peer, "voxelizer", None) and peer.name == "spconv":
            run = peer.voxelizer(workload.grid, workload.columns, 10, 200_000, "cuda")
            yield guarded(
                "voxelization (hard, 10 points), mean", workload.name, peer.name, None,
                lambda run=run: (latency([partial(run, s) for s in scans], repeats), None, ""),
            )  # fmt: skip
