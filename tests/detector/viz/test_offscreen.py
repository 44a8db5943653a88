"""Rendering by Open3D in a process of its own, and what is said where it can't."""

import numpy as np
import pytest
from PIL import Image

from detector.errors import InputError
from detector.records import Sample
from detector.viz import offscreen
from detector.viz.scene import View, build_scene
from detector.viz.style import class_color
from detector.viz.viewer import has_display, show

VIEW = View(eye=(-5, 0, 6), target=(20, 0, -1))
BOX = np.array([[20, 4, -0.5, 4, 2, 1.5, 0.6]], np.float32)


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(0)
    points = rng.uniform((5, -10, -2, 0), (40, 10, 0, 1), (500, 4)).astype(np.float32)
    features = ("x", "y", "z", "intensity")
    return build_scene(
        Sample("000042", points, features, BOX, np.array([0])), ("Car",), view=VIEW, title=""
    )


@pytest.fixture(scope="module")
def open3d():
    try:
        offscreen.check()
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture
def broken_open3d(tmp_path, monkeypatch):
    """Puts a module in the place of Open3D that does what it is told."""

    def install(body):
        (tmp_path / "open3d").mkdir()
        (tmp_path / "open3d" / "__init__.py").write_text(body)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return install


def test_boxes_are_rendered_where_they_project(open3d, scene, tmp_path):
    size = (640, 360)
    offscreen.render_pngs([scene, scene], [tmp_path / "a.png", tmp_path / "b" / "b.png"], size=size)
    picture = np.asarray(Image.open(tmp_path / "a.png")).astype(int)
    assert picture.shape == (360, 640, 3)
    assert np.array_equal(picture, np.asarray(Image.open(tmp_path / "b" / "b.png")))
    rows, columns = np.nonzero(np.abs(picture[80:] - class_color(0)).max(-1) < 50)
    ((column, row),), _ = VIEW.pixels(BOX[:, :3], size)
    assert len(rows) > 50
    assert columns.mean() == pytest.approx(column, abs=12)
    assert rows.mean() + 80 == pytest.approx(row, abs=12)
    assert (picture.sum(-1) > 250).mean() > 0.003                       # the points


def test_no_scenes_make_no_pictures():
    assert offscreen.render_pngs([], []) == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ImportError('libEGL.so.1: cannot open shared object file')",
         "can't be loaded .libEGL.so.1.*apt-get install libegl1"),
        ("raise ModuleNotFoundError(\"No module named 'open3d'\")", "pip install open3d-cpu"),
        ("import os; os.abort()", "stopped with exit status -6.*apt-get install"),
        ("import sys; print('no GPU at all', file=sys.stderr); sys.exit(1)", "no GPU at all"),
        ("class visualization:\n class Visualizer:\n"
         "  def create_window(self, *a, **k): return False", "can't draw .no OpenGL context"),
    ],
)  # fmt: skip
def test_a_broken_open3d_is_a_sentence_that_names_the_packages(broken_open3d, scene, tmp_path, body,
                                                               words):  # fmt: skip
    broken_open3d(body)
    with pytest.raises(InputError, match=words):
        offscreen.render_png(scene, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_a_display_that_does_not_answer_is_a_sentence(open3d, scene, monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("DISPLAY", ":4711")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(InputError, match="display :4711 can't be opened; write a picture"):
        show(scene)


def test_a_worker_that_hangs_is_stopped(broken_open3d):
    broken_open3d("import time; time.sleep(60)")
    with pytest.raises(InputError, match="did not finish within 0.5 s"):
        offscreen.run_worker("check", offscreen.Path("."), 0.5)


def test_without_a_display_no_window_is_tried(scene, monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(InputError, match="no display .*write a picture instead"):
        show(scene)
    assert has_display({"DISPLAY": ":0"}) and has_display({"WAYLAND_DISPLAY": "wayland-0"})
