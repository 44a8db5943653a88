"""Updates of weights: precision, clipping, accumulation, what is decayed."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from detector.errors import InputError
from detector.models.backbones import SparseEncoder8x
from detector.models.targets import TrueBoxes
from detector.training import graphed
from detector.training.step import (
    TrainableDetector,
    UpdateWeights,
    autocast_dtype,
    fuse_backbone,
    make_optimizer,
    parameter_groups,
)
from detector.training.sync_norm import synchronise_norms
from tests.oracles.launches_on_cpu import stand_in

CPU = torch.device("cpu")


def test_auto_takes_bfloat16_only_where_the_processor_has_it(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "flags : avx2 avx512_bf16 fma")
    assert autocast_dtype("auto", CPU) is torch.bfloat16
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "flags : avx2 avx512f fma")
    assert autocast_dtype("auto", CPU) is None
    assert autocast_dtype("float16", CPU) is torch.float16


def update(model, **options):
    options = {"clip_norm": 1e9, "accumulate": 1, "precision": "float32", **options}
    return UpdateWeights(torch.optim.SGD(model.parameters(), lr=1.0), device=CPU, **options)


def test_gradients_are_clipped_to_the_norm_and_the_norm_is_kept():
    model = nn.Linear(2, 1, bias=False)
    before = model.weight.detach().clone()
    wrapper = update(model, clip_norm=1.0)
    wrapper.update_params((model.weight * torch.tensor([3.0, 4.0])).sum())
    torch.testing.assert_close(before - model.weight, torch.tensor([[0.6, 0.8]]))
    assert wrapper.grad_norm.item() == pytest.approx(5)


def test_accumulated_gradients_are_averaged():
    model = nn.Linear(1, 1, bias=False)
    before = model.weight.item()
    wrapper = update(model, accumulate=2)
    wrapper.begin_step(0, 10)
    assert not wrapper.should_sync()
    wrapper.update_params(model.weight.sum() * 2)
    assert model.weight.item() == before
    wrapper.begin_step(1, 10)
    wrapper.update_params(model.weight.sum() * 4)
    assert model.weight.item() == pytest.approx(before - 3)


def test_an_epoch_ends_with_an_update_of_the_mean_of_what_is_left():
    model = nn.Linear(1, 1, bias=False)
    wrapper = update(model, accumulate=3)
    weights = []
    for step in range(5):
        wrapper.begin_step(step, 5)
        wrapper.update_params(model.weight.sum() * 6)
        weights.append(model.weight.item())
    assert weights[0] == weights[1] and weights[2] == weights[3] == pytest.approx(weights[0] - 6)
    assert weights[4] == pytest.approx(weights[2] - 6)


def test_norms_and_biases_are_not_decayed():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    weights, others = parameter_groups(model)
    assert [p.ndim for p in weights["params"]] == [4]
    assert [p.ndim for p in others["params"]] == [1, 1, 1] and others["weight_decay"] == 0


def test_the_loss_s_scale_comes_back_and_a_run_without_one_keeps_its_own():
    model = nn.Linear(1, 1)
    scaled, plain = update(model), update(model)
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaled.update_params(model(torch.ones(1, 1)).sum() * 1e39)      # not finite: halves the scale
    state = scaled.state_dict()
    assert state["scaler"]["scale"] == 4 and plain.state_dict()["scaler"] == {}
    other = update(model)
    other.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    other.load_state_dict(plain.state_dict())
    assert other.scaler.get_scale() == 1024
    other.load_state_dict(state)
    assert other.state_dict()["scaler"] == state["scaler"]


def test_a_cpu_has_no_fused_backbone_and_says_nothing():
    detector = nn.Module()
    detector.backbone = SparseEncoder8x(4, (41, 64, 64))
    for wanted in (False, True):
        assert fuse_backbone(detector, wanted, torch.bfloat16, torch.device("cpu")) is None
        assert detector.backbone.fused is wanted


def test_a_run_on_a_gpu_says_how_its_sparse_backbone_is_trained(monkeypatch):
    stand_in(monkeypatch)
    device = torch.device("cuda", 63)  # no real one
    detector = nn.Module()
    detector.backbone = nn.Identity()
    assert fuse_backbone(detector, True, torch.float16, device) is None
    detector.backbone = SparseEncoder8x(4, (41, 64, 64))
    said = fuse_backbone(detector, True, torch.float16, device)
    assert said == "sparse backbone: fused, the layers are one step of autograd"
    assert "because fused_backbone is False" in fuse_backbone(
        detector, False, torch.float16, device
    )
    assert "because products are in float32" in fuse_backbone(detector, True, None, device)
    synchronise_norms(detector)
    assert "because a convolution has a SynchronisedSparseNorm" in fuse_backbone(
        detector, True, torch.float16, device
    )
    detector.backbone = SparseEncoder8x(4, (41, 64, 64), focal_stages=(1, 3))
    assert "between focal stages" in fuse_backbone(detector, True, torch.bfloat16, device)


def test_optimizers_are_fused_on_a_gpu_unless_the_config_says_how(monkeypatch):
    given = {}

    def factory(groups, lr=1.0, fused=None, foreach=None):
        given.update(fused=fused)

    for device, how, fused in (
        ("cuda", factory, True), ("cpu", factory, None),
        ("cuda", partial(factory, lr=2.0), True), ("cuda", partial(factory, fused=False), False),
        ("cuda", partial(factory, foreach=True), None),
    ):  # fmt: skip
        make_optimizer(how, nn.Linear(1, 1), torch.device(device))
        assert given["fused"] is fused
    rprop = make_optimizer(partial(torch.optim.Rprop, lr=1.0), nn.Linear(1, 1), CPU)
    assert len(rprop.param_groups) == 2


def test_a_checkpoint_does_not_say_how_updates_are_computed():
    model = nn.Linear(1, 1)
    options = {"clip_norm": 1e9, "accumulate": 1, "precision": "float32", "device": CPU}
    fused = UpdateWeights(torch.optim.AdamW(model.parameters(), lr=0.5, fused=True), **options)
    fused.update_params(model(torch.ones(1, 1)).sum())
    plain = UpdateWeights(torch.optim.AdamW(model.parameters(), lr=0.1), **options)
    plain.load_state_dict(fused.state_dict())
    (group,) = plain.optimizer.param_groups
    assert group["fused"] is None and group["lr"] == 0.5
    assert plain.optimizer.state[model.weight]["step"] == 1
    plain.update_params(model(torch.ones(1, 1)).sum())


def test_frozen_parts_keep_their_weights_and_their_statistics():
    detector = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    model = TrainableDetector(detector, ("0", "1")).train()
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    assert sum(len(g["params"]) for g in parameter_groups(model)) == 2
    wrapper = update(model)
    wrapper.update_params(detector(torch.rand(5, 3)).sum())
    after = detector.state_dict()
    changed = {k for k, v in after.items() if not torch.equal(v, before[k])}
    assert changed == {"2.weight", "2.bias"}
    assert detector[2].training and not model.eval().training


def test_an_unknown_part_to_freeze_is_named():
    with pytest.raises(InputError, match="frozen: .*`neck`; parts are 0, 1 and"):
        TrainableDetector(nn.Sequential(nn.Linear(1, 1), nn.ReLU()), ("neck",))


def test_where_graphs_cannot_be_captured_the_modules_run_and_a_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr(
        graphed, "_Graphs", Mock(side_effect=RuntimeError("out of memory\nand more"))
    )
    detector = SimpleNamespace(head=nn.Identity(), dense_loss=lambda *parts: {"box": len(parts)})
    loss = graphed.GraphedDenseLoss(detector, None)
    true = TrueBoxes.of([torch.zeros(2, 7)], [torch.zeros(2, dtype=torch.int64)])
    assert loss(torch.zeros(1), true) == loss(torch.zeros(1), true) == {"box": 3}
    said = capsys.readouterr().out
    assert said.count("capturing failed (out of memory), modules") == 1


@pytest.mark.parametrize(("boxes", "room"), [(0, 128), (1, 128), (128, 128), (129, 256)])
def test_room_for_boxes_does_not_depend_on_how_many_the_first_batch_has(boxes, room, monkeypatch):
    """Or sums would differ in their last bits after a run was stopped and resumed."""
    made = Mock()
    monkeypatch.setattr(graphed, "_Graphs", made)
    loss = graphed.GraphedDenseLoss(SimpleNamespace(head=nn.Identity()), None)
    nothing = torch.zeros(0, 7)
    labels = torch.zeros(boxes, dtype=torch.int64)
    loss(torch.zeros(1), TrueBoxes.of([torch.zeros(boxes, 7), nothing], [labels, labels[:0]]))
    assert made.call_args.args[-1] == room
