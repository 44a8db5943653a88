"""How a chain is trained as one step - order, buffers, gradients - with kernels in NumPy, against
the modules in float64."""

import copy

import pytest
import torch
from torch import nn

from detector.models.backbones import ResidualBlock, strided_block, subm_block
from detector.sparse import SparseSequential, SparseTensor
from detector.sparse.planned import chain, training
from detector.training.sync_norm import synchronise_norms
from tests.oracles.launches_on_cpu import stand_in
from tests.oracles.sparse_scenes import random_coordinates

SHAPE, BATCH = (9, 20, 40), 2
GPU = torch.device("cuda", 63)
"""No real one: what is remembered of a GPU is not to be ours."""
CHAINS = {
    "plain": lambda: [
        subm_block(5, 16),
        SparseSequential(subm_block(16, 16)),
        SparseSequential(strided_block(16, 32, 3, 2, 1), subm_block(32, 32)),
        strided_block(32, 64, (3, 1, 1), (2, 1, 1), 0),
    ],
    "residual": lambda: [
        subm_block(4, 16),
        SparseSequential(ResidualBlock(16), ResidualBlock(16)),
        SparseSequential(strided_block(16, 32, 3, 2, 1), ResidualBlock(32), ResidualBlock(32)),
        strided_block(32, 64, (3, 1, 1), (2, 1, 1), 0),
    ],
    "up to a focal stage": lambda: [
        SparseSequential(strided_block(16, 32, 3, 2, 1), ResidualBlock(32)),
    ],
    "one layer": lambda: [subm_block(16, 16)],
}


def scene(channels):
    coordinates = random_coordinates(SHAPE, BATCH, 0.08, 0)
    torch.manual_seed(1)
    return SparseTensor(torch.randn(len(coordinates), channels), coordinates, SHAPE, BATCH)


@pytest.fixture
def started(monkeypatch):
    """Kernels that run on a CPU; the names of those that did."""
    layers_of = chain.layers_of
    monkeypatch.setattr(
        chain, "layers_of", lambda modules, dtype, _: layers_of(modules, dtype, GPU)
    )
    monkeypatch.setattr(training.gpu, "compute_dtype", lambda *_: torch.float16)
    return stand_in(monkeypatch)


def in_one_step(modules, x, features):
    return training.train_chain(modules, x.replace(features)).features


def modules_of(modules):
    return nn.ModuleList(modules).modules()


def relative(found, true):
    found, true = found.detach().double(), true.detach().double()
    return float((found - true).norm() / true.norm().clamp(min=1e-9))


@pytest.mark.parametrize("name", CHAINS)
def test_values_and_gradients(name, started):
    torch.manual_seed(0)
    modules = CHAINS[name]()
    for module in modules_of(modules):
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    true_modules = [copy.deepcopy(module).half().double() for module in modules]
    x = scene(next(modules[0].parameters()).shape[3])
    features = x.features.clone().requires_grad_()
    true_features = x.features.half().double().requires_grad_()
    true = x.replace(true_features)
    for module in true_modules:
        true = module(true)

    out = in_one_step(modules, x, features)
    assert relative(out, true.features.detach()) < 3e-3
    slopes = torch.randn(out.shape)
    (out.float() * slopes).sum().backward()
    (true.features * slopes).sum().backward()
    # ReLU passes gradients where rounded numbers decided so; the layers' flips add up.
    limit = 0.02 + 0.01 * sum(isinstance(m, nn.BatchNorm1d) for m in modules_of(modules))
    assert relative(features.grad, true_features.grad) < limit
    for found, other in zip(modules, true_modules, strict=True):
        for (what, a), b in zip(found.named_parameters(), other.parameters(), strict=True):
            assert relative(a.grad, b.grad) < limit, what
        for a, b in zip(found.buffers(), other.buffers(), strict=True):
            assert relative(a, b) < 2e-3
    layers = sum(hasattr(m, "kernel_size") for m in modules_of(modules))
    assert started.count("convolve") == 2 * layers


def test_gradients_add_up_over_batches(started):
    torch.manual_seed(0)
    modules = CHAINS["residual"]()
    x = scene(4)
    parameters = list(nn.ModuleList(modules).parameters())
    in_one_step(modules, x, x.features).float().square().sum().backward()
    once = [p.grad.clone() for p in parameters]
    in_one_step(modules, x, x.features).float().square().sum().backward()
    for found, first in zip(parameters, once, strict=True):
        assert relative(found.grad, 2 * first) < 1e-5


def test_backward_twice_is_an_error(started):
    modules = CHAINS["one layer"]()
    x = scene(16)
    out = in_one_step(modules, x, x.features).float().sum()
    out.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="goes backward once"):
        out.backward()


def test_weights_that_changed_in_between_are_an_error(started):
    modules = CHAINS["one layer"]()
    x = scene(16)
    out = in_one_step(modules, x, x.features).float().sum()
    with torch.no_grad():
        modules[0][0].weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


def test_fewer_than_two_voxels_are_left_to_the_layers(started):
    x = scene(16)
    for voxels in (0, 1):
        few = SparseTensor(x.features[:voxels], x.coordinates[:voxels], SHAPE, BATCH)
        assert training.train_chain(CHAINS["one layer"](), few) is None
    assert not started


def test_there_is_no_such_step_on_a_cpu():
    reason = chain.obstacle(CHAINS["plain"](), torch.float16, torch.device("cpu"))
    assert reason == "there is no GPU"


def frozen_weight(modules):
    modules[0][0].weight.requires_grad_(False)


def frozen_norm(modules):
    modules[0][1].eval()


def a_hook(modules):
    modules[0][2].register_forward_hook(lambda *_: None)


def no_norm(modules):
    del modules[0][1]


def a_bias(modules):
    modules[0][0].bias = nn.Parameter(torch.zeros(16))


def half_weights(modules):
    modules[0][0].half()


def another_norm(modules):
    synchronise_norms(modules[0])


def an_odd_width(modules):
    modules[0] = subm_block(5, 24)


def a_block_first(modules):
    modules[0] = ResidualBlock(16)


def another_module(modules):
    modules.append(SparseSequential(nn.Linear(64, 64)))


@pytest.mark.parametrize(("change", "said"), [
    (frozen_weight, "some of its weights are frozen"), (frozen_norm, "a norm is frozen"),
    (a_hook, "hooks"), (no_norm, "no norm after it"), (a_bias, "a bias"),
    (half_weights, "not in float32"), (another_norm, "SynchronisedSparseNorm"),
    (an_odd_width, "5 to 24 channels"), (a_block_first, "does not begin with a convolution"),
    (another_module, "Linear"), (None, None),
])  # fmt: skip
def test_what_stands_against_it(change, said, monkeypatch):
    stand_in(monkeypatch)
    modules = CHAINS["plain"]()
    if change is not None:
        change(modules)
    reason = chain.obstacle(modules, torch.bfloat16, GPU)
    assert reason is None if said is None else said in reason
    assert "float32" in chain.obstacle(modules, torch.float32, GPU)
