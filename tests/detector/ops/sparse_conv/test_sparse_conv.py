import pytest
import torch

from detector.ops.occupancy import Occupancy
from detector.ops.sparse_conv import reference, sparse_conv
from tests.oracles.sparse_scenes import random_coordinates, random_features

SHAPE = (5, 8, 9)


def scene(batch_size=2, density=0.3, seed=0):
    return Occupancy.of_sorted(
        random_coordinates(SHAPE, batch_size, density, seed), SHAPE, batch_size
    )


def maps(occupancy):
    yield occupancy.neighbours((3, 3, 3))
    yield occupancy.neighbours((1, 1, 1))
    yield occupancy.neighbours((2, 3, 1))
    yield occupancy.downsample((3, 3, 3), 2, 1)[1]
    yield occupancy.downsample((3, 1, 1), (2, 1, 1))[1]
    yield occupancy.downsample((3, 3, 3), 2, 1)[1].transposed()


@pytest.mark.parametrize("channels", [(1, 1), (3, 5), (4, 16), (17, 2), (33, 130)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_equal_the_reference(channels, dtype):
    tolerance = {torch.float32: 2e-5, torch.float64: 1e-13}[dtype]
    for kernel_map in maps(scene()):
        features = random_features(kernel_map.rows_in, channels[0], 1, dtype).requires_grad_()
        weight = random_features(len(kernel_map.table) * channels[0], channels[1], 2, dtype)
        weight = weight.view(*kernel_map.kernel_size, *channels).requires_grad_()
        bias = random_features(1, channels[1], 3, dtype)[0].requires_grad_()
        out_gradient = random_features(kernel_map.rows_out, channels[1], 4, dtype)
        inputs = features, weight, bias

        ours = sparse_conv(features, weight, kernel_map, bias)
        gradients = torch.autograd.grad(ours, inputs, out_gradient)
        exact = [value.detach().double().requires_grad_() for value in inputs]
        expected = reference.sparse_conv(*exact[:2], kernel_map.table, exact[2])
        expected_gradients = torch.autograd.grad(expected, exact, out_gradient.double())
        for got, wanted in zip(
            (ours, *gradients), (expected, *expected_gradients), strict=True
        ):
            assert got.dtype == dtype
            scale = max(1.0, float(wanted.detach().abs().max()))
            assert float((got - wanted).detach().abs().max()) < tolerance * scale


def test_gradcheck_in_float64():
    for kernel_map in maps(scene(batch_size=1, density=0.03)):
        features = random_features(kernel_map.rows_in, 3, 1).requires_grad_()
        weight = random_features(len(kernel_map.table) * 3, 2, 2)
        weight = weight.view(*kernel_map.kernel_size, 3, 2).requires_grad_()
        bias = random_features(1, 2, 3)[0].requires_grad_()
        assert torch.autograd.gradcheck(
            lambda f, w, b, m=kernel_map: sparse_conv(f, w, m, b), (features, weight, bias)
        )


def test_no_voxels_give_no_rows_and_zero_gradients():
    empty = Occupancy.of_sorted(torch.zeros(0, 4, dtype=torch.int32), SHAPE, 2)
    for kernel_map in maps(empty):
        features = torch.zeros(0, 3, requires_grad=True)
        weight = torch.ones(*kernel_map.kernel_size, 3, 2, requires_grad=True)
        out = sparse_conv(features, weight, kernel_map, torch.ones(2))
        out.sum().backward()
        assert out.shape == (0, 2)
        assert features.grad.shape == (0, 3)
        assert weight.grad.count_nonzero() == 0


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_changes_nothing(threads):
    kernel_map = scene(batch_size=8, density=0.6).neighbours(3)
    features = random_features(kernel_map.rows_in, 16, 1, torch.float32)
    weight = random_features(27 * 16, 8, 2, torch.float32).view(3, 3, 3, 16, 8)

    def run():
        inputs = features.clone().requires_grad_(), weight.clone().requires_grad_()
        out = sparse_conv(*inputs, kernel_map)
        return out, *torch.autograd.grad(out, inputs, torch.ones_like(out))

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = run()
        torch.set_num_threads(threads)
        together = run()
    finally:
        torch.set_num_threads(before)
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)


def test_half_precisions_keep_their_dtype_and_sum_in_float32():
    kernel_map = scene().neighbours(3)
    features = random_features(kernel_map.rows_in, 8, 1, torch.bfloat16)
    weight = random_features(27 * 8, 4, 2, torch.bfloat16).view(3, 3, 3, 8, 4)
    out = sparse_conv(features, weight, kernel_map)
    exact = sparse_conv(features.double(), weight.double(), kernel_map)
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out.double(), exact, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize(
    ("features", "weight", "bias", "message"),
    [
        ((5, 2), (3, 3, 3, 2, 4), None, "features must be"),
        (None, (3, 3, 1, 2, 4), None, "weight must be"),
        (None, (3, 3, 3, 3, 4), None, "features must be"),
        (None, (3, 3, 3, 2, 4), (5,), "bias must have 4"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(features, weight, bias, message):
    kernel_map = scene().neighbours(3)
    with pytest.raises(ValueError, match=message):
        sparse_conv(
            torch.zeros(features or (kernel_map.rows_in, 2)), torch.zeros(weight), kernel_map,
            None if bias is None else torch.zeros(bias),
        )  # fmt: skip
