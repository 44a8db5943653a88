"""The tools that train, evaluate and detect: what they write, and a sentence on what is wrong."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from detector.training.checkpoint import load_checkpoint, save_checkpoint
from tests.writers.toy import ToyDataset

REPOSITORY = Path(__file__).parents[2]
TOY = REPOSITORY / "tests" / "writers" / "toy_config.py"

CALIBRATION = """P2: 700 0 600 0 0 700 180 0 0 0 1 0
R0_rect: 1 0 0 0 1 0 0 0 1
Tr_velo_to_cam: 0 -1 0 0 0 0 -1 0 1 0 0 0
"""


@pytest.fixture
def tool(monkeypatch, capsys):
    """Runs a tool as the command line would; gives (exit status, stdout, stderr)."""

    def call(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(REPOSITORY / "tools" / f"{name}.py"), run_name="__main__")
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return call


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of a short run on toy frames."""
    from detector.config import load_config
    from detector.training import train

    work_dir = tmp_path_factory.mktemp("toy")
    train(load_config(TOY, ["epochs=1"]), work_dir)
    return work_dir / "latest.pth"


@pytest.fixture
def scan(tmp_path):
    """A toy frame in KITTI's layout, with calibration."""
    for kind in ("velodyne", "calib"):
        (tmp_path / "training" / kind).mkdir(parents=True)
    path = tmp_path / "training" / "velodyne" / "000007.bin"
    ToyDataset()[3].points.tofile(path)
    (tmp_path / "training" / "calib" / "000007.txt").write_text(CALIBRATION)
    return path


def refused(result, *words):
    """Exit status 2, one sentence on stderr that holds the words, no traceback."""
    status, _, err = result
    assert status == 2, err
    assert err.startswith("error: ") and err.count("\n") == 1
    for word in words:
        assert str(word) in err


def test_train_writes_a_run_and_goes_on(tool, tmp_path):
    run = tmp_path / "run"
    status, out, _ = tool("train", TOY, "--work-dir", run, "--cfg-options", "epochs=1")
    assert status == 0 and (run / "best.pth").exists() and "best.pth" in out
    refused(tool("train", TOY, "--work-dir", run), "--resume")
    status, out, _ = tool("train", TOY, "--work-dir", run, "--resume")
    assert status == 0 and "going on from" in out
    assert load_checkpoint(run / "latest.pth")["epoch"] == 3


def test_evaluate_prints_and_writes_the_figures(tool, checkpoint, tmp_path):
    figures = tmp_path / "new" / "figures.json"
    status, out, _ = tool("evaluate", TOY, checkpoint, "--json", figures)
    assert status == 0 and "score" in out
    assert set(json.loads(figures.read_text())) == {"score"}


def test_detect_writes_json_kitti_results_and_a_picture(tool, checkpoint, scan, tmp_path):
    out_dir, picture = tmp_path / "found", tmp_path / "picture.png"
    status, out, _ = tool(
        "detect", TOY, checkpoint, scan.parent, "--out", out_dir, "--picture", picture
    )
    assert status == 0 and "000007" in out
    found = json.loads((out_dir / "000007.json").read_text())
    assert found["frame_id"] == "000007" and len(found["boxes"]) == len(found["scores"]) > 0
    assert set(found["classes"]) <= {"Car", "Cyclist"}
    lines = (out_dir / "000007.txt").read_text().splitlines()
    assert lines and all(len(line.split()) == 16 for line in lines)
    assert picture.stat().st_size > 1000


def test_a_scan_without_calibration_gets_no_kitti_results(tool, checkpoint, tmp_path):
    scan = tmp_path / "a.bin"
    ToyDataset()[3].points.tofile(scan)
    assert tool("detect", TOY, checkpoint, scan, "--out", tmp_path / "out")[0] == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.json"]


@pytest.mark.parametrize("points", [0, 5])
def test_a_scan_with_nothing_in_range_is_named_and_does_not_stop_the_others(
    tool, checkpoint, tmp_path, points
):
    scan, good = tmp_path / "far.bin", tmp_path / "good.bin"
    np.full((points, 4), 500, np.float32).tofile(scan)
    ToyDataset()[3].points.tofile(good)
    result = tool("detect", TOY, checkpoint, scan, good, "--out", tmp_path / "out")
    refused(result, scan, f"none of its {points} points lies in", "1 of 2 scans", "in metres")
    assert json.loads((tmp_path / "out" / "far.json").read_text())["boxes"] == []
    assert json.loads((tmp_path / "out" / "good.json").read_text())["boxes"]


def test_what_is_wrong_with_a_scan_is_said_in_one_sentence(tool, checkpoint, tmp_path):
    scan, out = tmp_path / "a.bin", tmp_path / "out"
    refused(tool("detect", TOY, checkpoint, scan, "--out", out), scan, "no such scan")
    refused(tool("detect", TOY, checkpoint, tmp_path, "--out", out), "no .bin file")
    scan.write_bytes(b"x" * 17)
    refused(tool("detect", TOY, checkpoint, scan, "--out", out), scan, "17 bytes")
    points = ToyDataset()[3].points.copy()
    points[2, 1] = np.nan
    points.tofile(scan)
    refused(tool("detect", TOY, checkpoint, scan, "--out", out), scan, "NaN")
    assert tool("detect", TOY, checkpoint, scan, "--out", out, "--drop-not-finite")[0] == 0
    (tmp_path / "b").mkdir()
    points.tofile(tmp_path / "b" / "a.bin")
    refused(tool("detect", TOY, checkpoint, scan, tmp_path / "b", "--out", out), "same name")


def test_what_is_wrong_with_a_checkpoint_is_said_in_one_sentence(tool, checkpoint, tmp_path):
    none, torn, other = (tmp_path / f"{n}.pth" for n in ("none", "torn", "other"))
    refused(tool("evaluate", TOY, none), none, "no such checkpoint")
    torn.write_bytes(checkpoint.read_bytes()[:-2000])
    refused(tool("evaluate", TOY, torn), torn, "corrupt or was cut short")
    refused(
        tool("evaluate", TOY, checkpoint, "--cfg-options", "model.head.hidden_channels=4"),
        checkpoint, "another model", "head.tasks.0.hidden",
    )  # fmt: skip
    content = load_checkpoint(checkpoint)
    save_checkpoint(other, {**content, "classes": ("Bus", "Tram")})
    refused(tool("evaluate", TOY, other), other, "Bus, Tram", "Car, Cyclist")
    torch.save({"model_state": {}}, other)
    refused(tool("evaluate", TOY, other), other, "another program")


def test_what_is_wrong_with_options_and_folders_is_said_in_one_sentence(
    tool, checkpoint, scan, tmp_path
):
    refused(tool("train", tmp_path / "none.py"), "no such config")
    refused(tool("train", TOY, "--cfg-options", "epoch=3"), "'epoch'", "epochs")
    file = tmp_path / "file"
    file.write_text("")
    refused(tool("train", TOY, "--work-dir", file / "run"), file, "cannot be written")
    refused(tool("detect", TOY, checkpoint, scan, "--out", file / "out"), "cannot be written")
    refused(tool("evaluate", TOY, checkpoint, "--json", file / "a.json"), "cannot be written")


def test_a_broken_frame_stops_training_with_its_name(tool, tmp_path):
    result = tool(
        "train", TOY, "--work-dir", tmp_path / "run", "--cfg-options", "train_dataset.bad_frame=1"
    )
    refused(result, "000001.bin", "copy it again")


@pytest.fixture
def published(tool, checkpoint, tmp_path):
    figures = tmp_path / "figures.json"
    figures.write_text('{"score": 1.5}')
    status, out, err = tool(
        "publish", TOY, checkpoint, tmp_path / "mine.pth", "--about", "commit=1a2b3c",
        "--figures", figures,
    )  # fmt: skip
    assert status == 0 and "MB" in out, err
    return tmp_path / "mine.pth"


def test_a_published_detector_needs_no_config(tool, published, scan, tmp_path):
    assert load_checkpoint(published)["about"]["figures"] == {"figures": {"score": 1.5}}
    status, out, _ = tool("detect", "--checkpoint", published, scan, "--out", tmp_path / "found")
    assert status == 0 and "000007" in out
    assert json.loads((tmp_path / "found" / "000007.json").read_text())["boxes"]
    status, out, _ = tool("evaluate", "--checkpoint", published, "--json", tmp_path / "a.json")
    assert status == 0 and "score" in json.loads((tmp_path / "a.json").read_text())


def test_what_is_wrong_with_a_published_detector_is_said_in_one_sentence(
    tool, published, checkpoint, scan, tmp_path
):
    out = ("--out", tmp_path / "found")
    refused(tool("detect", "--checkpoint", "demmo", scan, *out), "demmo", "known are")
    refused(tool("detect", "--checkpoint", checkpoint, scan, *out), "which config")
    refused(tool("detect", TOY, checkpoint, *out), "no scan is named")
    refused(tool("evaluate"), "no detector is named")
    refused(tool("evaluate", TOY, checkpoint, "--checkpoint", published), "leave CONFIG")
    refused(tool("publish", TOY, checkpoint, tmp_path / "a.pth", "--about", "x"), "name=value")
    published.write_bytes(published.read_bytes()[:-100])
    refused(tool("detect", "--checkpoint", published, scan, *out), published, "damaged")


def test_training_starts_from_given_weights(tool, published, tmp_path):
    run = tmp_path / "run"
    options = ("--cfg-options", "epochs=1", "optimizer.lr=1e-9")
    status, _, err = tool("train", TOY, "--work-dir", run, "--weights", published, *options)
    assert status == 0, err
    given, found = load_checkpoint(published), load_checkpoint(run / "latest.pth")
    for name, value in given["state_dict"].items():
        if "running" not in name and value.is_floating_point():
            assert torch.allclose(found["state_dict"][name], value.float(), atol=1e-7), name
    refused(
        tool("train", TOY, "--work-dir", tmp_path / "other", "--weights", published,
             "--cfg-options", "model.head.shared_channels=4"),
        published, "another model",
    )  # fmt: skip


def test_bad_frames_are_skipped_and_counted_on_request(tool, tmp_path):
    status, out, _ = tool(
        "train", TOY, "--work-dir", tmp_path / "run", "--skip-bad-frames",
        "--cfg-options", "train_dataset.bad_frame=1", "epochs=1",
    )  # fmt: skip
    assert status == 0 and "skipped 1 bad frames in this run" in out
