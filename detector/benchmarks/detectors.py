"""Whole detectors, raw points to boxes: one CUDA graph beside the modules one by one."""

from __future__ import annotations

from functools import partial

import torch

from detector.benchmarks.frames import Workload, make_frames
from detector.benchmarks.rows import Row
from detector.benchmarks.timing import latency, peak_mebibytes
from detector.models.backbones import SparseEncoder8x
from detector.models.bev import SecondBEV
from detector.models.detectors import CenterPoint
from detector.models.encoders import MeanVoxelEncoder
from detector.models.graphed import GraphedDetector
from detector.models.heads import CenterHead
from detector.records import Batch


def detector_rows(workload: Workload, frames: int = 8, repeats: int = 24):
    """A CenterPoint of KITTI's size with random weights, batch 1."""
    torch.manual_seed(0)
    model = CenterPoint(
        ("Car", "Pedestrian", "Cyclist"), workload.grid,
        encoder=partial(
            MeanVoxelEncoder, max_points_per_voxel=5, max_voxels=(16_000, 150_000)
        ),
        backbone=SparseEncoder8x, bev=SecondBEV,
        head=partial(CenterHead, quality_weight=0.5, score_threshold=0.05, nms_iou=0.1),
        point_channels=workload.columns,
    ).cuda().eval()  # fmt: skip
    batches = [
        Batch((str(number),), points, torch.tensor([len(points)]), (), ())
        for number, points in enumerate(make_frames(workload, frames, "cuda"))
    ]
    voxels = max(
        int(torch.unique(workload.grid.coordinates(b.points), dim=0).shape[0]) for b in batches
    )
    points = int(1.1 * max(len(b.points) for b in batches))
    what = "CenterPoint, points to boxes, b1"

    def eager(batch: Batch):
        with torch.autocast("cuda", torch.float16):
            return model.predict(batch)

    calls = [partial(eager, batch) for batch in batches]
    yield Row(what, workload.name, "native, modules, fp16", latency(calls, repeats),
              mebibytes=peak_mebibytes(calls[0]))
    graphed = GraphedDetector(model, 1, points, int(1.1 * voxels))
    found, true = graphed.predict(batches[0])[0], eager(batches[0])[0]
    note = f"{len(found)} boxes, modules {len(true)}"
    time = latency([partial(graphed.predict, batch) for batch in batches], repeats)
    yield Row(what, workload.name, "native, one graph, fp16", time, note=note)

    def replay():
        graphed.graph.replay()

    yield Row(f"{what}, replay alone", workload.name, "native, one graph, fp16",
              latency([replay], repeats))
