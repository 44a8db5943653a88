import json
import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from datasets.nuscenes.index import INDEX_NAME, open_index
from datasets.waymo.objects import read_objects
from datasets.waymo.segments import INDEX_NAME as WAYMO_INDEX
from datasets.waymo.writer_v1 import write_v1
from detector.cli import run_tool
from tests.conftest import REPOSITORY
from tests.writers.kitti import CAR, write_kitti
from tests.writers.nuscenes import write_nuscenes
from tests.writers.waymo_frames import SEGMENT, waymo_frame


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


@pytest.fixture
def kitti(monkeypatch):
    return lambda *arguments: prepare(monkeypatch, "kitti", *arguments)


@pytest.fixture
def root(tmp_path):
    return write_kitti(tmp_path / "kitti")


def test_a_good_kitti_folder_is_ready(kitti, root, capsys):
    write_kitti(root, {"000003": [CAR]}, folder="testing")
    assert kitti("--root", root) == 0
    out = capsys.readouterr().out
    assert "training: objects" in out and "testing: frames" in out
    assert "ready; all is well." in out
    tables = [line for line in out.splitlines() if "ready" not in line and "written" not in line]
    assert max(map(len, tables)) <= 80


def test_what_has_to_be_mended_in_kitti_is_listed_and_ends_with_2(kitti, root, capsys, tmp_path):
    (root / "training" / "velodyne" / "000001.bin").write_bytes(b"123")
    (root / "training" / "label_2" / "000007.txt").write_text("Car 1 2\n")
    (root / "training" / "calib" / "000000.txt").unlink()
    report = tmp_path / "report.json"
    assert kitti("--root", root, "--report", report, "--show", 2) == 2
    captured = capsys.readouterr()
    assert "scans lack their file, the first is 000000.txt" in captured.out
    assert "... and 1 more" in captured.out
    assert captured.err.startswith("error: ") and "'error' above (3)" in captured.err
    assert len(json.loads(report.read_text())["errors"]) == 3


def test_absent_kitti_splits_are_written_unless_only_checking(kitti, root, capsys):
    for path in (root / "ImageSets").iterdir():
        path.unlink()
    assert kitti("--root", root, "--check-only") == 0
    assert not any((root / "ImageSets").iterdir())
    assert kitti("--root", root) == 0
    assert "ATTENTION" in capsys.readouterr().out
    assert {p.name for p in (root / "ImageSets").iterdir()} == {"train.txt", "val.txt",
                                                                "trainval.txt"}  # fmt: skip


def test_a_wrong_kitti_root_is_one_sentence(kitti, tmp_path, capsys):
    assert kitti("--root", tmp_path / "nowhere") == 2
    assert "nowhere/training/velodyne: no such folder; --root" in capsys.readouterr().err


def test_waymo_index_and_labels_are_written(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "training"
    write_v1(folder, SEGMENT, [waymo_frame(0), waymo_frame(1)])
    (folder / WAYMO_INDEX).write_bytes(b"an old one, of no use")
    common = ("waymo", "--root", tmp_path, "--split", "training")
    assert prepare(monkeypatch, *common, "--ground-truth", tmp_path / "truth.bin") == 0
    assert "1 segments, 2 frames" in capsys.readouterr().out
    assert len(read_objects(tmp_path / "truth.bin").frames) == 2


def test_waymo_without_files_is_explained(tmp_path, monkeypatch, capsys):
    assert prepare(monkeypatch, "waymo", "--root", tmp_path, "--split", "training") == 2
    assert "format 1" in capsys.readouterr().err


@pytest.fixture
def paste(tmp_path):
    """Arguments that name a config whose training frames are a tiny data set."""
    write_kitti(tmp_path / "kitti")
    return (
        "paste", REPOSITORY / "configs" / "kitti" / "focal_centerpoint.py", "--workers", 1,
        "--cfg-options", f"train_dataset.root={tmp_path / 'kitti'}", "train_dataset.split=trainval",
        f"train_transforms.0.transform.database={tmp_path / 'objects.db'}",
    )  # fmt: skip


def test_objects_to_paste_are_cut_out_of_a_configs_frames(
    paste, tmp_path, monkeypatch, capsys
):
    assert prepare(monkeypatch, *paste) == 0
    out = capsys.readouterr().out
    assert "2 Car, 1 Pedestrian, 1 Cyclist of 2 frames (KittiDataset" in out
    assert prepare(monkeypatch, *paste, "--check") == 0
    damaged = bytearray((tmp_path / "objects.db").read_bytes())
    damaged[100] ^= 1
    (tmp_path / "objects.db").write_bytes(damaged)
    assert prepare(monkeypatch, *paste, "--check") == 2
    assert "object 0, a Car of frame 000000" in capsys.readouterr().err


def test_a_broken_frame_stops_the_cutting(paste, tmp_path, monkeypatch, capsys):
    scan = tmp_path / "kitti" / "training" / "velodyne" / "000001.bin"
    scan.write_bytes(scan.read_bytes()[:-3])
    assert prepare(monkeypatch, *paste) == 2
    error = capsys.readouterr().err.strip()
    assert "000001.bin" in error and "\n" not in error
    assert not (tmp_path / "objects.db").exists()


def test_a_config_without_paste_is_named(monkeypatch, capsys):
    config = REPOSITORY / "configs" / "kitti" / "simulated_focal_centerpoint.py"
    assert prepare(monkeypatch, "paste", config, "--cfg-options", "train_transforms=[]") == 2
    assert "has no GroundTruthPaste" in capsys.readouterr().err
