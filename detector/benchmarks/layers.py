"""Single layers and their maps, ours beside the installed peers'."""

from __future__ import annotations

import torch

from detector.benchmarks.frames import Workload
from detector.benchmarks.rows import Row, batches, guarded
from detector.benchmarks.timing import Ceilings, Time, busy_time, gpu_time
from detector.ops.occupancy import Occupancy
from detector.ops.occupancy.gpu import ONE, Bitmap, new_table
from detector.ops.sparse_conv import sparse_conv
from detector.sparse import SubMConv3d


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

        yield guarded(f"{what}, forward", workload.name, peer.name, floor, forward)
        yield guarded(f"{what}, forward + backward", workload.name, peer.name, 3 * floor, both)
    yield from map_rows(workload, coordinates, features, layer, peers)


def map_rows(workload, coordinates, features, layer, peers):
    """The 27 neighbours of each voxel, from coordinates in any order."""
    shape = workload.spatial_shape
    what = f"map of 3x3x3 neighbours, {len(coordinates)} voxels"
    bitmap = Bitmap(shape, 1, coordinates.device, len(coordinates))
    emitted = torch.empty_like(coordinates)
    table, masks = new_table(27, len(coordinates), coordinates.device)

    def run():
        bitmap.cleared.zero_()
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

        yield guarded(what, workload.name, peer.name, None, measure)
