"""The kernels of `norm.cu`, run on a CPU, against the reference in float64."""

import pytest
import torch
from torch import nn

from detector.ops.sparse_norm import batch_norm_rows
from tests.oracles.cuda_on_cpu import CpuKernels


def relative(found, true):
    return float((found.double() - true).norm() / true.norm())


@pytest.mark.parametrize(("channels", "relu", "joined", "rows"), [
    (16, 1, 1, 300), (64, 1, 0, 257), (128, 0, 1, 100), (8, 0, 0, 700), (32, 1, 0, 2),
])  # fmt: skip
def test_values_and_gradients(tmp_path, channels, relu, joined, rows):
    kernels = CpuKernels(
        "sparse_norm/norm.cu",
        ("sum_rows", "normalize", "normalize_again", "sum_gradients", "input_gradient"), tmp_path,
        dict(CHANNELS=channels, RELU=relu, RESIDUAL=joined, BF16=0),
    )  # fmt: skip
    torch.manual_seed(channels)
    x = (torch.randn(rows, channels) * 2 + torch.arange(channels) / 8).half()
    residual = torch.randn_like(x) if joined else None
    gradient = torch.randn_like(x)
    weight, bias = torch.rand(channels) * 3 - 1, torch.rand(channels)
    theirs = nn.BatchNorm1d(channels, eps=1e-3)
    mean, variance = torch.zeros(channels), torch.ones(channels)
    batches = torch.zeros(1, dtype=torch.int64)
    parts, statistics = 3, torch.empty(4, channels)
    partial = torch.empty(parts, 2 * channels)
    # More room than rows, whose number the kernels read.
    room, count = rows + 300, torch.tensor([rows], dtype=torch.int32)
    y, x_gradient = torch.full_like(x, torch.nan), torch.full_like(x, torch.nan)
    residual_gradient = torch.full_like(x, torch.nan)
    parameters = torch.empty(2, channels)
    kernels.sum_rows(parts, 256, x, room, count, partial)
    kernels.normalize(
        2, 256, x, partial, parts, room, count, weight, bias, 1e-3, 0.1, mean, variance, batches,
        residual, statistics, y,
    )  # fmt: skip
    if not joined:
        again = torch.full_like(x, torch.nan)
        kernels.normalize_again(2, 256, x, room, count, statistics, again)
        assert torch.equal(again, y)
    kernels.sum_gradients(parts, 256, gradient, x, y, room, count, statistics, partial)
    kernels.input_gradient(
        2, 256, gradient, x, y, partial, parts, room, count, weight, statistics, parameters,
        residual_gradient, x_gradient,
    )  # fmt: skip
    inputs = [x, weight, bias] + ([residual] if joined else [])
    inputs = [one.double().requires_grad_() for one in inputs]
    before = batch_norm_rows(*inputs[:3], 1e-3, *inputs[3:])
    assert relative(y, (before.relu() if relu else before).detach()) < 5e-4
    before.backward(gradient.double() * (y > 0) if relu else gradient.double())
    assert relative(x_gradient, inputs[0].grad) < 5e-4
    assert relative(parameters[0], inputs[1].grad) < 1e-5
    assert relative(parameters[1], inputs[2].grad) < 1e-6
    if joined:
        assert relative(residual_gradient, inputs[3].grad) == 0
    theirs(x.float())
    assert relative(mean, theirs.running_mean.double()) < 1e-6
    assert relative(variance, theirs.running_var.double()) < 1e-6
    assert int(batches) == 1
