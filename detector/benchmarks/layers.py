"""Single layers and their maps, ours beside the installed peers': the time of the GPU alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from detector.benchmarks.backbones import PRECISIONS, STEPS
from detector.benchmarks.floors import product_floor_ms
from detector.benchmarks.frames import Workload
from detector.benchmarks.rows import Row, batches, guarded
from detector.benchmarks.timing import Ceilings, Time, busy_time, gpu_time, tf32_products
from detector.ops.occupancy import Occupancy
from detector.ops.occupancy.gpu_bitmap import Bitmap, Bits
from detector.ops.occupancy.shapes import ONE
from detector.ops.occupancy.tables import ConvTable, fill_scanned
from detector.ops.sparse_conv import sparse_conv
from detector.sparse import SubMConv3d


def layer_rows(
    workload: Workload, peers: list, ceilings: Ceilings, *, precision: str = "fp16",
    channels: int = 64,
) -> Iterator[Row]:  # fmt: skip
    """One submanifold layer, its map given."""
    (coordinates, _), = batches(workload, 1, 1)
    shape, dtype = workload.spatial_shape, PRECISIONS[precision]
    layer = SubMConv3d(channels, channels, 3).cuda()
    features = torch.randn(len(coordinates), channels, device="cuda", dtype=dtype)
    gradient = torch.randn_like(features)
    kernel_map = Occupancy.of_any(coordinates, shape, 1).neighbours(3)
    weight = layer.weight.detach().to(dtype).requires_grad_()
    what = f"submanifold {channels} to {channels}, {len(coordinates)} voxels, {precision}"
    floor = product_floor_ms(kernel_map, weight, dtype, ceilings)

    def row(part: str, engine: str, floor_ms: float, measure) -> Row:
        with tf32_products():
            return guarded(f"{what}, {part}", workload.name, engine, floor_ms, measure)

    def forward(function: Callable, x):
        with torch.no_grad():
            return busy_time([lambda: function(x)]), None, ""

    def both(function: Callable, x, parameter):
        def run():
            x.grad = parameter.grad = None
            function(x).backward(gradient)

        return busy_time([run]), None, ""

    def native(x):
        return sparse_conv(x, weight, kernel_map)

    yield row("forward", "native", floor, lambda: forward(native, features))
    yield row("forward + backward", "native", STEPS * floor,
              lambda: both(native, features.clone().requires_grad_(), weight))
    for peer in peers:
        def peer_forward(peer=peer):
            made, make_input = peer.layer(layer, shape, 1)
            made.to(dtype).eval()
            with torch.no_grad():
                given = peer.with_features(made(make_input(coordinates, features)), features)
            return forward(made, given)

        def peer_both(peer=peer):
            made, make_input = peer.layer(layer, shape, 1)
            made.to(dtype).train()
            x = features.clone().requires_grad_()
            given = made(make_input(coordinates, x))  # its result holds the map
            return both(
                lambda x: peer.features(made(peer.with_features(given, x))), x,
                next(made.parameters()),
            )

        yield row("forward", peer.name, floor, peer_forward)
        yield row("forward + backward", peer.name, STEPS * floor, peer_both)


def map_rows(workload: Workload, peers: list, ceilings: Ceilings) -> Iterator[Row]:
    """The 27 neighbours of each voxel, from coordinates in any order: coordinates are read once
    and the table is written once, at least. Two sets of bits take turns: as in a network, those of
    the map before are cleared beside what follows it, on another stream."""
    (coordinates, _), = batches(workload, 1, 1)
    shape, voxels = workload.spatial_shape, len(coordinates)
    what = f"map of 3x3x3 neighbours, {voxels} voxels"
    floor = (coordinates.numel() + 27 * voxels) * 4 / ceilings.bytes_per_ms
    sets = [Bits([shape], 1, coordinates.device) for _ in range(2)]
    bitmaps = [Bitmap(shape, 1, coordinates.device, voxels, bits.parts[0]) for bits in sets]
    emitted = torch.empty_like(coordinates)
    beside = torch.cuda.Stream()

    def run(table: ConvTable, turn: int):
        bitmap, before = bitmaps[turn], sets[1 - turn]
        main = torch.cuda.current_stream()
        bitmap.mark(coordinates)
        beside.wait_stream(main)
        with torch.cuda.stream(beside):
            before.clear()
        bitmap.scan()
        fill_scanned(bitmap, bitmap, emitted, [table], (3, 3, 3), ONE, ONE, ONE)
        main.wait_stream(beside)

    for in_order in (False, True):
        table = ConvTable.empty(27, voxels, coordinates.device, in_order=in_order)
        kind = "native, in order" if in_order else "native"
        calls = [partial(run, table, turn) for turn in range(2)]
        yield guarded(what, workload.name, kind, floor,
                      lambda calls=calls: (gpu_time(calls), None, ""))
    layer = SubMConv3d(64, 64, 3).cuda()
    features = torch.randn(voxels, 64, device="cuda").half()
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

        yield guarded(what, workload.name, peer.name, floor, measure)
