"""Sparse backbones, layers, maps and voxelization, ours beside the installed peers'.

All get the same frames and weights in one process. Backbones start from voxel coordinates in the
order of a voxelizer and make their maps anew each time. A figure is the median over frames that
take turns, so that no cache flatters.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from detector.benchmarks.frames import Workload, make_frames, unsorted_voxels
from detector.benchmarks.timing import (
    Ceilings,
    Time,
    busy_time,
    gpu_time,
    latency,
    peak_mebibytes,
)
from detector.models.backbones import ResidualSparseEncoder8x, SparseEncoder8x
from detector.ops.occupancy import Occupancy
from detector.ops.occupancy.gpu import ONE, Bitmap, Bits, new_table
from detector.ops.sparse_conv import sparse_conv
from detector.ops.voxelize import voxelize
from detector.sparse import SparseTensor, SubMConv3d
from detector.sparse.planned import GraphedEncoder, GraphedVoxelizer, PlannedEncoder

Voxels = tuple[Tensor, Tensor]


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


def backbone_rows(
    workload: Workload, kind: type, batch_size: int, peers: list, ceilings: Ceilings, *,
    frames: int = 8, repeats: int = 24, training: bool = True,
) -> Iterator[Row]:  # fmt: skip
    """Forward in float16 (ours: planned and captured; peers: their modules), then forward and
    backward under autocast."""
    encoder = seeded_encoder(kind, workload)
    voxels = batches(workload, batch_size, frames)
    shape = workload.spatial_shape
    name = f"{kind.__name__} b{batch_size} fp16 forward"
    floor = backbone_floor(encoder, voxels[0], shape, batch_size, ceilings)
    capacity = int(1.1 * max(len(c) for c, _ in voxels))
    room = measured_room(encoder, voxels, shape, batch_size)
    graphed = GraphedEncoder(
        PlannedEncoder(encoder, shape, batch_size, capacity, room=room), workload.columns
    )
    time = latency([partial(graphed, c, f) for c, f in voxels], repeats)
    graphed.plan.check_capacity()
    truth = _sparse_result(encoder, voxels[0], shape, batch_size)
    ours = graphed(*voxels[0])[: int(graphed.plan.out_level.count)]
    yield Row(name, workload.name, "native, one graph", time, floor,
              note=_difference(graphed.plan.out_level.coordinates[: len(ours)], ours, *truth))
    for peer in peers:
        yield _guarded(name, workload.name, peer.name, floor, lambda peer=peer: _peer_forward(
            peer, encoder, voxels, shape, batch_size, repeats, truth))  # fmt: skip
    if not training:
        return
    name = f"{kind.__name__} b{batch_size} fp16 training"
    ours_training = seeded_encoder(kind, workload).train()

    def native(c: Tensor, f: Tensor) -> Tensor:
        x = SparseTensor(f, c, shape, batch_size)
        x.occupancy.prepare(_steps(ours_training))
        for part in (ours_training.stem, *ours_training.stages, ours_training.out):
            x = part(x)
        return x.features

    yield _guarded(name, workload.name, "native", None, lambda: _training(
        ours_training, [partial(native, c, f) for c, f in voxels], repeats))  # fmt: skip
    for peer in peers:
        def measure(peer=peer):
            network = peer.encoder(encoder, shape, batch_size).train()
            calls = [
                lambda c=c, f=f: peer.features(network(c, f)) for c, f in voxels
            ]
            return _training(network, calls, repeats)

        yield _guarded(name, workload.name, peer.name, None, measure)


def _steps(encoder: nn.Module) -> list:
    from detector.sparse import SparseConv3d

    return [
        (c.kernel_size, c.stride, c.padding, c.dilation)
        for c in encoder.modules() if isinstance(c, SparseConv3d)
    ]  # fmt: skip


def measured_room(encoder: nn.Module, voxels: list[Voxels], shape, batch_size: int) -> tuple:
    """Shares of the first level's voxels that the others need, from the frames, and some more."""
    shares: list[float] = []
    for coordinates, _ in voxels:
        occupancy = Occupancy.of_any(coordinates, shape, batch_size)
        first, found = len(occupancy), [1.0]
        for step in _steps(encoder):
            occupancy, _ = occupancy.downsample(*step)
            found.append(1.1 * len(occupancy) / first)
        shares = [max(pair) for pair in zip(shares or found, found, strict=True)]
    return tuple(shares)


def _sparse_result(encoder, voxels: Voxels, shape, batch_size: int) -> Voxels:
    """Coordinates and float32 features by the eager network."""
    with torch.no_grad():
        x = SparseTensor(voxels[1], voxels[0], shape, batch_size)
        for part in (encoder.stem, *encoder.stages, encoder.out):
            x = part(x)
    return x.coordinates, x.features


def _difference(coordinates: Tensor, features: Tensor, true_coordinates, true_features) -> str:
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


def _guarded(what, workload, engine, floor, measure: Callable[[], tuple]) -> Row:
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


def _peer_forward(peer, encoder, voxels, shape, batch_size, repeats, truth):
    network = peer.encoder(encoder, shape, batch_size).eval().half()
    halves = [(c, f.half()) for c, f in voxels]
    with torch.no_grad():
        out = network(*halves[0])
        note = _difference(peer.coordinates(out), peer.features(out), *truth)
        time = latency([partial(network, c, f) for c, f in halves], repeats)
    return time, None, note


def _training(network: nn.Module, calls: list[Callable[[], Tensor]], repeats: int):
    def step(call):
        for parameter in network.parameters():
            parameter.grad = None
        with torch.autocast("cuda", torch.float16):
            features = call()
        features.float().square().mean().backward()

    steps = [partial(step, call) for call in calls]
    time = latency(steps, repeats)
    return time, peak_mebibytes(steps[0]), ""


def backbone_floor(encoder, voxels: Voxels, shape, batch_size: int, ceilings: Ceilings) -> float:
    """Each map read and written once, weights and coordinates once, two operations a pair and
    weight; a layer's floor is the larger of the two times. Milliseconds."""
    coordinates, features = voxels
    total = coordinates.numel() * 4 / ceilings.bytes_per_ms
    x = SparseTensor(features, coordinates, shape, batch_size)

    def hook(layer, inputs, output):
        nonlocal total
        before, after = inputs[0].occupancy, output.occupancy
        if isinstance(layer, SubMConv3d):
            kernel_map = before.neighbours(layer.kernel_size)
        else:
            kernel_map = before.map_to(after, layer.kernel_size)
        moved = 2 * (
            len(before) * layer.in_channels + len(after) * layer.out_channels
            + layer.weight.numel()
        )
        work = 2 * int(kernel_map.pair_count()) * layer.in_channels * layer.out_channels
        total += max(moved / ceilings.bytes_per_ms,
                     work / ceilings.operations_per_ms[torch.float16])

    from detector.sparse import SparseConv3d

    hooks = [
        layer.register_forward_hook(hook)
        for layer in encoder.modules() if isinstance(layer, (SubMConv3d, SparseConv3d))
    ]  # fmt: skip
    with torch.no_grad():
        for part in (encoder.stem, *encoder.stages, encoder.out):
            x = part(x)
    for handle in hooks:
        handle.remove()
    return total


def layer_rows(workload: Workload, peers: list, ceilings: Ceilings, channels: int = 64):
    """One submanifold layer, its map given, on the GPU alone; and its map from coordinates."""
    (coordinates, _), = batches(workload, 1, 1)
    shape = workload.spatial_shape
    layer = SubMConv3d(channels, channels, 3).cuda()
    features = torch.randn(len(coordinates), channels, device="cuda").half()
    gradient = torch.randn_like(features)
    occupancy = Occupancy.of_any(coordinates, shape, 1)
    kernel_map = occupancy.neighbours(3)
    weight = layer.weight.detach().half().requires_grad_()
    what = f"submanifold {channels} to {channels}, {len(coordinates)} voxels, fp16"
    floor = max(
        (4 * features.numel() + 2 * weight.numel()) / ceilings.bytes_per_ms,
        2 * int(kernel_map.pair_count()) * channels**2 / ceilings.operations_per_ms[torch.float16],
    )

    def forward_backward(function, x, parameter):
        def run():
            x.grad = parameter.grad = None
            function(x).backward(gradient)
        return run

    with torch.no_grad():
        yield Row(f"{what}, forward", workload.name, "native",
                  busy_time([lambda: sparse_conv(features, weight, kernel_map)]), floor)
    x = features.clone().requires_grad_()
    run = forward_backward(lambda x: sparse_conv(x, weight, kernel_map), x, weight)
    yield Row(f"{what}, forward + backward", workload.name, "native", busy_time([run]), 3 * floor)
    for peer in peers:
        def forward(peer=peer):
            made, make_input = peer.layer(layer, shape, 1)
            made.half().eval()
            with torch.no_grad():
                given = peer.with_features(made(make_input(coordinates, features)), features)
                return busy_time([lambda: made(given)]), None, ""

        def both(peer=peer):
            made, make_input = peer.layer(layer, shape, 1)
            made.half().train()
            x = features.clone().requires_grad_()
            given = made(make_input(coordinates, x))  # its result holds the map
            parameter = next(made.parameters())
            run = forward_backward(
                lambda x: peer.features(made(peer.with_features(given, x))), x, parameter
            )
            return busy_time([run]), None, ""

        yield _guarded(f"{what}, forward", workload.name, peer.name, floor, forward)
        yield _guarded(f"{what}, forward + backward", workload.name, peer.name, 3 * floor, both)
    yield from map_rows(workload, coordinates, features, layer, peers)


def map_rows(workload, coordinates, features, layer, peers):
    """The 27 neighbours of each voxel, from coordinates in any order."""
    shape = workload.spatial_shape
    what = f"map of 3x3x3 neighbours, {len(coordinates)} voxels"
    bits = Bits([shape], 1, coordinates.device)
    bitmap = Bitmap(shape, 1, coordinates.device, len(coordinates), bits.parts[0])
    emitted = torch.empty_like(coordinates)
    table, masks = new_table(27, len(coordinates), coordinates.device)

    def run():
        bits.clear()
        bitmap.mark(coordinates)
        bitmap.scan(emitted)
        bitmap.fill_table(emitted, bitmap.count, table, masks, (3, 3, 3), ONE, ONE, ONE)

    yield Row(what, workload.name, "native", gpu_time([run]))
    for peer in peers:
        def measure(peer=peer):
            made, make_input = peer.layer(layer, shape, 1)
            made.half().eval()
            with torch.no_grad():
                given = peer.with_features(made(make_input(coordinates, features)), features)
                known = busy_time([lambda: made(given)])
                fresh = busy_time([lambda: made(make_input(coordinates, features))])
            rest = fresh.median - known.median
            return Time(rest, rest, rest), None, "with map less without"

        yield _guarded(what, workload.name, peer.name, None, measure)


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
            yield _guarded(
                "voxelization (hard, 10 points), mean", workload.name, peer.name, None,
                lambda run=run: (latency([partial(run, s) for s in scans], repeats), None, ""),
            )  # fmt: skip


KINDS = (SparseEncoder8x, ResidualSparseEncoder8x)
