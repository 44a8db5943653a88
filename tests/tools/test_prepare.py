import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from datasets.nuscenes.index import INDEX_NAME, open_index
from detector.cli import run_tool
from tests.conftest import REPOSITORY
from tests.writers.nuscenes import write_nuscenes


def prepare(monkeypatch, *arguments) -> int:
    spec = spec_from_file_location("prepare", REPOSITORY / "tools" / "prepare.py")
    tool = module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(sys, "argv", ["prepare.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit:
        run_tool(tool.main)
    return exit.value.code


def test_nuscenes_index_is_written_beside_the_tables(tmp_path, monkeypatch, capsys):
    folder = write_nuscenes(tmp_path)
    assert prepare(monkeypatch, "nuscenes", "--root", tmp_path, "--version", "v1.0-mini") == 0
    assert "2 scenes, 8 samples" in capsys.readouterr().out
    assert (folder / INDEX_NAME).is_file()
    assert len(open_index(tmp_path, "v1.0-mini").sample_tokens) == 8


def test_nuscenes_index_that_cannot_be_written_is_named(tmp_path, monkeypatch, capsys):
    write_nuscenes(tmp_path)
    common = ("nuscenes", "--root", tmp_path, "--version", "v1.0-mini")
    assert prepare(monkeypatch, *common, "--out", tmp_path / "no" / "index.npz") == 2
    assert "can't be written" in capsys.readouterr().err
