import json
import subprocess
import sys
import tarfile
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from datasets.kitti_files import write_objects
from detector.cli import run_tool
from tests.conftest import REPOSITORY
from tests.writers.kitti_objects import Row, objects
from tests.writers.nuscenes import token, write_nuscenes
from tests.writers.nuscenes_results import random_results
from tests.writers.waymo_objects import ObjectRow, write_objects_file

TOOL = REPOSITORY / "tools" / "score.py"
RIGHT = "Car -1 -1 0 100 100 200 160 1.5 1.6 4 0 1.7 20 0 0.9\n"


@pytest.fixture
def score(monkeypatch):
    """Runs the tool with arguments and returns its exit status."""
    spec = spec_from_file_location("score", TOOL)
    tool = module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["score.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            run_tool(tool.main)
        return exit.value.code

    return run


@pytest.fixture
def kitti(tmp_path):
    """A folder with `labels` and `results` of two frames, the second one empty."""
    car = Row()
    for frame, rows in (("000000", [car]), ("000001", [])):
        write_objects(tmp_path / "labels" / f"{frame}.txt", objects(rows))
        found = objects([row.but(score=0.9) for row in rows], with_scores=True)
        write_objects(tmp_path / "results" / f"{frame}.txt", found)
    return tmp_path


def arguments(folder):
    return "kitti", "--labels", folder / "labels", "--results", folder / "results"


def test_kitti_prints_a_table_and_writes_json(score, kitti, capsys):
    out = kitti / "new" / "out.json"
    assert score(*arguments(kitti), "--json", out) == 0
    printed = capsys.readouterr().out
    assert "Cyclist" in printed and "frames scored: 2" in printed and str(out) in printed
    figures = json.loads(out.read_text())
    assert list(figures) == ["Car", "Pedestrian", "Cyclist"]
    assert list(figures["Car"]) == ["bbox", "bev", "3d", "aos"]
    assert figures["Car"]["3d"] == {"R40": [0, 0, 0], "R11": pytest.approx([100 / 11] * 3)}
    assert [path.name for path in out.parent.iterdir()] == ["out.json"]


def test_kitti_scores_the_frames_of_a_split_alone(score, kitti, capsys):
    (kitti / "results" / "000001.txt").unlink()
    (kitti / "val.txt").write_text("000000\n")
    assert score(*arguments(kitti), "--split", kitti / "val.txt") == 0
    assert "frames scored: 1" in capsys.readouterr().out


def test_unknown_orientation_is_null_in_json(score, kitti):
    (kitti / "results" / "000001.txt").write_text(RIGHT.replace("Car -1 -1 0", "Car -1 -1 -10"))
    assert score(*arguments(kitti), "--json", kitti / "out.json") == 0
    figures = json.loads((kitti / "out.json").read_text())
    assert figures["Car"]["aos"]["R40"] == [None, None, None]
    assert figures["Car"]["bbox"]["R40"] == [0, 0, 0]


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("results/000000.txt", None, "no result for 1 of 2 frames, the first is 000000"),
        ("labels/000001.txt", None, "no label in"),
        ("results/000000.txt", RIGHT.replace(" 0.9", ""), "000000.txt:1: 15 fields"),
        ("results/000000.txt", RIGHT + "Car 1 2\n", "000000.txt:2: 3 fields"),
        ("results/000000.txt", RIGHT.replace("0.9", "nan"), "000000.txt:1: score is 'nan'"),
        ("results/000000.txt", RIGHT.replace("1.7", "abc"), "000000.txt:1: y is 'abc'"),
        ("results/000000.txt", RIGHT.replace("Car", "Cra"), "000000.txt:1: unknown type 'Cra'"),
        ("labels/000000.txt", RIGHT, "000000.txt:1: 16 fields"),
    ],
)
def test_bad_files_end_with_one_sentence(score, kitti, capsys, name, text, message):
    (kitti / name).unlink() if text is None else (kitti / name).write_text(text)
    assert score(*arguments(kitti), "--json", kitti / "out.json") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not (kitti / "out.json").exists()


def test_missing_folders_end_with_one_sentence(score, kitti, capsys):
    assert score("kitti", "--labels", kitti / "no", "--results", kitti / "results") == 2
    assert "no: no such folder" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_ends_with_one_sentence(score, kitti, capsys):
    (kitti / "file").touch()
    for out in (kitti / "labels", kitti / "file" / "out.json"):
        assert score(*arguments(kitti), "--json", out) == 2
        assert "can't be written" in capsys.readouterr().err
    assert sorted(p.name for p in kitti.iterdir()) == ["file", "labels", "results"]


def test_without_a_data_set_the_usage_is_shown(score, capsys):
    assert score() == 2
    assert "usage: " in capsys.readouterr().err


def test_runs_as_a_program(kitti):
    command = [sys.executable, str(TOOL), *map(str, arguments(kitti))]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"PYTHONPATH": str(REPOSITORY)}
    )
    assert done.returncode == 0, done.stderr
    assert "Pedestrian" in done.stdout and done.stderr == ""


def test_figures_of_the_official_evaluators_come_out(score, real_data, tmp_path):
    """154 frames of KITTI tracking sequence 0000. Two builds of the benchmark's C++ evaluator
    (prclibo/kitti_eval and kujason/avod) printed the same; they sum in float32, so that their
    sixth digit is rounded."""
    archive = real_data / "kitti_eval" / "tracking_seq0000_labels_results.tar.xz"
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    folder = tmp_path / "tracking_seq0000"
    out = tmp_path / "out.json"
    found = ("kitti", "--labels", folder / "label_2", "--results", folder / "result")
    assert score(*found, "--json", out) == 0
    figures = json.loads(out.read_text())
    metrics = {
        "detection": "bbox", "orientation": "aos", "detection_ground": "bev", "detection_3d": "3d",
        "detection_BEV": "bev", "detection_3D": "3d",
    }  # fmt: skip
    expected = json.loads(
        (real_data / "kitti_eval" / "tracking_seq0000_expected.json").read_text()
    )
    compared = 0
    for printed in expected.values():
        for name, averages in printed.items():
            kind, metric = name.split("_", 1)
            for recall, values in averages.items():
                ours = figures[kind.capitalize()][metrics[metric]][recall]
                assert ours == pytest.approx(values, abs=1e-4), name
                compared += len(values)
    assert compared == 2 * 12 * 2 * 3


@pytest.fixture
def waymo(tmp_path):
    """Two files of one frame: two vehicles, of which one was found."""
    far = (40, 2, 3, 4, 2, 1.5, 0.5)
    write_objects_file(tmp_path / "truth.bin", [ObjectRow(), ObjectRow(box=far)])
    write_objects_file(tmp_path / "found.bin", [ObjectRow(score=0.9)])
    return tmp_path


def test_waymo_figures_have_the_official_names(score, waymo, capsys):
    out = waymo / "figures.json"
    files = ("--ground-truth", waymo / "truth.bin", "--predictions", waymo / "found.bin")
    assert score("waymo", *files, "--json", out) == 0
    assert "frames scored: 1" in capsys.readouterr().out
    figures = json.loads(out.read_text())
    assert figures["OBJECT_TYPE_TYPE_VEHICLE_LEVEL_1"]["mAP"] == pytest.approx(0.5)
    assert figures["RANGE_TYPE_VEHICLE_[0, 30)_LEVEL_1"]["mAPH"] == pytest.approx(1)


def test_waymo_seen_from_above(score, waymo):
    files = ("--ground-truth", waymo / "truth.bin", "--predictions", waymo / "raised.bin")
    write_objects_file(waymo / "raised.bin", [ObjectRow(score=0.9, box=(10, 2, 9, 4, 2, 1.5, 0.5))])
    for flags, expected in (((), 0), (("--bev",), 0.5)):
        assert score("waymo", *files, *flags, "--json", waymo / "out.json") == 0
        figures = json.loads((waymo / "out.json").read_text())
        assert figures["OBJECT_TYPE_TYPE_VEHICLE_LEVEL_1"]["mAP"] == pytest.approx(expected)


def test_waymo_files_must_belong_together(score, waymo, capsys):
    truth = waymo / "truth.bin"
    strange = write_objects_file(waymo / "strange.bin", [ObjectRow("elsewhere", score=0.5)])
    assert score("waymo", "--ground-truth", truth, "--predictions", strange) == 2
    assert "no frame in common" in capsys.readouterr().err
    bare = write_objects_file(waymo / "bare.bin", [ObjectRow(points=0)])
    assert score("waymo", "--ground-truth", bare, "--predictions", strange) == 2
    assert "num_lidar_points_in_box" in capsys.readouterr().err


@pytest.fixture
def nuscenes(tmp_path):
    """Root of a tiny nuScenes with a result file of its mini_val split."""
    folder = write_nuscenes(tmp_path)
    samples = json.loads((folder / "sample.json").read_text())
    val = {row["token"] for row in samples if row["scene_token"] == token("scene", "scene-0103")}
    content = random_results(folder, samples=val)
    (tmp_path / "results.json").write_text(json.dumps(content))
    return tmp_path


def test_nuscenes_prints_a_table_and_writes_the_official_keys(score, nuscenes, capsys):
    out = nuscenes / "out.json"
    common = ("nuscenes", "--root", nuscenes, "--version", "v1.0-mini")
    assert score(*common, "--results", nuscenes / "results.json", "--json", out) == 0
    assert "construction_vehicle" in capsys.readouterr().out
    figures = json.loads(out.read_text())
    assert list(figures) == [
        "label_aps", "mean_dist_aps", "mean_ap", "label_tp_errors", "tp_errors", "tp_scores",
        "nd_score", "eval_time", "cfg", "meta",
    ]  # fmt: skip
    assert list(figures["label_aps"]["car"]) == ["0.5", "1.0", "2.0", "4.0"]


def test_nuscenes_of_a_wrong_version_ends_with_one_sentence(score, nuscenes, capsys):
    common = ("nuscenes", "--root", nuscenes, "--version", "v1.0-trainval")
    assert score(*common, "--results", nuscenes / "results.json") == 2
    assert "take one of v1.0-mini" in capsys.readouterr().err
