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


@pytest.fixture
def figures_of(score, real_data, tmp_path):
    """Scores one of the packed sets of `kitti_eval` and returns the JSON."""

    def run(name):
        archive = real_data / "kitti_eval" / f"{name}_labels_results.tar.xz"
        with tarfile.open(archive) as packed:
            packed.extractall(tmp_path, filter="data")
        folder, out = tmp_path / name, tmp_path / "out.json"
        found = ("--labels", folder / "label_2", "--results", folder / "result", "--json", out)
        assert score("kitti", *found) == 0
        return json.loads(out.read_text())

    return run


def test_figures_of_the_official_evaluators_come_out(figures_of, real_data):
    """154 frames of KITTI tracking sequence 0000. Two builds of the benchmark's C++ evaluator
    (prclibo/kitti_eval and kujason/avod) printed the same; they sum in float32, so that their
    sixth digit is rounded."""
    figures = figures_of("tracking_seq0000")
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


# R40 and R11 from the curves that the C++ evaluator of kujason/avod (commit 56c3710) wrote for the
# 300 frames of object_synth300, 2026-11-24; prclibo/kitti_eval (955c04c) wrote the same.
SYNTH300 = {
    ("Car", "bbox"): ([67.4271, 70.0394, 72.3077], [67.0624, 71.7432, 73.8965]),
    ("Car", "bev"): ([53.5828, 60.5248, 63.1306], [54.8034, 61.0946, 63.5529]),
    ("Car", "3d"): ([47.6543, 54.4123, 56.6077], [48.9279, 54.6016, 56.5299]),
    ("Car", "aos"): ([62.4174, 66.2816, 68.5865], [62.0589, 67.9190, 70.2467]),
    ("Pedestrian", "bbox"): ([74.5396, 71.6324, 69.8329], [74.4749, 72.0282, 67.6061]),
    ("Pedestrian", "bev"): ([54.2357, 51.6483, 50.2607], [52.5037, 50.3271, 50.5647]),
    ("Pedestrian", "3d"): ([51.2958, 47.4466, 46.3793], [50.9412, 48.1537, 48.5989]),
    ("Pedestrian", "aos"): ([66.2317, 64.9277, 63.9368], [66.1807, 65.4064, 61.9334]),
    ("Cyclist", "bbox"): ([57.2055, 68.6710, 68.1301], [57.8364, 69.3843, 69.2173]),
    ("Cyclist", "bev"): ([50.2530, 60.6792, 60.1511], [49.6048, 61.6165, 60.7174]),
    ("Cyclist", "3d"): ([43.8384, 55.1555, 55.0335], [44.0542, 54.4667, 54.7341]),
    ("Cyclist", "aos"): ([53.2453, 65.0335, 64.6905], [53.4806, 65.6327, 65.5793]),
}


def test_figures_of_the_official_evaluators_come_out_where_much_is_missed(figures_of):
    figures = figures_of("object_synth300")
    for (name, metric), (r40, r11) in SYNTH300.items():
        assert figures[name][metric]["R40"] == pytest.approx(r40, abs=1e-4)
        assert figures[name][metric]["R11"] == pytest.approx(r11, abs=1e-4)


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
