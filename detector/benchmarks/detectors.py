"""Whole detectors, raw points to boxes: one CUDA graph beside the modules one by one, and beside
the same detector on a peer's voxels and backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional

from detector.benchmarks.floors import dense_floor_ms, encoder_floor_ms
from detector.benchmarks.frames import Workload, make_frames
from detector.benchmarks.rows import Row, guarded
from detector.benchmarks.timing import Ceilings, latency, peak_mebibytes
from detector.models.backbones import SparseEncoder8x, bev_map
from detector.models.bev import SecondBEV
from detector.models.detectors import CenterPoint
from detector.models.encoders import MeanVoxelEncoder
from detector.models.graphed import GraphedDetector
from detector.models.heads import CenterHead
from detector.ops.occupancy.shapes import convolved_shape
from detector.records import Batch, Detections
from detector.sparse import SparseConv3d
from detector.sparse.planned.network import encoder_units

MOST_POINTS = 5
"""Of a voxel."""
MOST_VOXELS = 150_000


def detector_rows(
    workload: Workload, peers: list, ceilings: Ceilings, *, frames: int = 8, repeats: int = 24
) -> Iterator[Row]:
    """A CenterPoint of the workload's size with random weights, batch 1, float16."""
    model = _model(workload)
    batches = [
        Batch((str(number),), points, torch.tensor([len(points)]), (), ())
        for number, points in enumerate(make_frames(workload, frames, "cuda"))
    ]
    most_voxels = max(len(model.encoder(batch)) for batch in batches)
    most_points = max(len(batch.points) for batch in batches)
    floor = _floor_ms(model, batches[0], ceilings)
    true = _modules(model, batches[0])

    def row(engine: str, make: Callable[[], Callable[[Batch], Detections]]) -> Row:
        def measure():
            before = torch.cuda.memory_allocated()
            run = make()
            held = (torch.cuda.memory_allocated() - before) / 2**20
            note = f"{len(run(batches[0]))} boxes, modules {len(true)}"
            calls = [partial(run, batch) for batch in batches]
            return latency(calls, repeats), held + peak_mebibytes(calls[0]), note

        what = "CenterPoint, points to boxes, b1"
        return guarded(what, workload.name, engine, floor, measure)

    def graphed() -> Callable[[Batch], Detections]:
        made = GraphedDetector(model, 1, int(1.1 * most_points), int(1.1 * most_voxels))
        return lambda batch: made.predict(batch)[0]

    yield row("native, one graph", graphed)
    yield row("native, modules", lambda: partial(_modules, model))
    for peer in peers:
        if peer.voxelizer:
            yield row(peer.name, lambda peer=peer: _with_peer(model, workload, peer))


def _model(workload: Workload) -> nn.Module:
    torch.manual_seed(0)
    return CenterPoint(
        ("Car", "Pedestrian", "Cyclist"), workload.grid,
        encoder=partial(
            MeanVoxelEncoder, max_points_per_voxel=MOST_POINTS, max_voxels=(16_000, MOST_VOXELS)
        ),
        backbone=SparseEncoder8x, bev=SecondBEV,
        head=partial(CenterHead, quality_weight=0.5, score_threshold=0.05, nms_iou=0.1),
        point_channels=workload.columns,
    ).cuda().eval()  # fmt: skip


def _modules(model: nn.Module, batch: Batch) -> Detections:
    with torch.autocast("cuda", torch.float16):
        return model.predict(batch)[0]


@torch.no_grad()
def _floor_ms(model: nn.Module, batch: Batch, ceilings: Ceilings) -> float:
    """Points read once, and all convolutions."""
    voxels = model.encoder(batch)
    bev = model.backbone(voxels).bev
    half = torch.float16
    return (
        4 * batch.points.numel() / ceilings.bytes_per_ms
        + encoder_floor_ms(model.backbone, voxels, half, ceilings)
        + dense_floor_ms(model.bev, bev, half, ceilings)
        + dense_floor_ms(model.head, model.bev(bev), half, ceilings)
    )


def _with_peer(model: nn.Module, workload: Workload, peer) -> Callable[[Batch], Detections]:
    """The same 2D parts behind a peer's voxels and backbone."""
    voxelize = peer.voxelizer(workload.grid, workload.columns, MOST_POINTS, MOST_VOXELS, "cuda")
    network = peer.encoder(model.backbone, workload.spatial_shape, 1).eval().half()
    shape = workload.spatial_shape
    for conv in (unit[0].conv for unit in encoder_units(model.backbone)):
        if isinstance(conv, SparseConv3d):
            shape = convolved_shape(
                shape, conv.kernel_size, conv.stride, conv.padding, conv.dilation
            )

    @torch.no_grad()
    def run(batch: Batch) -> Detections:
        means, cells = voxelize(batch.points)
        coordinates = functional.pad(cells.int(), (1, 0))
        result = network(coordinates.contiguous(), means.half())
        bev = bev_map(
            SimpleNamespace(
                features=peer.features(result), coordinates=peer.coordinates(result),
                spatial_shape=shape, batch_size=1,
            )
        )  # fmt: skip
        with torch.autocast("cuda", torch.float16):
            maps = model.head(model.bev(bev))
        occupied = torch.ones(1, dtype=torch.bool, device=bev.device)
        return model.head.predict(maps, batch.frame_ids, occupied)[0]

    return run
