import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from datasets.waymo import WaymoDataset
from detector.cli import run_tool
from tests.conftest import REPOSITORY


@pytest.fixture
def simulate(monkeypatch):
    """Runs the tool with arguments and returns its exit status."""
    spec = spec_from_file_location("simulate", REPOSITORY / "tools" / "simulate.py")
    tool = module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["simulate.py", "waymo", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            run_tool(tool.main)
        return exit.value.code

    return run


def test_frames_are_written_and_read(simulate, tmp_path, capsys):
    options = ("--frames", 1, "--val-frames", 0, "--columns", 16, "--format", "v2")
    assert simulate("--out", tmp_path, *options, "--workers", 1) == 0
    assert "1 training and 0 validation frames" in capsys.readouterr().out
    assert len(WaymoDataset(tmp_path / "v2", "training")[0].points) > 10
    assert simulate("--out", tmp_path, *options, "--seed", 9) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("options", [("--gap", "0.01"), ("--frames", "0"), ("--columns", "1")])
def test_wrong_numbers_are_refused(simulate, tmp_path, options, capsys):
    assert simulate("--out", tmp_path, *options) == 2
    assert options[0] in capsys.readouterr().err
