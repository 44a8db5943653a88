import json
import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from detector.cli import run_tool
from tests.conftest import REPOSITORY
from tests.writers.kitti import write_kitti


@pytest.fixture
def tool():
    spec = spec_from_file_location("benchmark", REPOSITORY / "tools" / "benchmark.py")
    tool = module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def test_a_training_step_is_timed_for_each_batch_size(tool, tmp_path, monkeypatch, capsys):
    config = REPOSITORY / "tests" / "writers" / "toy_config.py"
    monkeypatch.setattr(sys, "argv", [
        "benchmark.py", "train", str(config), "--batches", "2", "3", "--steps", "2", "--json",
        str(tmp_path / "times.json"), "--cfg-options", "workers=1",
    ])  # fmt: skip
    with pytest.raises(SystemExit) as exit:
        run_tool(tool.main)
    assert exit.value.code == 0
    assert "toy_config, float32" in capsys.readouterr().out
    two, three = json.loads((tmp_path / "times.json").read_text())
    assert (two["batch_size"], three["batch_size"]) == (2, 3) and two["workers"] == 1
    for times in (two, three):
        assert 0 <= times["data_share"] < 1 and times["compute_ms"] > 0
        expected = 1e3 * times["batch_size"] / times["step_ms"]
        assert times["frames_per_s"] == pytest.approx(expected)


def test_the_input_pipeline_is_timed_by_stage(tool, tmp_path, monkeypatch, capsys):
    config = REPOSITORY / "configs" / "kitti" / "simulated_focal_centerpoint.py"
    root = write_kitti(tmp_path / "kitti")
    monkeypatch.setattr(sys, "argv", [
        "benchmark.py", "data", str(config), "--frames", "3", "--workers", "0", "1",
        "--seconds", "0.1", "--every-augmentation", "--cfg-options",
        f"train_dataset.root={root}", "train_transforms=[]",
    ])  # fmt: skip
    with pytest.raises(SystemExit) as exit:
        run_tool(tool.main)
    assert exit.value.code == 0
    out = capsys.readouterr().out
    for words in ("read", "ObjectNoise", "BeamDrop", "GlobalRotation", "collate", "frames/s a core",
                  "loader with 0 processes", "loader with 1 processes"):  # fmt: skip
        assert words in out
