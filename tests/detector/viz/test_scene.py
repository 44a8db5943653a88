"""Scenes as arrays."""

import numpy as np
import pytest
import torch

from detector.records import Detections, Sample
from detector.viz.scene import BEHIND, View, build_scene
from detector.viz.style import class_color

BOX = np.array([[20, 3, -0.5, 4, 2, 1.5, 0.6]], np.float32)


def frame(boxes=BOX):
    points = np.array([[5, 0, -1.7, 0.1], [20, 3, 0, 0.9]], np.float32)
    labels = np.zeros(len(boxes), np.int64)
    return Sample("000042", points, ("x", "y", "z", "intensity"), boxes, labels)


def of_class(scene, label=0):
    """Vertices with exactly the colour of a class."""
    color = np.array(class_color(label), np.float32) / 255
    return scene.vertices[np.abs(scene.vertex_colors - color).max(1) < 1e-3]


def in_box_axes(vertices, box=BOX[0]):
    offset = vertices - box[:3]
    cos, sin = np.cos(box[6]), np.sin(box[6])
    along = offset[:, 0] * cos + offset[:, 1] * sin
    across = offset[:, 1] * cos - offset[:, 0] * sin
    return np.stack([along, across, offset[:, 2]], -1)


def test_box_edges_follow_the_box_and_its_nose_points_ahead():
    local = in_box_axes(of_class(build_scene(frame(), ("Car",))))
    half = BOX[0, 3:6] / 2
    assert local[:, 1].max() == pytest.approx(half[1], abs=0.1)
    assert local[:, 2].min() == pytest.approx(-half[2], abs=0.1)
    assert local[:, 0].min() == pytest.approx(-half[0], abs=0.1)
    assert local[:, 0].max() == pytest.approx(half[0] + 4 / 3, abs=0.1)


def test_triangles_refer_to_vertices_and_colours_stay_in_range():
    scene = build_scene(frame(), ("Car",), color_by="intensity")
    assert scene.triangles.min() == 0 and scene.triangles.max() < len(scene.vertices)
    assert len(scene.vertex_colors) == len(scene.vertices)
    for colors in (scene.vertex_colors, scene.point_colors):
        assert colors.min() >= 0 and colors.max() <= 1
    assert scene.points.tolist() == frame().points[:, :3].tolist()


def test_truth_beside_detections_is_dashed_and_lighter():
    found = Detections("000042", torch.from_numpy(BOX), torch.tensor([0.8]), torch.tensor([0]))
    alone = build_scene(frame(), ("Car",))
    both = build_scene(frame(), ("Car",), found)
    assert len(of_class(both)) == len(of_class(alone))                  # the detection's edges
    assert len(both.vertices) - len(alone.vertices) > len(of_class(alone))      # many dashes


def test_frames_without_boxes_or_points_make_scenes_too():
    empty = Sample("a", np.zeros((0, 4), np.float32), ("x", "y", "z", "intensity"))
    scene = build_scene(empty, ("Car",))
    assert scene.points.shape == (0, 3) and len(scene.marks) == 0


def test_the_target_is_in_the_middle_and_left_is_left():
    size = (1600, 900)
    pixels, depth = BEHIND.pixels(np.array([BEHIND.target]), size)
    assert np.allclose(pixels, [[800, 450]])
    assert depth[0] == pytest.approx(np.linalg.norm(np.subtract(BEHIND.target, BEHIND.eye)))
    flat = View(eye=(0, 0, 0), target=(1, 0, 0), field_of_view=90)
    pixels, _ = flat.pixels(np.array([[10, 1.0, 0], [10, 0, 1.0]]), size)
    assert np.allclose(pixels, [[800 - 45, 450], [800, 450 - 45]])
