"""Sparse backbones trained as one step of autograd, against the same ones layer by layer."""

import copy

import pytest
import torch
from torch import distributed, nn

from detector.models.backbones import ResidualSparseEncoder8x, SparseEncoder8x
from detector.ops.occupancy import lent
from detector.sparse import SparseBatchNorm, SparseTensor
from detector.sparse.planned import captured, training
from detector.training.step import fuse_backbone
from tests.oracles.sparse_scenes import random_coordinates

pytestmark = pytest.mark.gpu
SHAPE = (41, 96, 88)
KINDS = [SparseEncoder8x, ResidualSparseEncoder8x]


@pytest.fixture
def chains(monkeypatch):
    """Of each chain that was one step: whether it was captured."""
    counted = []
    train = training.train_chain

    def counting(modules, x, **options):
        found = train(modules, x, **options)
        if found is not None:
            counted.append(training._CHAINS[modules[0]] is not None)
        return found

    monkeypatch.setattr(training, "train_chain", counting)
    return counted


@pytest.fixture
def captures(monkeypatch):
    """The capacities of each captured chain that was made."""
    made = []
    whole = captured.CapturedChain.__init__

    def init(self, *arguments, **options):
        whole(self, *arguments, **options)
        made.append(self.capacities)

    monkeypatch.setattr(captured.CapturedChain, "__init__", init)
    return made


def pair(kind=SparseEncoder8x, **options):
    """A fused encoder and the same one layer by layer."""
    torch.manual_seed(0)
    fused = kind(4, SHAPE, **options).cuda().train()
    apart = copy.deepcopy(fused)
    apart.fused = False
    return fused, apart


def scene(seed, density=0.02, batch_size=2, empty_frames=()):
    coordinates = random_coordinates(
        SHAPE, batch_size, density, seed, empty_frames, corners=False
    ).cuda()
    generator = torch.Generator("cuda").manual_seed(seed)
    features = torch.randn(len(coordinates), 4, device="cuda", generator=generator)
    return features, coordinates, batch_size


def loss_of(encoder, given, dtype=torch.float16):
    features, coordinates, batch_size = given
    with torch.autocast("cuda", dtype):
        out = encoder(SparseTensor(features, coordinates, SHAPE, batch_size))
    generator = torch.Generator("cuda").manual_seed(1)
    slopes = torch.randn(out.bev.shape, device="cuda", generator=generator)
    loss = (out.bev.float() * slopes).sum() / 100
    return loss + sum(i.logits.float().square().mean() for i in out.importances)


def near(found, true, limit, what=""):
    found, true = found.double(), true.double()
    assert (found - true).norm() <= limit * true.norm(), what


def compare(fused, apart, limit):
    """Gradients and running statistics; limit 0: bit for bit."""
    for (name, a), b in zip(fused.named_parameters(), apart.parameters(), strict=True):
        near(a.grad, b.grad, limit, name)
    for (name, a), b in zip(fused.named_buffers(), apart.buffers(), strict=True):
        near(a, b, limit, name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_as_layer_by_layer_over_batches_of_different_sizes(kind, dtype, chains, captures):
    fused, apart = pair(kind)
    optimizers = [torch.optim.SGD(e.parameters(), 1e-3) for e in (fused, apart)]
    # A residual block's gradients are added before rounding, not after. Weights' gradients are
    # sums over slices of rows, whose number the room decides.
    limit = 1e-5 if kind is SparseEncoder8x else 5e-3 if dtype == torch.float16 else 4e-2
    for seed, density in enumerate([0.02, 0.002, 0.05, 0.01, 0.048]):
        given = scene(seed, density)
        found, true = loss_of(fused, given, dtype), loss_of(apart, given, dtype)
        assert torch.equal(found, true)
        found.backward()
        true.backward()
        compare(fused, apart, limit)
        # From the same weights again, so that roundings don't add up over batches.
        apart.load_state_dict(fused.state_dict())
        for a, b in zip(fused.parameters(), apart.parameters(), strict=True):
            b.grad.copy_(a.grad)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert chains == [False, True, True, True, True]
    assert len(captures) == 2  # for the second batch, and anew for the third, which is larger


def test_gradients_of_features():
    fused, apart = pair()
    for seed in range(3):
        features, coordinates, batch_size = scene(seed)
        gradients = []
        for encoder in (fused, apart):
            given = features.clone().requires_grad_()
            loss_of(encoder, (given, coordinates, batch_size)).backward()
            gradients.append(given.grad)
        assert gradients[0].abs().sum() > 0
        assert torch.equal(*gradients)


def test_two_batches_under_way(captures):
    fused, apart = pair()
    for encoder in (fused, apart):
        loss_of(encoder, scene(0)).backward()
        encoder.zero_grad()
        losses = [loss_of(encoder, scene(seed)) for seed in (1, 2)]
        for loss in losses:
            loss.backward()
    compare(fused, apart, 1e-5)
    assert len(captures) == 1


def test_a_batch_that_never_goes_backward_is_forgotten(captures):
    fused, apart = pair()
    for encoder in (fused, apart):
        for seed in range(4):
            loss_of(encoder, scene(seed))
        loss_of(encoder, scene(4)).backward()
    compare(fused, apart, 1e-5)
    assert not training._CHAINS[fused.stem].busy


def test_weights_in_other_memory(captures):
    fused, apart = pair()
    for encoder in (fused, apart):
        for seed in range(3):
            encoder.zero_grad()
            encoder.out[0].weight.data = encoder.out[0].weight.data.clone() * 1.5
            loss_of(encoder, scene(seed)).backward()
    compare(fused, apart, 1e-5)
    assert len(captures) == 2


def test_the_same_every_time():
    found = []
    for _ in range(2):
        fused, _ = pair(ResidualSparseEncoder8x)
        for seed in range(3):
            loss_of(fused, scene(seed)).backward()
        found.append([p.grad for p in fused.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_focal_stages_stay_between_fused_chains(kind, chains):
    fused, apart = pair(kind, focal_stages=(1, 2, 3))
    for seed in range(3):
        found, true = loss_of(fused, scene(seed)), loss_of(apart, scene(seed))
        assert torch.equal(found, true)
        fused.zero_grad()
        apart.zero_grad()
        found.backward()
        true.backward()
    assert len(chains) == 12
    compare(fused, apart, 1e-2)


@pytest.mark.parametrize(("batch_size", "empty"), [(3, (1,)), (2, (0,)), (2, (1,))])
def test_a_frame_without_voxels(batch_size, empty, chains):
    fused, apart = pair()
    given = scene(0, batch_size=batch_size, empty_frames=empty)
    for _ in range(2):
        loss_of(fused, given).backward()
        loss_of(apart, given).backward()
    assert chains == [False, True]
    compare(fused, apart, 1e-5)


@pytest.mark.parametrize("voxels", [0, 1])
def test_next_to_no_voxels_go_layer_by_layer(voxels, chains):
    fused, apart = pair()
    features, coordinates, batch_size = scene(0)
    for encoder in (fused, apart):
        given = features[:voxels], coordinates[:voxels], batch_size
        loss = loss_of(encoder, given)
        if voxels:
            loss.backward()
    assert not chains
    if voxels:
        compare(fused, apart, 0)


def test_accumulation(chains):
    fused, apart = pair()
    for seed in range(3):
        for encoder in (fused, apart):
            (loss_of(encoder, scene(seed, 0.01 + 0.01 * seed)) / 3).backward()
    compare(fused, apart, 1e-5)


def test_a_step_whose_gradients_overflow_is_skipped():
    fused, _ = pair()
    loss_of(fused, scene(0))  # the next one is captured
    optimizer = torch.optim.SGD(fused.parameters(), 1e-3)
    before = copy.deepcopy(fused.state_dict())
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**40)
    scaler.scale(loss_of(fused, scene(0))).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**39
    for name, value in fused.named_parameters():
        assert torch.equal(value, before[name]), name
    scaler = torch.amp.GradScaler("cuda", init_scale=4.0)
    optimizer.zero_grad()
    scaler.scale(loss_of(fused, scene(0))).backward()
    scaler.step(optimizer)
    assert all(p.isfinite().all() for p in fused.parameters())
    assert not torch.equal(fused.stem[0].weight, before["stem.0.weight"])


def test_distributed_data_parallel(tmp_path, chains):
    fused, apart = pair()
    distributed.init_process_group(
        "nccl", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1
    )
    try:
        wrapped = nn.parallel.DistributedDataParallel(fused, device_ids=[0])
        for seed in range(3):
            loss_of(wrapped, scene(seed)).backward()
            loss_of(apart, scene(seed)).backward()
        compare(fused, apart, 1e-5)
    finally:
        distributed.destroy_process_group()
    assert len(chains) == 3


def test_backward_twice_is_an_error():
    fused, _ = pair()
    loss = loss_of(fused, scene(0))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="goes backward once"):
        loss.backward()


def test_without_gradients_the_running_statistics_move_along(chains):
    fused, apart = pair()
    with torch.no_grad():
        assert torch.equal(loss_of(fused, scene(0)), loss_of(apart, scene(0)))
    assert chains
    for a, b in zip(fused.buffers(), apart.buffers(), strict=True):
        assert torch.equal(a, b)


def test_the_bitmap_is_given_back_and_comes_again():
    fused, _ = pair()
    features, coordinates, batch_size = scene(0)
    x = SparseTensor(features, coordinates, SHAPE, batch_size)
    with torch.autocast("cuda", torch.float16):
        fused(x)
        fused(x)
    assert x.occupancy._index._bitmap is None
    rows = torch.arange(len(coordinates), device="cuda", dtype=torch.int32)
    assert torch.equal(x.occupancy.rows(coordinates), rows)


def test_bitmaps_lie_where_features_will(monkeypatch):
    monkeypatch.setattr(lent, "LEAST", 1000)
    fused, apart = pair()
    for seed in range(2):
        loss_of(fused, scene(seed)).backward()
    held = training._CHAINS[fused.stem].chain.held
    features, coordinates, batch_size = scene(3)
    given = [
        SparseTensor(features, coordinates, SHAPE, batch_size),
        SparseTensor(features, coordinates, SHAPE, batch_size),
    ]
    first, end = held.data_ptr(), held.data_ptr() + 2 * held.numel()
    inside = [first <= x.occupancy.bitmap.words.data_ptr() < end for x in given]
    assert inside == [True, False]
    fused.zero_grad()
    with torch.autocast("cuda", torch.float16):
        bev = fused(given[1]).bev
        # Its index is made again, while features are where it was.
        rows = torch.arange(len(coordinates), device="cuda", dtype=torch.int32)
        assert torch.equal(given[0].occupancy.rows(coordinates), rows)
        true = apart(given[0]).bev
    assert torch.equal(bev, true)
    bev.float().square().sum().backward()
    true.float().square().sum().backward()
    for (name, a), b in zip(fused.named_parameters(), apart.parameters(), strict=True):
        near(a.grad, b.grad, 1e-5, name)


class Other(SparseBatchNorm):
    """As a synchronised norm, another class."""


def hook(encoder):
    encoder.stages[0][0][2].register_forward_hook(lambda *_: None)


def freeze(encoder):
    encoder.stem[0].weight.requires_grad_(False)


def still(encoder):
    encoder.stem[1].eval()


def replace(encoder):
    encoder.stem[1].__class__ = Other


@pytest.mark.parametrize(("change", "said"), [
    (hook, "has hooks"), (freeze, "frozen"), (still, "frozen"), (replace, "a Other after it"),
])  # fmt: skip
def test_what_is_trained_layer_by_layer(change, said, chains):
    fused, apart = pair()
    for encoder in (fused, apart):
        change(encoder)
    holder = nn.Module()
    holder.backbone = fused
    assert said in fuse_backbone(holder, True, torch.float16, torch.device("cuda", 0))
    found, true = loss_of(fused, scene(0)), loss_of(apart, scene(0))
    assert torch.equal(found, true)
    assert not chains


def test_what_the_start_of_a_run_says():
    holder, device = nn.Module(), torch.device("cuda", 0)
    holder.backbone = pair(focal_stages=(1,))[0]
    assert "between focal stages" in fuse_backbone(holder, True, torch.bfloat16, device)
    assert "float32" in fuse_backbone(holder, True, None, device)
    assert "fused_backbone is False" in fuse_backbone(holder, False, torch.bfloat16, device)
    assert holder.backbone.fused is False
