"""Convolution, batch norm and ReLU in one step of autograd, against the modules one by one."""

import copy

import pytest
import torch
from torch import nn

from detector.models.backbones import ResidualBlock, ResidualSparseEncoder8x, subm_block
from detector.ops.sparse_conv import normed
from detector.sparse import SparseBatchNorm, SparseConv3d, SparseSequential, SparseTensor
from tests.oracles.sparse_scenes import random_coordinates

pytestmark = pytest.mark.gpu
SHAPE = (8, 40, 70)


@pytest.fixture
def steps(monkeypatch):
    """Counts how often layers were one step."""
    counted = []
    whole = normed.sparse_conv_norm
    monkeypatch.setattr(
        normed, "sparse_conv_norm", lambda *a, **k: counted.append(1) or whole(*a, **k)
    )
    return counted


def tensor(channels, density=0.1):
    coordinates = random_coordinates(SHAPE, 2, density, 0).cuda()
    return SparseTensor(
        torch.randn(len(coordinates), channels, device="cuda"), coordinates, SHAPE, 2
    )


def hooked(module):
    """The same module whose parts are called one by one."""
    made = copy.deepcopy(module)
    for part in made.modules():
        if isinstance(part, (SparseBatchNorm, nn.ReLU)):
            part.register_forward_hook(lambda *_: None)
    return made


def run(module, x, dtype=torch.float16):
    features = x.features.detach().clone().requires_grad_()
    with torch.autocast("cuda", dtype):
        out = module(x.replace(features)).features
    # Not the same for all rows of a channel: a norm's input gradient of that is zero.
    generator = torch.Generator("cuda").manual_seed(3)
    slopes = torch.randn(out.shape, device="cuda", generator=generator)
    (out.float() * slopes).sum().backward()
    return out, features.grad, slopes


def near(found, true, limit):
    assert found.dtype == true.dtype
    assert (found.double() - true.double()).norm() <= limit * true.double().norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make", [
    lambda: subm_block(16, 32),
    lambda: ResidualBlock(32),
    lambda: SparseSequential(SparseConv3d(32, 64, 3, 2, 1), SparseBatchNorm(64)),
    lambda: SparseSequential(subm_block(5, 16), subm_block(16, 16)),
])  # fmt: skip
def test_as_the_modules_one_by_one(make, dtype, steps):
    torch.manual_seed(0)
    module = make().cuda().train()
    channels = next(module.parameters()).shape[3]
    apart = hooked(module)
    x = tensor(channels)
    x = x.replace(x.features.to(dtype))
    out, gradient, _ = run(module, x, dtype)
    convolutions = sum(hasattr(part, "sites") for part in module.modules())
    assert len(steps) == convolutions
    true, true_gradient, _ = run(apart, x, dtype)
    assert len(steps) == convolutions
    limit = 3e-3 if dtype == torch.float16 else 2.5e-2
    near(out, true, limit)
    near(gradient, true_gradient, 5 * limit)
    for (name, found), other in zip(module.named_parameters(), apart.parameters(), strict=True):
        assert found.grad is not None, name
        near(found.grad, other.grad, 5 * limit)
    for found, other in zip(module.buffers(), apart.buffers(), strict=True):
        near(found, other, 1e-3)


def test_against_float64():
    """One layer beside the exact one; ReLU passes gradients where float16 decided so."""
    from detector.ops.sparse_norm import batch_norm_rows

    torch.manual_seed(1)
    module = subm_block(16, 16).cuda().train()
    x = tensor(16)
    out, gradient, slopes = run(module, x)
    conv, norm = module[0], module[1]
    features = x.features.half().double().requires_grad_()
    weight = conv.weight.detach().half().double().requires_grad_()
    table = x.occupancy.neighbours(3).table

    def convolved(f, w):
        found = table[:, :, None] >= 0
        picked = f[table.clamp(min=0).long()] * found
        return torch.einsum("kvi,kio->vo", picked, w.flatten(0, 2))

    true = batch_norm_rows(
        convolved(features, weight), norm.weight.detach().double(), norm.bias.detach().double(),
        norm.eps,
    )  # fmt: skip
    near(out.double(), true.relu().detach(), 2e-3)
    (true * (out > 0) * slopes.double()).sum().backward()
    near(gradient.double(), features.grad, 5e-3)
    near(conv.weight.grad.double(), weight.grad, 5e-3)


def test_a_summand_in_float32_makes_the_sum_float32():
    out, gradient, _ = run(ResidualBlock(16).cuda().train(), tensor(16))
    assert out.dtype == gradient.dtype == torch.float32


def test_what_is_not_fused(steps):
    x = tensor(16)
    run(subm_block(16, 16).cuda().eval(), x)
    biased = SparseSequential(SparseConv3d(16, 16, 3, bias=True), SparseBatchNorm(16)).cuda()
    run(biased, x)
    frozen = subm_block(16, 16).cuda()
    frozen[1].momentum = None
    run(frozen, x)
    subm_block(16, 16).cuda()(x)  # float32
    assert not steps


def test_a_training_step_lowers_the_loss(steps):
    torch.manual_seed(2)
    encoder = ResidualSparseEncoder8x(4, (41, 64, 64)).cuda().train()
    encoder.fused = False
    coordinates = random_coordinates((41, 64, 64), 2, 0.01, 0).cuda()
    x = SparseTensor(torch.randn(len(coordinates), 4, device="cuda"), coordinates, (41, 64, 64), 2)
    optimizer = torch.optim.SGD(encoder.parameters(), 1e-2)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.float16):
            loss = (encoder(x).bev.float() - 1).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert len(steps) == 5 * 21
