"""Sparse backbones from voxel coordinates, ours beside the installed peers'; maps are made anew
each time."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from detector.benchmarks.floors import encoder_floor_ms
from detector.benchmarks.frames import Workload
from detector.benchmarks.rows import Row, Voxels, batches, difference, guarded, seeded_encoder
from detector.benchmarks.timing import Ceilings, Time, latency, peak_mebibytes, tf32_products
from detector.models.backbones import ResidualSparseEncoder8x, SparseEncoder8x
from detector.sparse import SparseConv3d, SparseTensor
from detector.sparse.planned import GraphedEncoder, PlannedEncoder
from detector.sparse.planned.chain import obstacle

KINDS = (SparseEncoder8x, ResidualSparseEncoder8x)
PRECISIONS = {"fp16": torch.float16, "tf32": torch.float32}
STEPS = 3
"""A training step's floor, in forward ones: outputs, gradients of the inputs, of the weights."""

Measured = tuple[Time, float | None, str]


def backbone_rows(
    workload: Workload, kind: type, batch_size: int, peers: list, ceilings: Ceilings, *,
    precision: str = "fp16", frames: int = 8, repeats: int = 24, training: bool = True,
) -> Iterator[Row]:  # fmt: skip
    """Forward (ours planned and captured; peers: their modules), then forward and backward, float16
    under autocast."""
    encoder = seeded_encoder(kind, workload)
    voxels = batches(workload, batch_size, frames)
    shape, dtype = workload.spatial_shape, PRECISIONS[precision]
    x = SparseTensor(voxels[0][1], voxels[0][0], shape, batch_size)
    floor = encoder_floor_ms(encoder, x, dtype, ceilings)
    truth = eager_result(encoder, voxels[0], shape, batch_size)

    def row(what: str, engine: str, floor_ms: float, measure: Callable[[], Measured]) -> Row:
        name = f"{kind.__name__} b{batch_size} {precision} {what}"
        with tf32_products():
            return guarded(name, workload.name, engine, floor_ms, measure)

    arguments = shape, batch_size, repeats
    yield row("forward", "native, one graph", floor, lambda: graphed_forward(
        encoder, voxels, *arguments, workload.columns, truth, dtype))  # fmt: skip
    for peer in peers:
        yield row("forward", peer.name, floor, lambda peer=peer: peer_forward(
            peer, encoder, voxels, *arguments, truth, dtype))  # fmt: skip
    if not training:
        return
    ours = seeded_encoder(kind, workload).train()
    yield row("training", trained_by(ours, dtype), STEPS * floor, lambda: training_time(
        ours, [partial(native_features, ours, shape, batch_size, *pair) for pair in voxels],
        repeats, dtype))  # fmt: skip
    for peer in peers:
        yield row("training", peer.name, STEPS * floor, lambda peer=peer: peer_training(
            peer, encoder, voxels, *arguments, dtype))  # fmt: skip


def steps_of(encoder: nn.Module) -> list:
    """What `Occupancy.prepare` takes."""
    return [
        (c.kernel_size, c.stride, c.padding, c.dilation)
        for c in encoder.modules() if isinstance(c, SparseConv3d)
    ]  # fmt: skip


def run_levels(
    encoder: nn.Module, coordinates: Tensor, features: Tensor, shape, batch_size: int
) -> list[SparseTensor]:
    """Tensors of each level of a plan, at its end; the last is the result."""
    x = SparseTensor(features, coordinates, shape, batch_size)
    if not encoder.focal:
        x.occupancy.prepare(steps_of(encoder))
    x = encoder.stem(x)
    levels = []
    for number, stage in enumerate(encoder.stages, 1):
        x = stage(x)
        levels.append(x)
        if str(number) in encoder.focal:
            x, _ = encoder.focal[str(number)](x)
            levels.append(x)
    return [*levels, encoder.out(x)]


def native_features(
    encoder: nn.Module, shape, batch_size: int, coordinates: Tensor, features: Tensor
) -> Tensor:
    """The result's features, as a detector's training gets them."""
    x = SparseTensor(features, coordinates, shape, batch_size)
    return encoder.voxels(x)[0].features


def eager_result(encoder: nn.Module, voxels: Voxels, shape, batch_size: int) -> Voxels:
    """Coordinates and float32 features by the modules."""
    with torch.no_grad():
        x = run_levels(encoder, *voxels, shape, batch_size)[-1]
    return x.coordinates, x.features


def measured_plan(
    encoder: nn.Module, voxels: list[Voxels], shape, batch_size: int,
    dtype: torch.dtype = torch.float16,
) -> PlannedEncoder:  # fmt: skip
    """With a tenth more room than these frames need."""
    with torch.no_grad():
        sizes = [
            _level_sizes(encoder, run_levels(encoder, *pair, shape, batch_size)) for pair in voxels
        ]
    most = [1.1 * max(column) for column in zip(*sizes, strict=True)]
    room = tuple(size / most[0] for size in most)
    return PlannedEncoder(encoder, shape, batch_size, int(most[0]), dtype, room)


def _level_sizes(encoder: nn.Module, levels: list[SparseTensor]) -> list[int]:
    """As a plan counts: of a focal stage, what it adds."""
    sizes, tensors = [], iter(levels)
    for number in range(1, len(encoder.stages) + 1):
        sizes.append(len(next(tensors)))
        if str(number) in encoder.focal:
            sizes.append(len(next(tensors)) - sizes[-1])
    return [*sizes, len(next(tensors))]


def graphed_forward(
    encoder, voxels: list[Voxels], shape, batch_size: int, repeats: int, columns: int,
    truth: Voxels, dtype: torch.dtype = torch.float16,
) -> Measured:  # fmt: skip
    """As one graph."""
    before = torch.cuda.memory_allocated()
    plan = measured_plan(encoder, voxels, shape, batch_size, dtype)
    graphed = GraphedEncoder(plan, columns)
    held = (torch.cuda.memory_allocated() - before) / 2**20
    time = latency([partial(graphed, *pair) for pair in voxels], repeats)
    graphed.plan.check_capacity()
    rows = graphed(*voxels[0])[: int(graphed.plan.out_level.count)]
    return time, held, difference(graphed.plan.out_level.coordinates[: len(rows)], rows, *truth)


def peer_forward(peer, encoder, voxels, shape, batch_size, repeats, truth, dtype) -> Measured:
    """A peer's modules in evaluation mode."""
    network = peer.encoder(encoder, shape, batch_size).eval().to(dtype)
    given = [(c, f.to(dtype)) for c, f in voxels]
    with torch.no_grad():
        out = network(*given[0])
        note = difference(peer.coordinates(out), peer.features(out), *truth)
        calls = [partial(network, c, f) for c, f in given]
        return latency(calls, repeats), peak_mebibytes(calls[0]), note


def trained_by(encoder: nn.Module, dtype: torch.dtype) -> str:
    """Our engine, and whether its layers are one step of autograd."""
    device = next(encoder.parameters()).device
    fused = all(obstacle(chain, dtype, device) is None for chain, _ in encoder.chains())
    return "native, one step" if fused else "native, modules"


def peer_training(peer, encoder, voxels, shape, batch_size, repeats, dtype) -> Measured:
    """Forward and backward of a peer's network."""
    network = peer.encoder(encoder, shape, batch_size).train()
    calls = [lambda c=c, f=f: peer.features(network(c, f)) for c, f in voxels]
    return training_time(network, calls, repeats, dtype)


def training_time(
    network: nn.Module, calls: list[Callable[[], Tensor]], repeats: int,
    dtype: torch.dtype = torch.float16,
) -> Measured:  # fmt: skip
    """Forward and backward, float16 under autocast; peak memory with what is kept from one step to
    the next."""
    before = torch.cuda.memory_allocated()

    def step(call):
        for parameter in network.parameters():
            parameter.grad = None
        with torch.autocast("cuda", torch.float16, enabled=dtype == torch.float16):
            features = call()
        features.float().square().mean().backward()

    steps = [partial(step, call) for call in calls]
    time = latency(steps, repeats)
    gc.collect()  # some peers leave what only this finds
    torch.cuda.reset_peak_memory_stats()
    steps[0]()
    torch.cuda.synchronize()
    return time, (torch.cuda.max_memory_allocated() - before) / 2**20, ""
