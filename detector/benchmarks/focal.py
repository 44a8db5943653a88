"""Focal backbones beside the plain ones that they are made of."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from detector.benchmarks.backbones import (
    STEPS,
    measured_plan,
    native_features,
    run_levels,
    training_time,
)
from detector.benchmarks.floors import encoder_floor_ms
from detector.benchmarks.frames import Workload
from detector.benchmarks.rows import Row, Voxels, batches, guarded, seeded_encoder
from detector.benchmarks.timing import Ceilings, latency
from detector.ops.occupancy import Occupancy
from detector.sparse import SparseTensor
from detector.sparse.planned import GraphedEncoder, PlannedEncoder

STAGES = (1, 2, 3)
FOREGROUND, CHOSEN = 0.1, 0.25
"""Shares of the voxels that are important, and of their neighbours that they choose: a network
with random weights would choose half of all and fill the grid."""


def focal_rows(
    workload: Workload, kind: type, batch_size: int, ceilings: Ceilings, *, frames: int = 8,
    repeats: int = 24, training: bool = True,
) -> Iterator[Row]:  # fmt: skip
    """Forward in float16, as one graph: plain, with the foreground by threshold, and by top-k;
    then forward and backward with the threshold, module by module, under autocast."""
    voxels = batches(workload, batch_size, frames)
    shape = workload.spatial_shape
    plain: list[float] = []

    def row(kind_of: str, what: str, engine: str, floor_ms: float, measure) -> Row:
        name = f"{kind_of}{kind.__name__} b{batch_size} fp16 {what}"
        return guarded(name, workload.name, engine, floor_ms, measure)

    def forward(encoder: nn.Module):
        graphed = GraphedEncoder(
            measured_plan(encoder, voxels, shape, batch_size), workload.columns
        )
        time = latency([partial(graphed, *pair) for pair in voxels], repeats)
        graphed.plan.check_capacity()
        if not encoder.focal:
            plain.append(time.median)
            return time, None, ""
        graphed(*voxels[0])
        note = _choices(graphed.plan, encoder, voxels[0], shape, batch_size)
        return time, None, f"{time.median / plain[0]:.2f} x plain; {note}"

    for kind_of, options in (
        ("", None), ("focal ", dict(top_k=False)), ("focal top-k ", dict(threshold=FOREGROUND))
    ):  # fmt: skip
        encoder = _encoder(kind, workload, options, voxels[0], batch_size)
        x = SparseTensor(voxels[0][1], voxels[0][0], shape, batch_size)
        floor = encoder_floor_ms(encoder, x, torch.float16, ceilings)
        yield row(kind_of, "forward", "native, one graph", floor, partial(forward, encoder))
        if training and kind_of == "focal ":
            encoder.train()
            calls = [partial(native_features, encoder, shape, batch_size, *p) for p in voxels]
            yield row(kind_of, "training", "native", STEPS * floor,
                      partial(training_time, encoder, calls, repeats))


def _encoder(kind: type, workload: Workload, options, voxels: Voxels, batch_size: int):
    """With an opinion of its voxels such as training gives."""
    if options is None:
        return seeded_encoder(kind, workload)
    options = dict(options, foreground_prior=0.5)
    encoder = seeded_encoder(kind, workload, focal_stages=STAGES, focal=options)
    x = SparseTensor(voxels[1], voxels[0], workload.spatial_shape, batch_size)
    with torch.no_grad():
        x = encoder.stem(x)
        for number, stage in enumerate(encoder.stages, 1):
            x = stage(x)
            if str(number) not in encoder.focal:
                continue
            layer = encoder.focal[str(number)]
            branch, threshold = layer.conv.importance, layer.conv.threshold
            nn.init.normal_(branch.weight, std=0.2)
            logits = branch(x).features
            edge = torch.logit(torch.tensor(threshold)).item()
            branch.bias[-1] += edge - logits[:, -1].quantile(1 - FOREGROUND)
            others = logits[: 1 << 18, :-1].flatten()[: 1 << 24]
            branch.bias[:-1] += edge - others[:: max(1, len(others) >> 23)].quantile(1 - CHOSEN)
            x, _ = layer(x)
    return encoder


def _choices(plan: PlannedEncoder, encoder: nn.Module, voxels: Voxels, shape, batch_size) -> str:
    """Growth at each focal stage, and how far float16 changed what float32 chooses."""
    growth = [int(f.grown.count) / max(1, int(f.here.count)) for f in plan.focal]
    first = plan.focal[0].grown
    with torch.no_grad():
        true = run_levels(encoder, *voxels, shape, batch_size)[1]
    mine = Occupancy.of_any(first.coordinates[: int(first.count)].clone(), shape, batch_size)
    missing = int((mine.rows(true.coordinates) < 0).sum())
    extra = len(mine) - (len(true) - missing)
    note = "voxels x " + ", ".join(f"{g:.2f}" for g in growth)
    return f"{note}; choices unlike float32's {(missing + extra) / len(true):.1e}"
