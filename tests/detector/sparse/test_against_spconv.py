"""Our layers against spconv's CPU build, an independent implementation of the same functions."""

import pytest
import torch

from detector.sparse import (
    SparseConv3d,
    SparseInverseConv3d,
    SparseTensor,
    SubMConv3d,
    weight_from_spconv,
    weight_to_spconv,
)
from tests.oracles.sparse_scenes import random_coordinates, random_features

spconv = pytest.importorskip("spconv.pytorch")

SHAPE = (7, 12, 13)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """spconv's CPU kernels race with more, and ask for a CUDA stream on the way back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr("spconv.pytorch.ops.get_current_stream", lambda: 0)
    yield
    torch.set_num_threads(threads)


def scene(channels):
    cells = random_coordinates(SHAPE, 3, 0.2, 0, empty_frames=(1,))
    features = random_features(len(cells), channels, 1, torch.float32)
    ours, theirs = features.clone().requires_grad_(), features.clone().requires_grad_()
    return (
        ours, SparseTensor(ours, cells, SHAPE, 3),
        theirs, spconv.SparseConvTensor(theirs, cells, list(SHAPE), 3),
    )  # fmt: skip


def sorted_by_cell(x):
    b, z, y, x_ = x.indices.long().unbind(1)
    _, height, width = x.spatial_shape
    return torch.argsort(((b * x.spatial_shape[0] + z) * height + y) * width + x_)


def compare(ours, theirs, our_inputs, their_inputs):
    """Outputs and gradients in float32: sums of up to 125 * 16 terms in different orders."""
    order = sorted_by_cell(theirs)
    assert torch.equal(ours.coordinates, theirs.indices[order])
    assert torch.allclose(ours.features, theirs.features[order], atol=2e-5)
    weighting = torch.randn_like(ours.features)
    got = torch.autograd.grad(ours.features, our_inputs, weighting)
    expected = torch.autograd.grad(theirs.features[order], their_inputs, weighting)
    assert torch.allclose(got[0], expected[0], atol=2e-5)
    assert torch.allclose(got[1], weight_from_spconv(expected[1]), atol=2e-4)


def with_weight_of(theirs, ours):
    with torch.no_grad():
        ours.weight.copy_(weight_from_spconv(theirs.weight))
    return ours


def test_the_weight_converter_goes_both_ways():
    weight = torch.randn(4, 1, 2, 3, 5)
    assert weight_from_spconv(weight).shape == (1, 2, 3, 5, 4)
    assert torch.equal(weight_to_spconv(weight_from_spconv(weight)), weight)
    pointwise = torch.randn(4, 1, 1, 1, 5)
    for strided in (False, True):
        ours = weight_from_spconv(pointwise, strided=strided)
        assert ours.shape == (1, 1, 1, 5, 4)
        assert torch.equal(weight_to_spconv(ours, strided=strided), pointwise)


@pytest.mark.parametrize(
    ("kernel_size", "dilation"), [(1, 1), (3, 1), (5, 1), ((1, 3, 5), 1), (3, 2)]
)
def test_submanifold(kernel_size, dilation):
    our_input, x, their_input, their_x = scene(6)
    theirs = spconv.SubMConv3d(6, 16, kernel_size, dilation=dilation, bias=False)
    ours = with_weight_of(theirs, SubMConv3d(6, 16, kernel_size, dilation))
    compare(ours(x), theirs(their_x), (our_input, ours.weight), (their_input, theirs.weight))


@pytest.mark.parametrize(
    ("kernel_size", "stride", "padding", "dilation"),
    [(3, 2, 1, 1), (3, 2, (0, 1, 1), 1), ((3, 1, 1), (2, 1, 1), 0, 1), (2, 2, 0, 1), (4, 2, 1, 1),
     (3, 1, 1, 1), (5, 3, 2, 1), (3, 2, 2, 2)],
)  # fmt: skip
def test_strided(kernel_size, stride, padding, dilation):
    our_input, x, their_input, their_x = scene(5)
    theirs = spconv.SparseConv3d(5, 8, kernel_size, stride, padding, dilation, bias=False)
    layer = SparseConv3d(5, 8, kernel_size, stride, padding, dilation=dilation)
    ours = with_weight_of(theirs, layer)
    y, their_y = ours(x), theirs(their_x)
    assert list(y.spatial_shape) == list(their_y.spatial_shape)
    compare(y, their_y, (our_input, ours.weight), (their_input, theirs.weight))


def test_down_and_up_again():
    our_input, x, their_input, their_x = scene(5)
    their_down = spconv.SparseConv3d(5, 8, 3, 2, 1, bias=False, indice_key="down")
    their_up = spconv.SparseInverseConv3d(8, 4, 3, bias=False, indice_key="down")
    down = with_weight_of(their_down, SparseConv3d(5, 8, 3, 2, 1))
    up = with_weight_of(their_up, SparseInverseConv3d(8, 4, 3))
    compare(
        up(down(x), x), their_up(their_down(their_x)),
        (our_input, up.weight), (their_input, their_up.weight),
    )  # fmt: skip
