"""Planned backbones and graphed detectors against the eager ones."""

import copy

import pytest
import torch
from torch import nn

from detector.models.backbones import ResidualSparseEncoder8x, SparseEncoder8x
from detector.sparse import SparseModule, SparseTensor
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
    for stage in encoder.focal.values():  # some voxels matter, and clearly so
        nn.init.normal_(stage.conv.importance.weight, std=0.5)
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
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("in_order", [False, True])
def test_one_graph_gives_what_the_modules_give(kind, dtype, batch_size, in_order, monkeypatch):
    from detector.ops.sparse_conv import tensor_cores
    from detector.sparse.planned import GraphedEncoder, PlannedEncoder

    monkeypatch.setattr(tensor_cores, "gains_by_order", lambda *_: in_order)
    if dtype == torch.float32:
        monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
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
        assert error < (3e-2 if dtype == torch.bfloat16 else 3e-3)
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
    with pytest.raises(ValueError, match=r"features are .* the graph takes \(N, 4\) and \(N, 4\)"):
        graphed(*frame(0.001, 1, 1, columns=5))
    coordinates, features = frame(0.001, 1, 1)
    rows = graphed(coordinates, features)
    true = eager(encoder, coordinates, features, 1)
    plan.check_capacity()
    assert torch.equal(plan.out_level.coordinates[: len(true)], true.coordinates)
    torch.testing.assert_close(rows[: len(true)].float(), true.features, rtol=0.02, atol=0.02)


class GivenLogits(SparseModule):
    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, x):
        assert len(x) == len(self.logits)
        return x.replace(self.logits)


def eager_with_choices_of(plan, encoder, coordinates, features, batch_size):
    """The eager network, but for what it thinks of its voxels: that is the plan's. Rounding may
    tip a choice; by equal numbers, all must be equal."""
    encoder, focal = copy.deepcopy(encoder), iter(plan.focal)
    x = encoder.stem(SparseTensor(features, coordinates, SHAPE, batch_size))
    for number, stage in enumerate(encoder.stages, 1):
        x = stage(x)
        if str(number) in encoder.focal:
            layer, planned = encoder.focal[str(number)], next(focal)
            offsets = layer.conv.weight.shape[:3].numel()
            count = int(planned.here.count)
            layer.conv.enlarge = None
            layer.conv.importance = GivenLogits(planned.logits[:count, :offsets].float())
            x, _ = layer(x)
            cells = planned.coordinates
            grown = SparseTensor(x.features[:, :1], cells, x.spatial_shape, batch_size)
            assert torch.equal(grown.coordinates, x.coordinates)
    return encoder.out(x)


FOCAL = [
    dict(),
    dict(threshold=0.3, gate_by_own_importance=True, mask_kernel=False),
    dict(top_k=False, foreground_prior=0.1),
    dict(top_k=False, threshold=0.7, gate_by_own_importance=True, importance_channels=16),
    dict(top_k=False, kernel_size=(1, 3, 5), threshold=0.9),
]


@pytest.mark.parametrize("options", FOCAL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("batch_size", [1, 3])
@torch.no_grad()
def test_focal_stages_choose_and_compute_what_the_modules_do(options, dtype, batch_size):
    from detector.sparse.planned import GraphedEncoder, PlannedEncoder

    kind = SparseEncoder8x if batch_size == 1 else ResidualSparseEncoder8x
    encoder = made(kind, columns=5, focal_stages=(1, 2, 3), focal=options)
    plan = PlannedEncoder(encoder, SHAPE, batch_size, 40_000, dtype, room=(1.0, 30.0))
    graphed = GraphedEncoder(plan, 5)
    empty = (1,) if batch_size > 1 else ()
    for density, seed in ((0.02, 0), (0.05, 1), (0.0001, 2), (0.02, 0)):
        coordinates, features = frame(density, seed, batch_size, 5, empty)
        rows = graphed(coordinates, features)
        plan.check_capacity()
        true = eager_with_choices_of(plan, encoder, coordinates, features, batch_size)
        count = int(plan.out_level.count)
        assert torch.equal(plan.out_level.coordinates[:count], true.coordinates)
        error = (rows[:count].float() - true.features).norm() / true.features.norm()
        assert error < (3e-3 if dtype == torch.float16 else 3e-2)
        # The first stage's opinion is the modules' but for rounding.
        x = encoder.stages[0](encoder.stem(SparseTensor(features, coordinates, SHAPE, batch_size)))
        layer = encoder.focal["1"].conv
        wide = layer.importance(x if layer.enlarge is None else layer.enlarge(x)).features
        mine = plan.focal[0].logits[: len(wide), : wide.shape[1]].float()
        assert (mine - wide).norm() / wide.norm() < (5e-3 if dtype == torch.float16 else 5e-2)


@torch.no_grad()
def test_too_much_growth_is_reported_and_the_next_frame_is_right():
    from detector.sparse.planned import GraphedEncoder, PlannedEncoder

    encoder = made(SparseEncoder8x, focal_stages=(1,), focal=dict(top_k=False))
    plan = PlannedEncoder(encoder, SHAPE, 1, 8000, room=(1.0, 1.0, 8.0))
    graphed = GraphedEncoder(plan, 4)
    graphed(*frame(0.03, 0, 1))
    with pytest.raises(OverflowError, match=r"the focal stage of level 0 .* had \d+ voxels"):
        plan.check_capacity()
    coordinates, features = frame(0.001, 1, 1)
    rows = graphed(coordinates, features)
    plan.check_capacity()
    true = eager_with_choices_of(plan, encoder, coordinates, features, 1)
    assert torch.equal(plan.out_level.coordinates[: len(true)], true.coordinates)
    torch.testing.assert_close(rows[: len(true)].float(), true.features, rtol=0.02, atol=0.02)


def test_what_can_not_be_planned_is_refused(monkeypatch):
    from detector.sparse.planned import PlannedEncoder

    with pytest.raises(ValueError, match=r"evaluation mode; call .eval\(\)"):
        PlannedEncoder(made(SparseEncoder8x).train(), SHAPE, 1, 100)
    with pytest.raises(ValueError, match="where torch multiplies it as TF32, float32"):
        PlannedEncoder(made(SparseEncoder8x), SHAPE, 1, 100, torch.float32)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    with pytest.raises(ValueError, match=r"planned in 16-bit floats, not in torch.float32"):
        PlannedEncoder(
            made(SparseEncoder8x, focal_stages=(1,), focal={}), SHAPE, 1, 100, torch.float32
        )


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
