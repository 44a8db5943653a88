import sys
from importlib.util import module_from_spec, spec_from_file_location

import numpy as np
import pytest
from PIL import Image

from detector.cli import run_tool
from detector.errors import InputError
from tests.conftest import REPOSITORY
from tests.writers.kitti import write_kitti
from tests.writers.nuscenes import token, write_nuscenes

RESULT = "Car -1 -1 0 600 170 700 220 1.5 1.6 3.9 2 1.7 15 0.3 0.9\n"


@pytest.fixture
def visualize(monkeypatch):
    """Runs the tool with arguments, on KITTI by default, and returns its exit status."""
    spec = spec_from_file_location("visualize", REPOSITORY / "tools" / "visualize.py")
    tool = module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*arguments):
        dataset = () if arguments[0] == "nuscenes" else ("kitti",)
        monkeypatch.setattr(sys, "argv", ["visualize.py", *dataset, *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            run_tool(tool.main)
        return exit.value.code

    return run


@pytest.fixture
def no_open3d(monkeypatch):
    def fail(*_, **__):
        raise InputError("Open3D can't be loaded (libEGL.so.1); run: apt-get install libegl1")

    monkeypatch.setattr("detector.viz.offscreen.run_worker", fail)


@pytest.fixture
def root(tmp_path):
    return write_kitti(tmp_path / "kitti")


def test_every_picture_of_a_frame_is_written(visualize, root, tmp_path, monkeypatch):
    def render(mode, folder, _):
        width, height = np.load(folder / "0.npz")["size"]
        np.save(folder / "0.npy", np.zeros((height, width, 3), np.uint8))

    monkeypatch.setattr("detector.viz.offscreen.run_worker", render)
    out = tmp_path / "pictures"
    assert visualize("--root", root, "--frame", "000000", "000007", "--out", out) == 0
    names = {f"{frame}_{kind}.png" for frame in ("000000", "000007") for kind in
             ("bev", "3d", "image")}  # fmt: skip
    assert {path.name for path in out.iterdir()} == names


def test_without_open3d_the_other_pictures_are_written(
    visualize, root, tmp_path, no_open3d, capsys
):
    out = tmp_path / "pictures"
    assert visualize("--root", root, "--split", "train", "--out", out) == 0
    assert {path.name for path in out.iterdir()} == {"000000_bev.png", "000000_image.png"}
    assert "no 3D picture: Open3D can't be loaded" in capsys.readouterr().err
    arguments = ("--root", root, "--frame", "000000", "--out", out, "--kinds", "3d")
    assert visualize(*arguments) == 2


def test_one_picture_goes_into_the_file_named(visualize, root, tmp_path):
    out = tmp_path / "one.png"
    arguments = ("--root", root, "--out", out, "--kinds", "bev", "--color", "intensity")
    assert visualize(*arguments, "--frame", "000001") == 0
    assert max(Image.open(out).size) == 1400
    assert visualize(*arguments, "--frame", "000001", "000000") == 2


def test_results_are_drawn_over_the_labels(visualize, root, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "000001.txt").write_text(RESULT)
    plain, both = tmp_path / "plain.png", tmp_path / "both.png"
    arguments = ("--root", root, "--frame", "000001", "--kinds", "image")
    assert visualize(*arguments, "--out", plain) == 0
    assert visualize(*arguments, "--out", both, "--results", tmp_path / "results") == 0
    assert plain.read_bytes() != both.read_bytes()


def test_frames_of_the_testing_folder_need_no_labels(visualize, tmp_path):
    root = write_kitti(tmp_path / "kitti", {"000003": []}, folder="testing", images=False)
    (root / "testing" / "label_2" / "000003.txt").unlink()
    (root / "testing" / "label_2").rmdir()
    out = tmp_path / "out"
    arguments = ("--root", root, "--out", out, "--kinds", "bev")
    assert visualize(*arguments, "--frame", "000003", "--testing") == 0
    assert visualize(*arguments, "--split", "test") == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--frame", "000099"], "velodyne/000099.bin: no such file"),
        (["--split", "nights"], "no such split; there are train, trainval, val"),
        (["--frame", "000000", "--results", "absent"], "absent/000000.txt: can't read the result"),
        (["--frame", "000000", "--color", "rings"], "can't be coloured by 'rings'"),
        (["--frame", "000000", "--out", "/proc/pictures"], "can't be written"),
        (["--frame", "000000", "--view"], "no display"),
    ],
)
def test_bad_input_is_one_sentence(visualize, root, capsys, monkeypatch, arguments, words):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert visualize("--root", root, "--kinds", "bev", *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and words in error and "\n" not in error


def test_a_torn_scan_is_one_sentence(visualize, root, capsys):
    path = root / "training" / "velodyne" / "000000.bin"
    path.write_bytes(path.read_bytes()[:-3])
    assert visualize("--root", root, "--frame", "000000") == 2
    assert "000000.bin" in capsys.readouterr().err


def test_each_augmentation_is_drawn_before_and_after(visualize, root, tmp_path):
    out = tmp_path / "out"
    assert visualize("--root", root, "--frame", "000000", "--augment", "--out", out) == 0
    names = {path.name for path in out.iterdir()}
    assert len(names) == 9 and "000000_augment_ground_truth_paste.png" in names
    picture = Image.open(out / "000000_augment_random_flip.png")
    left = picture.crop((0, 0, picture.width // 2 - 2, picture.height))
    right = picture.crop((picture.width // 2 + 2, 0, picture.width, picture.height))
    assert left.size == right.size and left.tobytes() != right.tobytes()


def test_augmentations_do_not_fit_one_file(visualize, root, tmp_path, capsys):
    arguments = ("--root", root, "--frame", "000000", "--augment", "--out", tmp_path / "a.png")
    assert visualize(*arguments) == 2
    assert "give a folder" in capsys.readouterr().err


def test_a_key_frame_of_nuscenes_is_drawn_from_above_and_by_its_cameras(visualize, tmp_path):
    write_nuscenes(tmp_path, sensor_files=True, samples_per_scene=2)
    common = ("nuscenes", "--root", tmp_path, "--version", "v1.0-mini", "--kinds", "bev", "image")
    frame = token("scene-0103", "sample", 1)
    out = tmp_path / "pictures"
    assert visualize(*common, "--frame", frame, "--sensors", "lidar", "radar", "--out", out) == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == [f"{frame}_bev.png", f"{frame}_image.png"]
    with Image.open(out / names[1]) as mosaic:
        assert mosaic.size == (3 * 64, 2 * 36)
