import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from detector.cli import run_tool
from tests.conftest import REPOSITORY
from tests.writers.kitti import write_kitti


def test_the_input_pipeline_is_timed_by_stage(tmp_path, monkeypatch, capsys):
    spec = spec_from_file_location("benchmark", REPOSITORY / "tools" / "benchmark.py")
    tool = module_from_spec(spec)
    spec.loader.exec_module(tool)
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
