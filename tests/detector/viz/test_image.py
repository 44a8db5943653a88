"""Boxes on a camera's picture."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from detector.errors import InputError
from detector.records import Camera, Detections, Sample
from detector.viz.image import draw_image, draw_images, project_segment
from detector.viz.style import class_color

# Looks along +x; 100 pixels of focal length, centre (200, 100).
CAMERA = Camera(
    "image_2",
    np.zeros((200, 400, 3), np.uint8),
    np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], np.float32),
    np.array([[100, 0, 200, 0], [0, 100, 100, 0], [0, 0, 1, 0]], np.float32),
)


def frame(boxes, cameras=(CAMERA,)):
    boxes = np.array(boxes, np.float32).reshape(-1, 7)
    points = np.zeros((1, 4), np.float32)
    labels = np.zeros(len(boxes), np.int64)
    return Sample("000042", points, ("x", "y", "z", "intensity"), boxes, labels, cameras)


def colored(image):
    """Columns and rows of the pixels that have about the colour of class 0."""
    pixels = np.asarray(image).astype(int)
    rows, columns = np.nonzero(np.abs(pixels - class_color(0)).max(-1) < 60)
    return columns, rows


def test_a_box_lies_where_it_projects():
    # Near face at 9 m, 2 m wide and high: 11 pixels to each side of (200 - 22, 100).
    image = draw_image(frame([[10, 2, 0, 2, 2, 2, 0]]), ("Car",), title="")
    columns, rows = colored(image.crop((0, 0, 255, 200)))
    assert columns.min() == pytest.approx(200 - 300 / 9, abs=2)
    assert columns.max() == pytest.approx(200 - 100 / 11, abs=2)
    assert rows.min() == pytest.approx(100 - 100 / 9, abs=2)
    assert rows.max() == pytest.approx(100 + 100 / 9, abs=2)


def test_boxes_behind_the_camera_or_beside_the_picture_leave_no_mark():
    image = draw_image(frame([[-10, 0, 0, 2, 2, 2, 0], [5, 40, 0, 2, 2, 2, 0]]), ("Car",), title="")
    assert len(colored(image.crop((0, 0, 255, 200)))[0]) == 0


def test_a_box_that_reaches_behind_the_camera_is_drawn_to_the_edge():
    image = draw_image(frame([[0, 3, 0, 20, 2, 2, 0]]), ("Car",), title="")
    columns, _ = colored(image.crop((0, 0, 255, 200)))
    assert columns.min() < 5 and columns.max() == pytest.approx(200 - 200 / 10, abs=2)


def test_segments_are_cut_before_the_camera():
    start, end = np.array([0.0, 0, -5]), np.array([0.0, 0, 10])
    assert project_segment(start, start, CAMERA) is None
    assert np.allclose(project_segment(start, end, CAMERA), [[200, 100], [200, 100]])
    side = project_segment(np.array([1.0, 0, -1]), np.array([1.0, 0, 1]), CAMERA)
    assert np.allclose(side, [[200 + 100 / 0.2, 100], [300, 100]])


def test_frames_without_the_picture_or_boxes(tmp_path):
    with pytest.raises(InputError, match="000042 has 0 pictures"):
        draw_image(frame([], cameras=()), ("Car",))
    empty = Detections("000042", torch.zeros(0, 7), torch.zeros(0), torch.zeros(0).long())
    assert draw_image(frame([]), ("Car",), tmp_path / "a.png", empty).size == (400, 200)
    assert (tmp_path / "a.png").is_file()


def test_all_pictures_of_a_frame_lie_side_by_side(tmp_path):
    cameras = tuple(replace(CAMERA, name=f"camera {i}") for i in range(4))
    sample = frame([[10, 2, 0, 2, 2, 2, 0]], cameras=cameras)
    whole = draw_images(sample, ("Car",), tmp_path / "a.png")
    width, height = CAMERA.image.shape[1::-1]
    assert whole.size == (3 * width, 2 * height) and (tmp_path / "a.png").is_file()
    with pytest.raises(InputError, match="has 0 pictures"):
        draw_images(frame([], cameras=()), ("Car",))
