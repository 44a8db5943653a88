import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.sparse import (
    SparseConv3d,
    SparseInverseConv3d,
    SparseSequential,
    SparseTensor,
    SubMConv3d,
)
from tests.oracles import dense_conv
from tests.oracles.sparse_scenes import GRIDS, random_coordinates, random_features

STRIDED = [
    # kernel, stride, padding, dilation
    ((3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1)),
    ((3, 3, 3), (2, 2, 2), (0, 1, 1), (1, 1, 1)),
    ((3, 1, 1), (2, 1, 1), (0, 0, 0), (1, 1, 1)),
    ((3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
    ((2, 2, 2), (2, 2, 2), (0, 0, 0), (1, 1, 1)),
    ((1, 4, 5), (1, 2, 3), (0, 2, 1), (1, 1, 1)),
    ((2, 3, 3), (1, 2, 2), (1, 2, 3), (2, 2, 3)),
]
SHAPE = (5, 7, 11)


def close(got, expected):
    """Float64 against float64: only the order of sums differs."""
    return torch.allclose(got, expected, rtol=1e-11, atol=1e-12)


def scene(shape, batch_size, channels, seed, empty_frames=(), density=0.3):
    cells = random_coordinates(shape, batch_size, density, seed, empty_frames)
    features = random_features(len(cells), channels, seed + 1).requires_grad_()
    return SparseTensor(features, cells, shape, batch_size), features


def same_gradients(ours, theirs, inputs):
    """Of a random weighting of the output."""
    weighting = torch.randn_like(ours)
    got = torch.autograd.grad(ours, inputs, weighting)
    expected = torch.autograd.grad(theirs, inputs, weighting)
    return all(close(g, e) for g, e in zip(got, expected, strict=True))


@pytest.mark.parametrize("shape", GRIDS)
@pytest.mark.parametrize(
    ("kernel_size", "dilation"),
    [((1, 1, 1), 1), ((3, 3, 3), 1), ((5, 5, 5), 1), ((1, 3, 5), (1, 2, 1)), ((3, 3, 3), 2),
     ((2, 2, 2), 1), ((4, 2, 3), 1)],
)  # fmt: skip
def test_submanifold_equals_dense(shape, kernel_size, dilation):
    x, features = scene(shape, 2, 3, seed=0)
    layer = SubMConv3d(3, 2, kernel_size, dilation, bias=True).double()
    y = layer(x)
    expected = dense_conv.submanifold(
        features, x.coordinates, shape, 2, layer.weight, layer.dilation, layer.bias
    )
    assert y.occupancy is x.occupancy
    assert close(y.features, expected)
    assert same_gradients(y.features, expected, (features, layer.weight, layer.bias))


@pytest.mark.parametrize("sizes", STRIDED)
@pytest.mark.parametrize("shape", [SHAPE, (6, 8, 70)])
def test_strided_equals_dense(shape, sizes):
    x, features = scene(shape, 2, 3, seed=2, density=0.15)
    layer = SparseConv3d(3, 2, *sizes[:3], bias=True, dilation=sizes[3]).double()
    y = layer(x)
    expected, cells, out_shape = dense_conv.strided(
        features, x.coordinates, shape, 2, layer.weight, *sizes[1:], layer.bias
    )
    assert y.spatial_shape == out_shape
    assert torch.equal(y.coordinates, cells)
    assert close(y.features, expected)
    assert same_gradients(y.features, expected, (features, layer.weight, layer.bias))


@pytest.mark.parametrize("sizes", STRIDED)
def test_inverse_goes_back_where_the_strided_one_came_from(sizes):
    x, _ = scene(SHAPE, 2, 3, seed=3)
    coarse = SparseConv3d(3, 4, *sizes[:3], dilation=sizes[3]).double()(x)
    features = coarse.features.detach().requires_grad_()
    layer = SparseInverseConv3d(4, 2, sizes[0]).double()
    y = layer(coarse.replace(features), x)
    expected = dense_conv.inverse(
        features, coarse.coordinates, x.coordinates, SHAPE, layer.weight, *sizes[1:]
    )
    assert y.occupancy is x.occupancy
    assert close(y.features, expected)
    assert same_gradients(y.features, expected, (features, layer.weight))


def test_inverse_refuses_an_index_that_is_not_its_partner():
    x, _ = scene(SHAPE, 1, 3, seed=4)
    coarse = SparseConv3d(3, 3, 3, 2, 1).double()(x)
    stranger, _ = scene(coarse.spatial_shape, 1, 3, seed=5)
    with pytest.raises(ValueError, match="not from this one"):
        SparseInverseConv3d(3, 3, 3).double()(stranger, x)
    with pytest.raises(ValueError, match=r"with kernel size \(3, 3, 3\)"):
        SparseInverseConv3d(3, 3, 2).double()(coarse, x)


@pytest.mark.parametrize("position", list(itertools.product(range(3), repeat=3)))
def test_one_tap_moves_an_impulse_the_right_way(position):
    """Weight at offset k is what the output sees at + (k - 1)."""
    x = SparseTensor(
        torch.ones(27, 1, dtype=torch.float64),
        torch.tensor([(0, *cell) for cell in itertools.product(range(3), repeat=3)]),
        (3, 3, 3), 1,
    )  # fmt: skip
    layer = SubMConv3d(1, 1, 3).double()
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[position] = 1
    features = torch.zeros(27, 1, dtype=torch.float64)
    features[13] = 1  # the centre cell (1, 1, 1)
    out = layer(x.replace(features)).dense()[0, 0]
    target = tuple(2 - p for p in position)
    assert out.nonzero().tolist() == [list(target)]


@pytest.mark.parametrize("empty_frames", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_empty_frames_stay_empty(empty_frames):
    x, features = scene(SHAPE, 3, 3, 6, empty_frames)
    layers = SparseSequential(
        SubMConv3d(3, 4, 3), torch.nn.ReLU(), SparseConv3d(4, 5, 3, 2, 1)
    ).double()
    y = layers(x)
    assert y.batch_size == 3
    dense = y.dense()
    for frame in range(3):
        assert bool(dense[frame].any()) == (frame not in empty_frames)
    y.features.sum().backward()
    assert features.grad.shape == features.shape
    assert layers[0].weight.grad.isfinite().all()


def test_frames_of_a_batch_do_not_meet():
    x, features = scene((3, 4, 5), 3, 2, 7)
    layers = SparseSequential(SubMConv3d(2, 3, 3), SparseConv3d(3, 2, 3, 2, 1)).double()
    together = layers(x).dense()
    for frame in range(3):
        rows = x.coordinates[:, 0] == frame
        cells = x.coordinates[rows].clone()
        cells[:, 0] = 0
        alone = layers(SparseTensor(features[rows], cells, (3, 4, 5), 1)).dense()
        assert close(together[frame], alone[0])


def test_layers_on_one_index_share_its_maps():
    x, _ = scene(SHAPE, 1, 2, 8)
    first, second = SubMConv3d(2, 2, 3).double(), SubMConv3d(2, 2, 3).double()
    first(x)
    kernel_map = x.occupancy.neighbours(3)
    second(first(x))
    assert x.occupancy.neighbours(3) is kernel_map
    down = SparseConv3d(2, 2, 3, 2, 1).double()
    assert down(x).occupancy is down(first(x)).occupancy


def test_initial_outputs_have_the_spread_of_a_dense_convolution():
    torch.manual_seed(0)
    weight = SubMConv3d(16, 32, 3).weight
    dense = torch.nn.Conv3d(16, 32, 3).weight
    assert weight.shape == (3, 3, 3, 16, 32)
    assert abs(float(weight.detach().std() / dense.detach().std()) - 1) < 0.05


@pytest.mark.parametrize(
    "arguments", [dict(kernel_size=0), dict(kernel_size=(3, 3)), dict(stride=0), dict(padding=-1)]
)
def test_sizes_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        SparseConv3d(**dict(in_channels=1, out_channels=1, kernel_size=3) | arguments)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 70)),
    sizes=st.tuples(*(st.tuples(*[st.integers(low, high)] * 3)
                      for low, high in ((1, 5), (1, 3), (0, 2), (1, 2)))),
    channels=st.tuples(st.integers(1, 9), st.integers(1, 18)),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_any_strided_convolution_equals_dense(shape, sizes, channels, seed):
    kernel_size, _, padding, dilation = sizes
    fits = all(
        n + 2 * p > d * (k - 1)
        for n, k, p, d in zip(shape, kernel_size, padding, dilation, strict=True)
    )
    if not fits:
        return
    x, features = scene(shape, 2, channels[0], seed, density=0.1)
    layer = SparseConv3d(*channels, *sizes[:3], dilation=dilation).double()
    y = layer(x)
    expected, cells, out_shape = dense_conv.strided(
        features, x.coordinates, shape, 2, layer.weight, *sizes[1:]
    )
    assert y.spatial_shape == out_shape
    assert torch.equal(y.coordinates, cells)
    assert close(y.features, expected)
    assert same_gradients(y.features, expected, (features, layer.weight))
