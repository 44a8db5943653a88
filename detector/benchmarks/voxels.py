"""Raw scans to voxels with mean features, ours beside the installed peers'."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from detector.benchmarks.frames import Workload, make_frames
from detector.benchmarks.rows import Row, guarded
from detector.benchmarks.timing import Ceilings, latency, peak_mebibytes
from detector.ops.voxelize import voxelize
from detector.sparse.planned import GraphedVoxelizer


def voxelization_rows(
    workload: Workload, peers: list, ceilings: Ceilings, *, frames: int = 8, repeats: int = 24
) -> Iterator[Row]:
    """Dynamic, and hard with ten points a voxel. At least, points are read once, coordinates and
    means written once."""
    scans = make_frames(workload, frames, "cuda")
    most = max(map(len, scans))
    voxels = len(voxelize(scans[0], workload.grid).coordinates)
    moved = scans[0].numel() + voxels * (4 + workload.columns)
    floor = 4 * moved / ceilings.bytes_per_ms

    def row(kind: str, engine: str, run) -> Row:
        def measure():
            calls = [partial(run, scan) for scan in scans]
            return latency(calls, repeats), peak_mebibytes(calls[0]), ""

        return guarded(f"voxelization ({kind}), mean", workload.name, engine, floor, measure)

    for limit in (None, 10):
        kind = "dynamic" if limit is None else f"hard, {limit} points"
        yield row(kind, "native", lambda scan, limit=limit: voxelize(scan, workload.grid, limit))
        graphed = GraphedVoxelizer(workload.grid, most, most, workload.columns, limit)
        yield row(kind, "native, one graph", graphed)

    def by_unique(points: Tensor):
        cells = workload.grid.coordinates(points)
        inside = cells[:, 0] >= 0
        coordinates, inverse = torch.unique(cells[inside], dim=0, return_inverse=True)
        sums = torch.zeros(len(coordinates), points.shape[1], device=points.device)
        sums.index_add_(0, inverse, points[inside])
        return coordinates, sums / torch.bincount(inverse)[:, None]

    yield row("dynamic", "torch.unique", by_unique)
    for peer in peers:
        if peer.voxelizer:
            run = peer.voxelizer(workload.grid, workload.columns, 10, 200_000, "cuda")
            yield row("hard, 10 points", peer.name, run)
