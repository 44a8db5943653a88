"""The picture from above."""

import numpy as np
import pytest
import torch
from PIL import Image

from detector.errors import InputError
from detector.records import Detections, Sample
from detector.viz.bev import draw_bev, fitting_view
from detector.viz.style import Marks, class_color

FEATURES = ("x", "y", "z", "intensity")
VIEW = (0.0, -20.0, 40.0, 20.0)             # 400 pixels make 10 a metre
CLASSES = ("Car", "Pedestrian")


def frame(boxes, labels, points=((30.0, 15, 0, 0.5),)):
    return Sample(
        "000042", np.array(points, np.float32), FEATURES,
        np.array(boxes, np.float32).reshape(-1, 7), np.array(labels, np.int64),
    )  # fmt: skip


def near(image, x, y, color, reach=3):
    """Whether a pixel close to (x, y) metres has nearly that colour."""
    column, row = round((x - VIEW[0]) * 10), round((VIEW[3] - y) * 10)
    patch = np.asarray(image)[row - reach : row + reach + 1, column - reach : column + reach + 1]
    return (np.abs(patch.astype(int) - color).max(-1) < 60).any()


def draw(sample, **options):
    return draw_bev(sample, CLASSES, view=VIEW, size=400, title="", **options)


def test_boxes_lie_where_they_are_with_a_tick_ahead():
    image = draw(frame([[20, 5, 0, 6, 2, 1.5, np.pi / 2]], [0]))
    blue = class_color(0)
    assert image.size == (400, 400)
    assert near(image, 19, 5, blue) and near(image, 21, 5, blue)        # the long sides
    assert near(image, 20, 8, blue) and near(image, 20, 2, blue)        # front and back
    assert near(image, 20, 8.8, blue, reach=1)                          # the heading's tip
    assert not near(image, 20, 1.2, blue, reach=1)                      # and none behind
    assert not near(image, 17, 5, blue)


def test_points_are_drawn_where_they_are():
    image = np.asarray(draw(frame([], [], [(30, 15, 0, 0.5), (10, -12, 0, 0.5)]))).astype(int)
    for column, row in ((300, 50), (100, 320)):
        assert image[row - 1 : row + 2, column - 1 : column + 2].sum(-1).max() > 150


def test_truth_beside_detections_is_dashed():
    truth = frame([[20, 5, 0, 10, 4, 1.5, 0]], [0])
    none = Detections("000042", torch.zeros(0, 7), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    alone, beside = draw(truth), draw(truth, detections=none)

    def side(image):
        row = np.asarray(image).astype(int)[128:132, 150:250]
        return (row.max(-1) > 150).any(0).mean()

    assert side(alone) > 0.95
    assert 0.3 < side(beside) < 0.8


def test_detections_have_the_colour_of_their_class_and_their_score():
    found = Detections(
        "000042", torch.tensor([[20.0, 5, 0, 6, 2, 1.5, 0]]), torch.tensor([0.8]), torch.tensor([1])
    )
    image = draw(frame([], []), detections=found)
    assert near(image, 20, 6, class_color(1))
    assert near(image, 24, 5, class_color(1), reach=6)                  # the score to the right
    hidden = draw(frame([], []), detections=found, min_score=0.9)
    assert not near(hidden, 20, 6, class_color(1))


def test_a_view_without_a_point_is_an_error():
    with pytest.raises(InputError, match="000042: none of its 1 points lies in the view x 0 to 40"):
        draw(frame([], [], [(60, 0, 0, 0)]))
    with pytest.raises(InputError, match="none of its 0 points"):
        draw(frame([], [], np.zeros((0, 4))))


def test_the_picture_is_written(tmp_path):
    image = draw(frame([], []), path=tmp_path / "bev.png")
    assert Image.open(tmp_path / "bev.png").size == image.size


def test_the_view_fits_points_and_boxes_in_steps_of_5_m():
    points = np.array([[1.0, -3, 0, 0], [68.2, 11, 0, 0]])
    view = fitting_view(points, [Marks(np.array([[50.0, -14, 0, 4, 2, 1.5, 0]]), [0])])
    assert view[0] <= -5 and view[2] == 70
    assert view[1] <= -20 and view[3] >= 15
    assert (view[3] - view[1]) * 2 >= view[2] - view[0]
    far = fitting_view(np.array([[1e6, 1e6, 0, 0.0]]), [])
    assert max(far) <= 110
