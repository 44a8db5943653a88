"""The kernels against the reference in float64, and the running statistics against torch's."""

import pytest
import torch
from torch import nn

from detector.ops.sparse_norm import batch_norm_rows
from detector.ops.sparse_norm.gpu import norm_kernels

pytestmark = pytest.mark.gpu

ROUNDING = {torch.float16: 1e-3, torch.bfloat16: 8e-3}


def relative(found, true):
    return float((found.double() - true).norm() / true.norm().clamp(min=1e-30))


def norm_of(channels):
    norm = nn.BatchNorm1d(channels, eps=1e-3).cuda()
    nn.init.uniform_(norm.weight, -1.0, 2.0)
    nn.init.uniform_(norm.bias, -0.5, 0.5)
    return norm


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize(("rows", "channels"), [
    (2, 16), (3, 64), (257, 32), (1000, 8), (1001, 256), (300_001, 16), (60_000, 128),
])  # fmt: skip
def test_values_and_gradients(dtype, relu, joined, rows, channels):
    torch.manual_seed(rows)
    norm = norm_of(channels)
    x = (torch.randn(rows, channels, device="cuda") * 2 + torch.arange(channels).cuda()).to(dtype)
    residual = torch.randn_like(x) if joined else None
    gradient = torch.randn_like(x)
    kernels = norm_kernels(channels, dtype, relu, joined)
    theirs = nn.BatchNorm1d(channels, eps=1e-3).cuda()
    y, statistics = kernels.forward(x, norm, residual)
    x_gradient, residual_gradient, parameters = kernels.backward(
        gradient, x, y, norm.weight.detach(), statistics
    )
    inputs = [x.double(), norm.weight.detach().double(), norm.bias.detach().double()]
    inputs += [residual.double()] if joined else []
    inputs = [one.requires_grad_() for one in inputs]
    before = batch_norm_rows(*inputs[:3], norm.eps, *inputs[3:])
    true = before.relu() if relu else before
    assert relative(y, true.detach()) < ROUNDING[dtype]
    # ReLU's derivative where rounding to 16 bits decided.
    before.backward(gradient.double() * (y > 0) if relu else gradient.double())
    assert relative(x_gradient, inputs[0].grad) < 2 * ROUNDING[dtype]
    assert relative(parameters[0], inputs[1].grad) < ROUNDING[dtype]
    assert relative(parameters[1], inputs[2].grad) < 1e-5
    if joined:
        assert relative(residual_gradient, inputs[3].grad) < 1e-6
    theirs(x.float())
    assert relative(norm.running_mean, theirs.running_mean.double()) < 1e-5
    assert relative(norm.running_var, theirs.running_var.double()) < 1e-5
    assert norm.num_batches_tracked == 1


def test_a_large_mean_costs_no_digits():
    x = (torch.randn(100_000, 16, device="cuda") * 0.5 + 1000).half()
    y, statistics = norm_kernels(16, torch.half, False, False).forward(x, norm_of(16), None)
    assert relative(statistics[0], x.double().mean(0)) < 1e-6
    inverse = (x.double().var(0, unbiased=False) + 1e-3).rsqrt()
    assert relative(statistics[1], inverse) < 1e-4


def test_the_same_every_time():
    x, gradient = torch.randn(2, 100_000, 64, device="cuda").half()
    kernels, norm = norm_kernels(64, torch.half, True, False), norm_of(64)
    found = []
    for _ in range(3):
        y, statistics = kernels.forward(x, norm, None)
        found.append((y, *kernels.backward(gradient, x, y, norm.weight.detach(), statistics)[::2]))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
