"""Planned backbones and graphed detectors against the eager ones."""

import pytest
import torch
from torch import nn

from detector.models.backbones import ResidualSparseEncoder8x, SparseEncoder8x
from detector.sparse import SparseTensor
from tests.oracles.sparse_scenes import random_coordinates

pytestmark = pytest.mark.gpu

SHAPE = (41, 64, 72)


def made(kind, columns=4, **options):
    torch.manual_seed(0)
    encoder = kind(columns, SHAPE, **options).cuda()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 1.0, 1.6)
            nn.init.uniform_(module.bias, -0.1, 0.3)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.1, 0.3)
    return encoder.eval()


def eager(encoder, coordinates, features, batch_size):
    with torch.no_grad():
        x = SparseTensor(features, coordinates, SHAPE, batch_size)
        for part in (encoder.stem, *encoder.stages, encoder.out):
            x = part(x)
    return x


def frame(density, seed, batch_size, columns=4, empty_frames=()):
    coordinates = random_coordinates(SHAPE, batch_size, density, seed, empty_frames)
    coordinates = coordinates[torch.randperm(len(coordinates))].cuda()
    return coordinates, torch.randn(len(coordinates), columns, device="cuda")


@pytest.mark.parametrize("kind", [SparseEncoder8x, ResidualSparseEncoder8x])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_one_graph_gives_what_the_modules_give(kind, dtype, batch_size):
    from detector.sparse.planned import GraphedEncoder, PlannedEncoder

    encoder = made(kind, columns=5)
    room = (1.0, 4.0, 2.0, 1.0, 1.0)
    plan = PlannedEncoder(encoder, SHAPE, batch_size, 40_000, dtype, room)
    graphed = GraphedEncoder(plan, 5)
    empty = (1,) if batch_size > 1 else ()
    for density, seed in ((0.02, 0), (0.05, 1), (0.0001, 2), (0.02, 0)):
        coordinates, features = frame(density, seed, batch_size, 5, empty)
        rows = graphed(coordinates, features)
        true = eager(encoder, coordinates, features, batch_size)
        count = int(plan.out_level.count)
        assert torch.equal(plan.out_level.coordinates[:count], true.coordinates)
        error = (rows[:count].float() - true.features).norm() / true.features.norm()
        assert error < (3e-3 if dtype == torch.float16 else 3e-2)
        plan.check_capacity()


def test_too_many_voxels_are_reported_and_the_next_frame_is_right():
    from detector.sparse.planned import GraphedEncoder, PlannedEncoder

    encoder = made(SparseEncoder8x)
    plan = PlannedEncoder(encoder, SHAPE, 1, 6000, room=(1.0, 1.0, 0.5, 0.3, 0.3))
    graphed = GraphedEncoder(plan, 4)
    graphed(*frame(0.03, 0, 1))
    with pytest.raises(OverflowError, match=r"level 1 .* voxels, the plan has room for"):
        plan.check_capacity()
    with pytest.raises(OverflowError, match="voxels came in, the plan has room for 6016"):
        graphed(*frame(0.1, 0, 1))
    coordinates, features = frame(0.001, 1, 1)
    rows = graphed(coordinates, features)
    true = eager(encoder, coordinates, features, 1)
    plan.check_capacity()
    assert torch.equal(plan.out_level.coordinates[: len(true)], true.coordinates)
    torch.testing.assert_close(rows[: len(true)].float(), true.features, rtol=0.02, atol=0.02)


def test_what_can_not_be_planned_is_refused():
    from detector.sparse.planned import PlannedEncoder

    with pytest.raises(ValueError, match=r"evaluation mode; call .eval\(\)"):
        PlannedEncoder(made(SparseEncoder8x).train(), SHAPE, 1, 100)


def test_a_graphed_voxelizer_gives_the_voxelizers_bits():
    from detector.geometry import VoxelGrid
    from detector.ops.voxelize import voxelize
    from detector.sparse.planned import GraphedVoxelizer

    grid = VoxelGrid((0, -8, -2, 16, 8, 2), (0.1, 0.1, 0.2))
    graphed = GraphedVoxelizer(grid, 20_000, 20_000, 4, limit=3)
    for count in (15_000, 0, 1, 15_000):
        points = (torch.rand(count, 4) * 18 - torch.tensor([1.0, 9, 9, 0])).cuda()
        coordinates, means, rows = graphed(points)
        true = voxelize(points, grid, 3)
        assert int(rows) == len(true.coordinates)
        assert torch.equal(coordinates[: int(rows)], true.coordinates)
        assert torch.equal(means[: int(rows)], true.features)
