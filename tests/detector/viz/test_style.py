"""Colours and marks that all pictures share."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from detector.errors import InputError
from detector.records import Detections, Sample
from detector.viz.style import (
    PALETTE,
    Marks,
    class_color,
    draw_legend,
    draw_path,
    marks_of,
    point_colors,
    ramp,
    road_height,
    save_png,
)

BOX = np.array([[10, 0, 0, 4, 2, 1.5, 0]], np.float32)
SAMPLE = Sample(
    "000042",
    np.array([[5, 0, -1.7, 0.2], [6, 0, 1, 0.8]], np.float32),
    ("x", "y", "z", "intensity"),
    BOX,
    np.array([1]),
)
FOUND = Detections(
    "000042", torch.from_numpy(np.repeat(BOX, 2, 0)), torch.tensor([0.9, 0.2]), torch.tensor([1, 0])
)


def test_truth_is_dashed_only_beside_detections():
    (truth,) = marks_of(SAMPLE, None, 0.0)
    assert not truth.dashed and truth.scores is None and truth.labels == [1]
    truth, found = marks_of(SAMPLE, FOUND, 0.0)
    assert truth.dashed and not found.dashed and found.labels == [1, 0]


def test_detections_below_the_score_are_left_out():
    _, found = marks_of(SAMPLE, FOUND, 0.5)
    assert found.scores.tolist() == pytest.approx([0.9]) and len(found.boxes) == 1


def test_classes_have_colours_of_their_own_and_repeat_after_the_last():
    assert len(set(PALETTE)) == len(PALETTE)
    assert class_color(len(PALETTE)) == class_color(0)


def test_point_colours_rise_with_the_value_and_stop_at_the_ends():
    colors = ramp(np.array([-5.0, 0, 0.5, 1, 7]), 0, 1).astype(int).sum(1)
    assert colors[0] == colors[1] < colors[2] < colors[3] == colors[4]
    assert ramp(np.zeros(3), 1, 1).shape == (3, 3)


def test_points_can_be_coloured_by_any_column_they_have():
    by_intensity = point_colors(SAMPLE.points, SAMPLE.point_features, "intensity")
    assert by_intensity.shape == (2, 3) and by_intensity[0].sum() < by_intensity[1].sum()
    with pytest.raises(InputError, match="'rings'; this frame has height, x, y, z, intensity"):
        point_colors(SAMPLE.points, SAMPLE.point_features, "rings")
    assert len(point_colors(np.zeros((0, 4)), SAMPLE.point_features, "height")) == 0


def test_road_height_is_that_of_the_low_points_near_by():
    rng = np.random.default_rng(0)
    road = np.column_stack([rng.uniform(-20, 20, (900, 2)), rng.normal(-1.7, 0.02, 900)])
    walls = np.column_stack([rng.uniform(-20, 20, (300, 2)), rng.uniform(-1, 3, 300)])
    assert road_height(np.concatenate([road, walls])) == pytest.approx(-1.7, abs=0.1)


def lit(dash):
    image = Image.new("L", (101, 9))
    draw_path(ImageDraw.Draw(image), [(0, 4), (100, 4)], (255,), 1, dash)
    return np.asarray(image)[4] > 0


def test_dashes_leave_gaps_and_draw_both_ends():
    assert lit(None).all()
    dashed = lit(10.0)
    assert dashed[0] and dashed[100] and 0.35 < dashed.mean() < 0.7


def test_the_legend_names_the_classes_that_occur():
    plain = Image.new("RGB", (640, 360))
    drawn = plain.copy()
    draw_legend(drawn, ("Car", "Pedestrian"), [Marks(BOX, [1])], "000042")
    colors = {tuple(color) for _, color in drawn.getcolors(1 << 20)}
    assert class_color(1) in colors and class_color(0) not in colors


def test_pictures_go_into_folders_made_for_them(tmp_path):
    path = save_png(Image.new("RGB", (4, 3)), tmp_path / "deep" / "a.png")
    assert Image.open(path).size == (4, 3)
    with pytest.raises(InputError, match="a.png/b.png: can't be written .*choose a folder"):
        save_png(Image.new("RGB", (4, 3)), path / "b.png")
