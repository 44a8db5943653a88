"""Voxelization on a GPU: the CPU's rows, order and bits."""

import pytest
import torch

from detector.geometry import VoxelGrid
from detector.ops.voxelize import voxelize

pytestmark = pytest.mark.gpu

GRID = VoxelGrid((0, -8, -2, 16, 8, 2), (0.1, 0.1, 0.2))


def scan(count, spread=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, 5, generator=generator) * torch.tensor([18.0, 18, 5, 1, 1])
    points = (points - torch.tensor([1.0, 9, 2.5, 0, 0])) * spread
    points[::97] = torch.nan
    points[5::101, 1] = torch.inf
    points[3::50, :3] = (points[3::50, :3] * 10).round() / 10  # on faces between cells
    return points


def equal(cpu, gpu):
    for name in ("coordinates", "features", "point_counts", "voxel_of_point"):
        assert torch.equal(getattr(cpu, name), getattr(gpu, name).cpu()), name
    assert cpu.dropped_voxels == gpu.dropped_voxels


@pytest.mark.parametrize("limits", [(None, None), (5, None), (3, 200), (1, 7)])
@pytest.mark.parametrize("count", [0, 1, 1000, 50_000])
def test_the_same_as_on_a_cpu(limits, count):
    points = scan(count)
    frames = torch.randint(0, 3, (count,), dtype=torch.int32)
    for dtype in (torch.float32, torch.float64):
        given = points.to(dtype)
        cpu = voxelize(given, GRID, *limits, frame_of_point=frames, batch_size=4)
        gpu = voxelize(given.cuda(), GRID, *limits, frame_of_point=frames.cuda(), batch_size=4)
        equal(cpu, gpu)
    if limits[0]:
        assert torch.equal(cpu.points, gpu.points.cpu())


def test_crowded_voxels_are_summed_in_order():
    points = scan(60_000, spread=0.05)
    points[:3000] = torch.rand(3000, 5, generator=torch.Generator().manual_seed(1))
    points[:3000, :3] = torch.tensor([1.0, 1.0, 1.0])
    for limit in (None, 40):
        equal(voxelize(points, GRID, limit), voxelize(points.cuda(), GRID, limit))


def test_the_same_every_time():
    points = scan(50_000, spread=0.1).cuda()
    first = voxelize(points, GRID).features
    assert all(torch.equal(first, voxelize(points, GRID).features) for _ in range(5))
