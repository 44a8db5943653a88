"""Focal backbones beside the plain ones that they are made of."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from detector.benchmarks.backbones import (
    STEPS,
    eager_result,
    measured_plan,
    native_features,
    peer_forward,
    peer_training,
    run_levels,
    trained_by,
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
FOREGROUND, GROWTH = (0.026, 0.024, 0.016), (1.18, 1.04, 1.012)
"""Share of a focal stage's voxels that are important, and times as many voxels as come in that go
out: those of the trained detector that comes along (`detector/pretrained/demo.pth`) on two frames
of a real drive. A network with random weights would find half of all voxels important."""
PUBLISHED, CHOSEN = 0.5, 0.25
"""Share of the foreground where it is the most important ones, as in the paper's settings, and of
the neighbours that they choose."""


def focal_rows(
    workload: Workload, kind: type, batch_size: int, peers: list, ceilings: Ceilings, *,
    frames: int = 8, repeats: int = 24, training: bool = True,
) -> Iterator[Row]:  # fmt: skip
    """Forward in float16, as one graph: plain, with the foreground by threshold, and the top half;
    then forward and backward with the threshold, module by module, under autocast."""
    voxels = batches(workload, batch_size, frames)
    shape = workload.spatial_shape
    plain: list[tuple[float, float]] = []  # its time and its floor

    def row(kind_of: str, what: str, engine: str, floor_ms: float, measure) -> Row:
        name = f"{kind_of}{kind.__name__} b{batch_size} fp16 {what}"
        return guarded(name, workload.name, engine, floor_ms, measure)

    def forward(encoder: nn.Module, floor_ms: float):
        graphed = GraphedEncoder(
            measured_plan(encoder, voxels, shape, batch_size), workload.columns
        )
        time = latency([partial(graphed, *pair) for pair in voxels], repeats)
        graphed.plan.check_capacity()
        if not encoder.focal:
            plain.append((time.median, floor_ms))
            return time, None, ""
        graphed(*voxels[0])
        note = _choices(graphed.plan, encoder, voxels[0], shape, batch_size)
        times, floors = (a / b for a, b in zip((time.median, floor_ms), plain[0], strict=True))
        return time, None, f"{times:.2f} x plain, floor {floors:.2f} x plain's; {note}"

    for kind_of, options in (
        ("", None), ("focal ", dict(top_k=False)), ("focal top half ", dict(threshold=PUBLISHED))
    ):  # fmt: skip
        encoder = _encoder(kind, workload, options, voxels[0], batch_size)
        x = SparseTensor(voxels[0][1], voxels[0][0], shape, batch_size)
        floor = encoder_floor_ms(encoder, x, torch.float16, ceilings)
        yield row(kind_of, "forward", "native, one graph", floor, partial(forward, encoder, floor))
        if kind_of != "focal ":
            continue
        able = [peer for peer in peers if peer.focal]
        truth = eager_result(encoder, voxels[0], shape, batch_size)
        for peer in able:
            yield row(kind_of, "forward", peer.name, floor, partial(
                peer_forward, peer, encoder, voxels, shape, batch_size, repeats, truth,
                torch.float16))  # fmt: skip
        if not training:
            continue
        # In training, statistics are the batch's.
        encoder = _encoder(kind, workload, options, voxels[0], batch_size, training=True)
        calls = [partial(native_features, encoder, shape, batch_size, *p) for p in voxels]
        yield row(kind_of, "training", trained_by(encoder, torch.float16), STEPS * floor,
                  partial(training_time, encoder, calls, repeats))
        for peer in able:
            yield row(kind_of, "training", peer.name, STEPS * floor, partial(
                peer_training, peer, encoder, voxels, shape, batch_size, repeats,
                torch.float16))  # fmt: skip


def _encoder(
    kind: type, workload: Workload, options, voxels: Voxels, batch_size: int,
    training: bool = False,
) -> nn.Module:  # fmt: skip
    """With an opinion of its voxels such as training gives: as many are important, and where that
    is decided by a threshold they add as many."""
    if options is None:
        return seeded_encoder(kind, workload)
    options = dict(options, foreground_prior=0.5)
    encoder = seeded_encoder(kind, workload, focal_stages=STAGES, focal=options).train(training)
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
            branch.bias[-1] += edge - _share_above(logits[:, -1], FOREGROUND[number - 1])
            branch.bias[:-1] += edge - _share_above(logits[:, :-1].flatten(), CHOSEN)
            if not layer.conv.top_k:
                _let_grow(layer, x, GROWTH[number - 1])
            x, _ = layer(x)
    return encoder


def _let_grow(layer: nn.Module, x: SparseTensor, times: float) -> None:
    """Shifts the logits of neighbours until the layer gives so many times the voxels it gets."""
    bias = layer.conv.importance.bias[:-1]
    start, low, high = bias.clone(), -20.0, 20.0
    for _ in range(12):
        middle = (low + high) / 2
        bias.copy_(start + middle)
        few = len(layer(x)[0]) < times * len(x)
        low, high = (middle, high) if few else (low, middle)


def _share_above(values: Tensor, share: float) -> Tensor:
    """What so many of the values exceed."""
    return values.kthvalue(max(1, int((1 - share) * len(values)))).values


def _choices(plan: PlannedEncoder, encoder: nn.Module, voxels: Voxels, shape, batch_size) -> str:
    """Growth at each focal stage, and what share of the first one's voxels float16 chose otherwise
    than float32."""
    sizes = [(int(f.here.count), int(f.added.count)) for f in plan.focal]
    with torch.no_grad():
        true = run_levels(encoder, *voxels, shape, batch_size)[1]
    mine = Occupancy.of_any(plan.focal[0].coordinates, shape, batch_size)
    missing = int((mine.rows(true.coordinates) < 0).sum())
    extra = len(mine) - (len(true) - missing)
    note = "voxels x " + ", ".join(f"{1 + more / max(1, old):.2f}" for old, more in sizes)
    return f"{note}; choices unlike float32's {(missing + extra) / len(true):.1e}"
