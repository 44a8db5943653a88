"""Training steps on a GPU: where they wait for it, and their dense part as CUDA graphs."""

import json
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch

from datasets.combined import PartlyLabelledDataset
from detector.config import build, build_model, load_config
from detector.models.losses import focal_importance_loss
from detector.models.targets import TrueBoxes
from detector.records import collate
from detector.training import graphed, train
from detector.training.checkpoint import load_checkpoint
from detector.training.step import TrainableDetector, UpdateWeights, make_optimizer
from tests.writers.toy import ToyDataset

pytestmark = pytest.mark.gpu

TOY = Path(__file__).parents[3] / "tests" / "writers" / "toy_config.py"


@contextmanager
def no_wait():
    """What makes the host wait for the GPU is an error."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_behind_the_backbone_a_step_waits_for_nothing(precision):
    """A loss that is scaled, too. Before it, sizes of sparse maps have to come from the GPU."""
    config, device = load_config(TOY), torch.device("cuda")
    model = TrainableDetector(build_model(config)).to(device).train()
    update = UpdateWeights(
        make_optimizer(build(config.optimizer), model, device), clip_norm=10.0, accumulate=1,
        precision=precision, device=device,
    )  # fmt: skip
    if update.scaler.is_enabled():
        update.scaler = torch.amp.GradScaler("cuda", init_scale=8.0)
    detector, frames = model.detector, collate([ToyDataset()[i] for i in (1, 0, 3)])
    before = detector.head.shared[0].weight.detach().clone()
    for turn in range(3):
        with update.optim_context(model):
            batch = frames.to(device)
            features = detector.backbone(detector.encoder(batch))
            # The first time, kernels are compiled and the scaler is made.
            with no_wait() if turn else nullcontext():
                true = TrueBoxes.of(batch.boxes, batch.labels)
                terms = detector.dense_loss(features.bev, true)
                (importance,) = features.importances
                terms["importance"] = focal_importance_loss(importance, batch.boxes, detector.grid)
        loss = sum(terms.values())
        with no_wait() if turn else nullcontext():
            torch.autograd.grad(loss, detector.head.shared[0].weight, retain_graph=True)
        update.backward(loss)
        with no_wait() if turn else nullcontext():
            update.step()
            update.zero_grad()
    assert not torch.equal(before, detector.head.shared[0].weight)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_replayed_dense_part_trains_as_its_modules_do(precision, monkeypatch):
    """Losses, gradients and statistics of norms, whatever the number of boxes; with room for four
    boxes at first, graphs are captured anew on the way."""
    monkeypatch.setattr(graphed, "BOXES_PER_FRAME", 2)
    config, device = load_config(TOY), torch.device("cuda")
    partly = PartlyLabelledDataset(ToyDataset(frames=8), ("Car",))
    batches = [
        collate([ToyDataset()[1], ToyDataset()[4]]), collate([ToyDataset()[0], ToyDataset()[4]]),
        collate([partly[3], ToyDataset()[2]]), collate([partly[3], partly[7]]),
    ]  # fmt: skip
    found = []
    for replayed in (False, True):
        torch.manual_seed(0)
        model = TrainableDetector(build_model(config)).to(device).train()
        update = UpdateWeights(
            make_optimizer(partial(torch.optim.SGD, lr=0.01), model, device), clip_norm=1e9,
            accumulate=1, precision=precision, device=device,
        )  # fmt: skip
        if update.scaler.is_enabled():
            update.scaler = torch.amp.GradScaler("cuda", init_scale=8.0)
        if replayed:
            model.replay_dense_loss(update.dtype)
        losses = [
            {k: v.item() for k, v in model.train_step(batch, optim_wrapper=update).items()}
            for batch in batches * 3
        ]
        found.append((losses, model.detector.state_dict()))
    (losses, weights), (replayed_losses, replayed_weights) = found
    close = {"rel": 1e-3 if precision == "float32" else 5e-2, "abs": 1e-4}
    for expected, got in zip(losses, replayed_losses, strict=True):
        assert got == pytest.approx(expected, **close)
    for name, value in weights.items():
        torch.testing.assert_close(
            replayed_weights[name], value, rtol=1e-2, atol=1e-4 if precision == "float32" else 5e-3
        )


def test_a_run_with_graphs_has_the_losses_of_one_without(tmp_path, capsys):
    """With processes that read data, whose batches are pinned while graphs are captured, an average
    of weights, and evaluations in between."""
    plain = ["precision='float16'", "workers=2", "epochs=2"]
    for name, more in (("without", ["cuda_graph=False"]), ("with", ["ema=0.5"])):
        assert train(load_config(TOY, [*plain, *more]), tmp_path / name).finished
    assert "capturing failed" not in capsys.readouterr().out
    without, with_graphs = losses_of(tmp_path / "without"), losses_of(tmp_path / "with")
    for expected, got in zip(without, with_graphs, strict=True):
        assert got == pytest.approx(expected, rel=5e-2, abs=1e-3)


def test_a_frozen_backbone_leaves_the_rest_to_train(tmp_path, capsys):
    """Its map has no gradient then; graphs are captured all the same."""
    config = load_config(TOY, ["precision='float16'", "frozen=('encoder','backbone')"])
    torch.manual_seed(config.seed)
    before = build_model(config).state_dict()
    assert train(config, tmp_path).finished
    assert "capturing failed" not in capsys.readouterr().out
    after = load_checkpoint(tmp_path / "latest.pth")["state_dict"]
    changed = {k.split(".")[0] for k, v in after.items() if not torch.equal(v.cpu(), before[k])}
    assert changed == {"bev", "head"}


def losses_of(work_dir):
    lines = (work_dir / "metrics.jsonl").read_text().splitlines()
    return [r["losses"] for r in map(json.loads, lines) if "losses" in r]
