"""How a chain is trained as one step - order, buffers, gradients - with kernels in NumPy, against
the modules in float64."""

import copy
import gc
import itertools

import pytest
import torch
from torch import nn

from detector.models.backbones import ResidualBlock, strided_block, subm_block
from detector.ops.occupancy import Occupancy
from detector.sparse import SparseSequential, SparseTensor
from detector.sparse.planned import captured, chain, training
from detector.sparse.planned.chain_pass import ChainPass
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


def scene(channels, density=0.08, seed=0):
    coordinates = random_coordinates(SHAPE, BATCH, density, seed)
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


@pytest.fixture
def graphs(started, monkeypatch):
    """Chains as captured, whose graphs do their work anew each time, on stale numbers wherever a
    batch has none of its own; the capacities of each that was made."""

    def fill(self, levels):
        finer, coarser = levels[self.finer], levels[self.coarser]
        size = self.kernel_map.kernel_size
        step = size, self.stride, self.padding, self.dilation
        if self.finer == self.coarser:
            table = finer.neighbours(size, self.dilation).table
        else:
            table = finer.map_by(coarser, step).table
        self.kernel_map.table[:, len(coarser) :] = 10**9
        self.kernel_map.table[:, : len(coarser)] = table

    made = []
    whole = captured.CapturedChain.__init__

    def init(self, *arguments, **options):
        whole(self, *arguments, **options)
        made.append(self.capacities)
        for memory in (self.chain.held, self.chain.out, self._gradient, self.chain._made):
            memory.fill_(torch.nan)

    monkeypatch.setattr(captured.CapturedChain, "__init__", init)
    monkeypatch.setattr(captured._Map, "fill", fill)
    monkeypatch.setattr(captured, "capture", lambda work, device: work)
    monkeypatch.setattr(Occupancy, "has_bitmap", True)
    return made


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


def both_ways(name, densities, graphs):
    """Results and gradients of batches, by graphs and launched one by one."""
    torch.manual_seed(0)
    modules = CHAINS[name]()
    apart = copy.deepcopy(modules)
    channels = next(modules[0].parameters()).shape[3]
    in_one_step(modules, scene(channels), scene(channels).features)  # the first is launched
    in_one_step(apart, scene(channels), scene(channels).features)
    for seed, density in enumerate(densities):
        x = scene(channels, density, seed)
        found = []
        for chain_ in (modules, apart):
            if chain_ is apart:
                training._CHAINS.pop(apart[0])
            features = x.features.clone().requires_grad_(name == "up to a focal stage")
            nn.ModuleList(chain_).zero_grad()
            out = in_one_step(chain_, x, features)
            slopes = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed))
            (out.float() * slopes).sum().backward()
            gradients = [p.grad.clone() for p in nn.ModuleList(chain_).parameters()]
            buffers = [b.clone() for b in nn.ModuleList(chain_).buffers()]
            found.append([out, features.grad, *gradients, *buffers])
        yield found


@pytest.mark.parametrize("name", CHAINS)
def test_what_is_made_again_is_what_was_kept(name, graphs, monkeypatch):
    """Bit for bit, by graphs and launched one by one."""
    again = list(both_ways(name, [0.08, 0.03], graphs))
    monkeypatch.setattr(ChainPass, "_keeps", lambda *_: True)
    kept = list(both_ways(name, [0.08, 0.03], graphs))
    for found, true in zip(again, kept, strict=True):
        for one, other in zip(itertools.chain(*found), itertools.chain(*true), strict=True):
            assert (one is None and other is None) or torch.equal(one, other)


@pytest.mark.parametrize("name", CHAINS)
def test_graphs_with_room_give_the_same(name, graphs):
    for found, true in both_ways(name, [0.08, 0.02, 0.05, 0.079], graphs):
        for a, b in zip(found, true, strict=True):
            assert (a is None and b is None) or relative(a, b) < 1e-6
    assert len(graphs) == 1


def test_a_batch_with_more_voxels_is_captured_anew(graphs):
    for found, true in both_ways("plain", [0.04, 0.08, 0.05, 0.3], graphs):
        for a, b in zip(found, true, strict=True):
            assert (a is None and b is None) or relative(a, b) < 1e-6
    assert len(graphs) == 3
    assert all(all(map(int.__le__, a, b)) for a, b in itertools.pairwise(graphs))


def test_two_batches_under_way_do_not_share_memory(graphs):
    modules = CHAINS["plain"]()
    x, y = scene(5, 0.05, 1), scene(5, 0.05, 2)
    alone = []
    for _ in range(2):
        for one in (x, y):
            nn.ModuleList(modules).zero_grad()
            in_one_step(modules, one, one.features).float().square().sum().backward()
            alone.append([p.grad.clone() for p in nn.ModuleList(modules).parameters()])
    nn.ModuleList(modules).zero_grad()
    first = in_one_step(modules, x, x.features).float().square().sum()
    second = in_one_step(modules, y, y.features).float().square().sum()
    first.backward()
    second.backward()
    for p, *parts in zip(nn.ModuleList(modules).parameters(), *alone[2:], strict=True):
        assert relative(p.grad, sum(parts)) < 1e-5
    assert len(graphs) == 1


def test_another_memory_of_weights_is_captured_anew(graphs):
    modules = CHAINS["one layer"]()
    x = scene(16)
    for _ in range(3):
        in_one_step(modules, x, x.features).float().sum().backward()
    assert len(graphs) == 1
    modules[0][0].weight.data = modules[0][0].weight.data.clone()
    in_one_step(modules, x, x.features).float().sum().backward()
    assert len(graphs) == 2


@pytest.mark.parametrize("change", [
    lambda c: c[0][2].register_forward_hook(lambda *_: None), lambda c: c[0][1].eval(),
    lambda c: c[0][0].weight.requires_grad_(False), lambda c: synchronise_norms(c[0]),
    lambda c: c.__setitem__(1, SparseSequential(nn.Identity())),
])  # fmt: skip
def test_what_changes_between_batches_is_seen(change, graphs):
    modules = CHAINS["plain"]()
    x = scene(5)
    for _ in range(3):
        assert training.train_chain(modules, x) is not None
    change(modules)
    assert training.train_chain(modules, x) is None


def test_a_chain_that_is_gone_leaves_nothing(graphs):
    modules = CHAINS["plain"]()
    for _ in range(3):
        in_one_step(modules, scene(5), scene(5).features)
    first = modules[0]
    assert first in training._CHAINS and first in training._LAYERS
    chains, layers = len(training._CHAINS), len(training._LAYERS)
    del modules, first
    gc.collect()
    assert len(training._CHAINS) < chains and len(training._LAYERS) < layers


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
