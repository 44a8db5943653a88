"""Whole runs on toy frames: what they leave behind, how they stop, how they go on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from datasets.combined import ConcatDataset, PartlyLabelledDataset
from detector.config import load_config, with_options
from detector.errors import InputError
from detector.inference import detect, load_model
from detector.training import train
from detector.training.checkpoint import load_checkpoint
from detector.training.runner import TrainLoop
from tests.writers.toy import ToyDataset, ToyResult

REPOSITORY = Path(__file__).parents[3]
TOY = REPOSITORY / "tests" / "writers" / "toy_config.py"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that nothing disturbed, with an average of its weights."""
    work_dir = tmp_path_factory.mktemp("finished")
    return train(load_config(TOY, ["ema=0.9"]), work_dir)


def assert_same_weights(a, b):
    a, b = load_checkpoint(a), load_checkpoint(b)
    for part in ("state_dict", "ema_state_dict"):
        assert a[part].keys() == b[part].keys()
        for name, value in a[part].items():
            assert torch.equal(value, b[part][name]), name
    for left, right in zip(
        a["optimizer"]["optimizer"]["state"].values(),
        b["optimizer"]["optimizer"]["state"].values(), strict=True,
    ):  # fmt: skip
        assert torch.equal(left["exp_avg"], right["exp_avg"])


def test_a_run_leaves_checkpoints_metrics_and_its_config(finished):
    assert finished.finished and finished.best_score is not None
    names = {p.name for p in finished.work_dir.iterdir()}
    assert names == {
        "latest.pth", "best.pth", "epoch_1.pth", "epoch_2.pth", "epoch_3.pth", "metrics.jsonl",
        "config.txt", "tensorboard",
    }  # fmt: skip
    content = load_checkpoint(finished.work_dir / "latest.pth")
    assert content["classes"] == ("Car", "Cyclist") and content["iteration"] == 9
    assert "CenterHead" in content["config"]
    lines = (finished.work_dir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    losses = [r["losses"] for r in records if "losses" in r]
    assert len(losses) == 3 and set(losses[0]) == {
        "total", "heatmap", "box", "diou", "quality", "importance",
    }  # fmt: skip
    assert [r["epoch"] for r in records if "evaluation" in r] == [1, 2, 3]
    assert losses[-1]["total"] < losses[0]["total"]


SCALARS = {
    "lr", "grad_norm", "frames_per_s", "step_ms", "data_ms", "data_share", "points_per_frame",
    "voxels_per_frame",
}  # fmt: skip


def test_json_lines_and_tensorboard_hold_the_same_figures(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lines = (finished.work_dir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    steps = [record for record in records if "losses" in record]
    board = EventAccumulator(str(finished.work_dir / "tensorboard"))
    board.Reload()
    for record in steps:
        assert SCALARS <= record.keys()
        assert record["points_per_frame"] > record["voxels_per_frame"] > 0
        assert 0 <= record["data_ms"] <= record["step_ms"]
    expected = {f"training/{name}": [r[name] for r in steps] for name in SCALARS}
    expected |= {f"loss/{k}": [r["losses"][k] for r in steps] for k in steps[0]["losses"]}
    expected["evaluation/score"] = [r["evaluation"]["score"] for r in records if "evaluation" in r]
    for tag, values in expected.items():
        assert [event.value for event in board.Scalars(tag)] == pytest.approx(values), tag


def test_a_gradient_that_float16_cannot_hold_is_null_in_json(tmp_path, monkeypatch):
    infinite = lambda *_: torch.tensor(float("inf"))  # noqa: E731
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", infinite)
    train(load_config(TOY, ["epochs=1"]), tmp_path)
    record = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert record["grad_norm"] is None


def test_the_checkpoint_detects(finished):
    config = load_config(TOY)
    model = load_model(config, finished.work_dir / "best.pth")
    found = detect(model, [ToyDataset(4)[i] for i in range(3)], batch_size=2)
    assert [d.frame_id for d in found] == ["000000", "000001", "000002"]
    assert all(d.boxes.shape[1] == 7 for d in found)


def test_a_folder_with_a_run_is_not_overwritten(finished):
    with pytest.raises(InputError, match="holds a run already.*--resume"):
        train(load_config(TOY), finished.work_dir)


def test_a_model_that_does_not_fit_the_checkpoint_is_refused(finished):
    config = load_config(TOY, ["model.head.shared_channels=4"])
    with pytest.raises(InputError, match=r"another model.*head\.shared"):
        load_model(config, finished.work_dir / "best.pth")


def stop_after(monkeypatch, steps):
    """Asks a run to stop, as Ctrl-C does, once so many steps are done."""
    must_stop = TrainLoop._must_stop

    def ask(loop):
        if loop.iter == steps:
            os.kill(os.getpid(), signal.SIGINT)
            while not loop.stop_requested:
                time.sleep(0.01)
        return must_stop(loop)

    monkeypatch.setattr(TrainLoop, "_must_stop", ask)


@pytest.mark.parametrize("steps", [2, 6])
def test_ctrl_c_saves_and_resuming_ends_with_the_same_bits(
    finished, tmp_path, monkeypatch, capsys, steps
):
    assert threading.current_thread() is threading.main_thread()
    config = load_config(TOY, ["ema=0.9"])
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        stopped = train(config, tmp_path)
    assert not stopped.finished and stopped.interrupted
    assert "--resume" in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "latest.pth")["iteration"] == steps
    assert train(config, tmp_path, resume=True).finished
    assert_same_weights(finished.work_dir / "latest.pth", tmp_path / "latest.pth")


@pytest.mark.slow
def test_ctrl_c_at_the_terminal_saves_with_workers_too(tmp_path):
    code = (
        "import sys; from detector.config import load_config; from detector.training import train;"
        f"train(load_config({str(TOY)!r}, ['workers=2', 'epochs=500', 'keep_checkpoints=1']),"
        "sys.argv[1])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, start_new_session=True,
    )  # fmt: skip
    while process.poll() is None and not (tmp_path / "latest.pth").exists():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.count("stopping after this step") == 1 and "--resume" in out
    assert load_checkpoint(tmp_path / "latest.pth")["iteration"] >= 3


def test_a_torn_checkpoint_gives_way_to_the_one_before(finished, tmp_path, capsys):
    config = load_config(TOY, ["ema=0.9"])
    train(config, tmp_path)
    (tmp_path / "epoch_3.pth").unlink()
    latest = (tmp_path / "latest.pth").read_bytes()
    (tmp_path / "latest.pth").write_bytes(latest[: len(latest) // 2])
    assert train(config, tmp_path, resume=True).finished
    out = capsys.readouterr().out
    assert "cut short" in out and f"going on from {tmp_path / 'epoch_2.pth'}" in out
    assert_same_weights(finished.work_dir / "latest.pth", tmp_path / "latest.pth")


def test_resuming_with_other_data_is_refused(finished):
    with pytest.raises(InputError, match="3 steps an epoch, this one has 6"):
        train(load_config(TOY, ["ema=0.9", "batch_size=1"]), finished.work_dir, resume=True)


def test_a_loss_that_is_not_finite_stops_and_names_the_frames(tmp_path):
    config = load_config(TOY, ["train_dataset.nan_frame=3", "batch_size=1"])
    with pytest.raises(InputError, match=r"not finite.*frames 000003 .*--resume"):
        train(config, tmp_path)
    report = json.loads((tmp_path / "not_finite.json").read_text())
    assert report["frames"] == ["000003"] and report["epoch"] == 1
    content = tmp_path / "latest.pth"
    assert not content.exists() or all(
        v.isfinite().all() for v in load_checkpoint(content)["state_dict"].values()
    )


def test_a_broken_frame_stops_with_its_name(tmp_path):
    with pytest.raises(InputError, match=r"^000002\.bin: is broken"):
        train(load_config(TOY, ["train_dataset.bad_frame=2"]), tmp_path)


def test_an_unknown_best_metric_is_named(tmp_path):
    with pytest.raises(InputError, match="'AP', but the evaluation gives score"):
        train(load_config(TOY, ["best_metric='AP'", "epochs=1"]), tmp_path)


def test_best_is_the_epoch_with_the_best_evaluation(tmp_path, monkeypatch):
    scores = iter([1.0, 3.0, 2.0])
    monkeypatch.setattr(ToyDataset, "evaluate", lambda *_: ToyResult(next(scores)))
    assert train(load_config(TOY), tmp_path).best_score == 3
    best, second, latest = (
        load_checkpoint(tmp_path / f"{name}.pth") for name in ("best", "epoch_2", "latest")
    )
    assert best["epoch"] == 2 and latest["epoch"] == 3 and latest["best_score"] == 3
    for name, value in second["state_dict"].items():
        assert torch.equal(value, best["state_dict"][name])


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written.*another folder"):
        train(load_config(TOY), tmp_path / "file" / "run")


def test_bfloat16_and_accumulation_train(tmp_path):
    config = load_config(TOY, ["precision='bfloat16'", "accumulate=2", "epochs=1"])
    assert train(config, tmp_path).finished


def test_fine_tuning_on_partly_labelled_frames_beside_others_leaves_frozen_parts(
    finished, tmp_path
):
    config = load_config(TOY, ["frozen=('encoder','backbone','bev.blocks')", "epochs=1"])
    node = config.train_dataset
    partly = dict(type=PartlyLabelledDataset, dataset=node, labelled_classes=("Cyclist",))
    config = with_options(
        config, train_dataset=dict(type=ConcatDataset, datasets=[node, partly], repeats=(2, 1))
    )
    weights = finished.work_dir / "latest.pth"
    assert train(config, tmp_path / "run", weights=weights).finished
    before, after = (
        load_checkpoint(path)["state_dict"] for path in (weights, tmp_path / "run/latest.pth")
    )
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed and not any(n.startswith(("backbone", "bev.blocks")) for n in changed)
    assert any(n.startswith("bev.upsamples") for n in changed)
    assert any("running_mean" in n for n in changed)
    content = load_checkpoint(tmp_path / "run/latest.pth")
    assert content["batches_per_epoch"] == (2 * 6 + 6) // 2
