import pytest
import torch

from detector.geometry import VoxelGrid
from detector.models.losses.importance import focal_importance_loss
from detector.sparse import FocalConv3d, FocalImportance, SparseTensor, SubMConv3d
from tests.oracles import focal as oracle
from tests.oracles.sparse_scenes import random_coordinates, random_features

SWITCHES = [
    {},
    dict(top_k=False),
    dict(gate_by_own_importance=True),
    dict(mask_kernel=False),
    dict(gate_by_own_importance=True, mask_kernel=False, top_k=False, threshold=0.4),
    dict(threshold=0.3),
    dict(threshold=1.0),
    dict(threshold=0.0),
]
SHAPE = (4, 5, 6)


def scene(shape=SHAPE, batch_size=3, channels=3, density=0.15, seed=0, empty_frames=()):
    cells = random_coordinates(shape, batch_size, density, seed, empty_frames)
    features = random_features(len(cells), channels, seed + 1).requires_grad_()
    return SparseTensor(features, cells, shape, batch_size), features


def by_oracle(layer, x, features):
    return oracle.focal_conv(
        features, [tuple(cell) for cell in x.coordinates.tolist()], x.spatial_shape,
        layer.weight, layer.importance.weight, top_k=layer.top_k, threshold=layer.threshold,
        gate_by_own_importance=layer.gate_by_own_importance, mask_kernel=layer.mask_kernel,
    )  # fmt: skip


def cells_of(tensor):
    return [tuple(cell) for cell in tensor.coordinates.tolist()]


def with_logits(layer, own, neighbours):
    """The layer with an importance branch that sees the first feature alone: logits are that
    feature times these numbers."""
    with torch.no_grad():
        layer.importance.weight.zero_()
        taps = layer.importance.weight[1, 1, 1, 0]
        taps[:-1] = torch.as_tensor(neighbours, dtype=taps.dtype)
        taps[-1] = own
    return layer


@pytest.mark.parametrize("switches", SWITCHES)
@pytest.mark.parametrize("kernel_size", [3, (1, 3, 5)])
def test_values_and_gradients_equal_the_oracle(switches, kernel_size):
    torch.manual_seed(0)
    x, features = scene()
    layer = FocalConv3d(3, 2, kernel_size, **switches).double()
    with torch.no_grad():
        layer.importance.weight.mul_(4)  # probabilities further apart
    y, importance = layer(x)
    expected, cells, own = by_oracle(layer, x, features)
    assert cells_of(y) == cells
    assert torch.allclose(y.features, expected, atol=1e-12)
    assert torch.allclose(importance.logits, own, atol=1e-12)

    inputs = features, layer.weight, layer.importance.weight
    weighting, own_weighting = torch.randn_like(expected), torch.randn_like(own)
    gradients = [
        torch.autograd.grad((f * weighting).sum() + (o * own_weighting).sum(), inputs)
        for f, o in ((y.features, importance.logits), (expected, own))
    ]
    for got, wanted in zip(*gradients, strict=True):
        assert torch.allclose(got, wanted, atol=1e-11)


def test_kernel_5_equals_the_oracle():
    torch.manual_seed(1)
    x, features = scene((3, 4, 5), 1, 2, density=0.1)
    layer = FocalConv3d(2, 2, 5).double()
    y, _ = layer(x)
    expected, cells, _ = by_oracle(layer, x, features)
    assert cells_of(y) == cells
    assert torch.allclose(y.features, expected, atol=1e-12)


def test_without_new_voxels_and_gates_it_is_a_submanifold_convolution():
    x, _ = scene()
    layer = with_logits(FocalConv3d(3, 4, threshold=1.0).double(), 0, [0] * 26)
    y, _ = layer(x)
    plain = x.replace(x.features)
    submanifold = SubMConv3d(3, 4, 3).double()
    submanifold.weight = layer.weight
    assert torch.equal(y.coordinates, x.coordinates)
    assert torch.allclose(y.features, submanifold(plain).features, atol=1e-13)


def test_cells_at_both_ends_of_the_grid_are_added():
    """Index 0 is a cell like any other, and so is the last."""
    ones = torch.ones(2, 1, dtype=torch.float64)
    x = SparseTensor(ones, torch.tensor([[0, 1, 1, 1], [0, 6, 6, 6]]), (8, 8, 8), 1)
    layer = with_logits(FocalConv3d(1, 1, top_k=False).double(), 9, [9] * 26)
    y, _ = layer(x)
    expected = {(0, z + i, z + j, z + k) for z in (1, 6)
                for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)}  # fmt: skip
    assert set(cells_of(y)) == expected


def test_cells_outside_the_grid_are_not():
    x = SparseTensor(torch.ones(1, 1), torch.zeros(1, 4, dtype=torch.int32), (2, 1, 3), 1)
    layer = with_logits(FocalConv3d(1, 1, top_k=False), 9, [9] * 26)
    assert cells_of(layer(x)[0]) == [(0, 0, 0, 0), (0, 0, 0, 1), (0, 1, 0, 0), (0, 1, 0, 1)]


def test_distinct_cells_at_the_far_edge_do_not_merge():
    """With keys of the largest index in place of its successor, (0, 1, 0) and (0, 0, X - 1) of a
    scene that reaches X - 1 are one, and so on for every axis."""
    shape = (3, 3, 3)
    corners = [(0, z, y, x) for z in (0, 1, 2) for y in (0, 1, 2) for x in (0, 1, 2)]
    features = torch.arange(27.0, dtype=torch.float64)[:, None] + 1
    x = SparseTensor(features, torch.tensor(corners), shape, 1)
    layer = with_logits(FocalConv3d(1, 1, top_k=False, mask_kernel=False).double(), 9, [9] * 26)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[1, 1, 1] = 1
    y, _ = layer(x)
    assert len(y) == 27
    assert torch.equal(y.features, features)


def test_one_chosen_neighbour_lies_where_its_channel_says():
    """Channels run over (z, y, x) offsets without the centre."""
    around = [offset for offset in oracle.offsets_of((3, 3, 3)) if any(offset)]
    for channel, offset in enumerate(around):
        logits = [-9.0] * 26
        logits[channel] = 9
        x = SparseTensor(torch.ones(1, 1), torch.tensor([[0, 2, 3, 4]]), (6, 7, 8), 1)
        layer = with_logits(FocalConv3d(1, 1, top_k=False), 9, logits)
        moved = tuple(c + o for c, o in zip((2, 3, 4), offset, strict=True))
        assert set(cells_of(layer(x)[0])) == {(0, 2, 3, 4), (0, *moved)}


def test_only_the_foreground_adds_voxels():
    cells = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 6]])
    x = SparseTensor(torch.tensor([[1.0], [2.0]]), cells, (1, 1, 8), 1)
    layer = with_logits(FocalConv3d(1, 1, (1, 1, 3), threshold=0.5), 1, [1.0, 1.0])
    assert [cell[3] for cell in cells_of(layer(x)[0])] == [1, 5, 6, 7]  # the top half: one voxel
    layer.top_k = False
    assert [cell[3] for cell in cells_of(layer(x)[0])] == [0, 1, 2, 5, 6, 7]


def test_the_top_fraction_is_taken_in_each_frame():
    """A frame of unimportant voxels has a foreground too, and its fraction rounds down."""
    own = torch.tensor([5.0, 4, 3, 2, 1, -1, -2, -3, -4])
    frames = [0, 0, 0, 0, 0, 2, 2, 2, 2]
    cells = torch.tensor([[frame, 0, 0, i] for i, frame in enumerate(frames)])
    x = SparseTensor(own[:, None], cells, (1, 1, 9), 4)
    layer = with_logits(FocalConv3d(1, 1, (1, 1, 1), threshold=0.5), 1, [])
    foreground = layer._foreground(own, x.occupancy)
    assert foreground.tolist() == [True, True, False, False, False, True, True, False, False]


def test_equally_important_voxels_are_taken_by_row():
    cells = torch.tensor([[0, 0, 0, i] for i in range(5)])
    x = SparseTensor(torch.ones(5, 1), cells, (1, 1, 5), 1)
    layer = FocalConv3d(1, 1, (1, 1, 1), threshold=0.6)
    assert layer._foreground(torch.ones(5), x.occupancy).tolist() == [True] * 3 + [False] * 2


@pytest.mark.parametrize("empty_frames", [(0,), (1,), (2,), (0, 1, 2)])
@pytest.mark.parametrize("top_k", [True, False])
def test_empty_frames_stay_in_the_batch(empty_frames, top_k):
    x, features = scene(empty_frames=empty_frames)
    layer = FocalConv3d(3, 2, top_k=top_k, importance_channels=4).double()
    y, importance = layer(x)
    grid = VoxelGrid((0, 0, 0, 6, 5, 4), (1, 1, 1))
    loss = focal_importance_loss(importance, [torch.zeros(0, 7)] * 3, grid)
    (y.features.sum() + loss).backward()
    assert y.batch_size == 3
    assert not set(y.coordinates[:, 0].tolist()) & set(empty_frames)
    assert loss.isfinite()
    assert layer.weight.grad.isfinite().all()
    assert layer.importance.weight.grad.isfinite().all()


def test_frames_of_a_batch_do_not_meet():
    x, features = scene()
    layer = FocalConv3d(3, 2).double()
    together = layer(x)[0]
    for frame in range(3):
        rows = x.coordinates[:, 0] == frame
        cells = x.coordinates[rows].clone()
        cells[:, 0] = 0
        alone = layer(SparseTensor(features[rows], cells, SHAPE, 1))[0]
        of_frame = together.coordinates[:, 0] == frame
        assert torch.equal(together.coordinates[of_frame, 1:], alone.coordinates[:, 1:])
        assert torch.allclose(together.features[of_frame], alone.features, atol=1e-13)


def test_the_enlarging_branch_leaves_the_features_path_alone():
    x, _ = scene()
    layer = FocalConv3d(3, 2, importance_channels=8, mask_kernel=False, top_k=False).double()
    assert layer.enlarge[0].weight.shape == (3, 3, 3, 3, 8)
    assert layer.importance.weight.shape == (3, 3, 3, 8, 27)
    assert layer.weight.shape == (3, 3, 3, 3, 2)
    layer(x)[1].logits.sum().backward()
    assert layer.enlarge[0].weight.grad.abs().sum() > 0
    assert layer.weight.grad is None


def test_nothing_is_bound_to_a_device():
    with torch.device("meta"):
        layer = FocalConv3d(3, 2, importance_channels=4)
    tensors = [*layer.parameters(), *layer.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    held = {name for name, value in vars(layer).items() if isinstance(value, torch.Tensor)}
    assert not held


def test_a_low_prior_starts_as_a_submanifold_convolution():
    torch.manual_seed(0)
    x, _ = scene()
    layer = FocalConv3d(3, 2, top_k=False, foreground_prior=0.01).double()
    y, importance = layer(x)
    assert torch.equal(y.coordinates, x.coordinates)
    assert float(importance.logits.sigmoid().mean().detach()) < 0.05
    assert layer.importance.bias[:-1].count_nonzero() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(dict(kernel_size=2), "odd sizes"), (dict(kernel_size=(3, 4, 3)), "odd sizes"),
     (dict(threshold=1.5), "threshold"), (dict(threshold=-0.1), "threshold"),
     (dict(foreground_prior=1.0), "foreground_prior")],
)  # fmt: skip
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        FocalConv3d(3, 2, **arguments)


def test_importance_is_kept_for_the_loss():
    x, _ = scene()
    importance = FocalConv3d(3, 2, stride=4).double()(x)[1]
    assert isinstance(importance, FocalImportance)
    assert (importance.stride, importance.batch_size) == (4, 3)
    assert torch.equal(importance.coordinates, x.coordinates)
