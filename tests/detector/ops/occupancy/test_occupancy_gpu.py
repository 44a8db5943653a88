"""The index on a GPU against the CPU's."""

import itertools

import numpy as np
import pytest
import torch

from detector.ops.occupancy import Occupancy
from tests.oracles.sparse_scenes import GRIDS, random_coordinates

pytestmark = pytest.mark.gpu


def pair(coordinates, shape, batch_size):
    shuffled = coordinates[torch.randperm(len(coordinates))]
    return (
        Occupancy.of_any(coordinates, shape, batch_size),
        Occupancy.of_any(shuffled.cuda(), shape, batch_size),
    )


def same(cpu, gpu):
    return torch.equal(cpu, gpu.cpu())


@pytest.mark.parametrize("shape", GRIDS)
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_rows_and_neighbours(shape, density):
    coordinates = random_coordinates(shape, 3, density, 0, empty_frames=(1,), corners=density > 0)
    cpu, gpu = pair(coordinates, shape, 3)
    assert same(cpu.coordinates, gpu.coordinates)
    queries = torch.from_numpy(np.random.default_rng(1).integers(-2, 9, (500, 4), np.int32))
    assert same(cpu.rows(queries), gpu.rows(queries.cuda()))
    for size, dilation in itertools.product((1, 2, 3, 4, 5, (3, 1, 5)), (1, (2, 1, 3))):
        ours, theirs = gpu.neighbours(size, dilation), cpu.neighbours(size, dilation)
        assert same(theirs.table, ours.table)
        assert same(theirs.transposed().table, ours.transposed().table)


STEPS = [
    (3, 2, 1, 1), (3, 2, (0, 1, 1), 1), ((3, 1, 1), (2, 1, 1), 0, 1), (2, 2, 0, 1), (5, 3, 2, 1),
    (3, 1, 1, 1), (3, (1, 2, 3), 1, (1, 2, 1)),
]  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("shape", [(5, 9, 70), (7, 8, 130)])
def test_downsampling(step, shape):
    cpu, gpu = pair(random_coordinates(shape, 2, 0.05, 2), shape, 2)
    (coarse, table), (coarse_gpu, table_gpu) = cpu.downsample(*step), gpu.downsample(*step)
    assert coarse.spatial_shape == coarse_gpu.spatial_shape
    assert same(coarse.coordinates, coarse_gpu.coordinates)
    assert same(table.table, table_gpu.table)
    assert same(table.transposed().table, table_gpu.transposed().table)


def test_a_chain_is_made_with_one_wait():
    cpu, gpu = pair(random_coordinates((17, 40, 70), 2, 0.02, 3), (17, 40, 70), 2)
    steps = [((3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1))] * 3
    torch.cuda.set_sync_debug_mode("default")
    gpu.prepare(steps)
    torch.cuda.set_sync_debug_mode("error")
    try:
        levels = [gpu]
        for step in steps:
            levels.append(levels[-1].downsample(*step)[0])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for step, level in zip(steps, levels[1:], strict=True):
        cpu = cpu.downsample(*step)[0]
        assert same(cpu.coordinates, level.coordinates)


def test_union_and_dilation():
    shape = (5, 20, 70)
    cpu, gpu = pair(random_coordinates(shape, 2, 0.03, 4), shape, 2)
    more = random_coordinates(shape, 2, 0.03, 5)
    assert same(cpu.union(more).coordinates, gpu.union(more.cuda()).coordinates)
    chosen = torch.rand(len(cpu), 27) < 0.2
    assert same(cpu.dilate(chosen, 3).coordinates, gpu.dilate(chosen.cuda(), 3).coordinates)


def test_three_hundred_thousand_voxels_in_a_large_grid():
    rng = np.random.default_rng(6)
    shape = (41, 1440, 1440)
    cells = np.stack([rng.integers(0, n, 300_000) for n in (2, *shape)], 1).astype(np.int32)
    coordinates = torch.from_numpy(cells)
    cpu = Occupancy.of_any(coordinates, shape, 2)
    gpu = Occupancy.of_any(coordinates.cuda(), shape, 2)
    assert same(cpu.coordinates, gpu.coordinates)
    assert same(cpu.neighbours(3).table, gpu.neighbours(3).table)
    assert same(cpu.downsample(3, 2, 1)[0].coordinates, gpu.downsample(3, 2, 1)[0].coordinates)


def test_a_thousand_random_shapes():
    rng = np.random.default_rng(7)
    for case in range(1000):
        shape = tuple(int(n) for n in rng.integers(1, (8, 20, 100)))
        coordinates = random_coordinates(shape, 2, float(rng.random() ** 3), case)
        cpu, gpu = pair(coordinates, shape, 2)
        size = tuple(int(k) for k in rng.integers(1, 6, 3))
        dilation = tuple(int(d) for d in rng.integers(1, 4, 3))
        assert same(cpu.coordinates, gpu.coordinates), case
        assert same(cpu.neighbours(size, dilation).table, gpu.neighbours(size, dilation).table)
        stride = tuple(int(s) for s in rng.integers(1, 4, 3))
        padding = tuple(int(p) for p in rng.integers(0, 3, 3))
        try:
            coarse, table = cpu.downsample(size, stride, padding, dilation)
        except ValueError:
            continue
        coarse_gpu, table_gpu = gpu.downsample(size, stride, padding, dilation)
        assert same(coarse.coordinates, coarse_gpu.coordinates), (case, size, stride, padding)
        assert same(table.table, table_gpu.table), (case, size, stride, padding)
