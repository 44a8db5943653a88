"""Camera frame <-> ego frame, 2D boxes by projection, difficulty."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.kitti_boxes import (
    camera_corners,
    camera_objects,
    difficulties,
    ego_boxes,
    image_boxes,
    objects_from_boxes,
    observation_angle,
)
from datasets.kitti_files import KittiCalibration, KittiObjects, read_calibration, read_objects
from tests.writers.kitti import IMAGE_SIZE, P2, R0_RECT, TR_VELO_TO_CAM

CALIBRATION = KittiCalibration(P2, R0_RECT, TR_VELO_TO_CAM)
# No tilt at all: ego x, y, z are camera z, -x, -y.
STRAIGHT = KittiCalibration(
    np.array([[700.0, 0, 600, 0], [0, 700, 180, 0], [0, 0, 1, 0]]),
    np.eye(3),
    np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0]]),
)

boxes_ahead = st.lists(
    st.tuples(
        st.floats(3, 80), st.floats(-30, 30), st.floats(-3, 3),
        st.floats(0.3, 20), st.floats(0.3, 4), st.floats(0.3, 5), st.floats(-3.14159, 3.14159),
    ),
    min_size=1, max_size=6,
).map(np.array)  # fmt: skip


def test_a_car_driving_away_from_an_untilted_camera():
    # 10 m ahead, standing 1.7 m below the camera, 1.5 m high, heading along the view.
    boxes = ego_boxes(
        np.array([[1.0, 1.7, 10]]), np.array([[1.5, 1.6, 4]]), np.array([-np.pi / 2]), STRAIGHT
    )
    assert np.allclose(boxes, [[10, -1, -0.95, 4, 1.6, 1.5, 0]])


def test_a_car_crossing_to_the_right_heads_along_minus_y():
    boxes = ego_boxes(np.array([[0, 1.7, 10]]), np.array([[1.5, 1.6, 4]]), np.zeros(1), STRAIGHT)
    assert boxes[0, 6] == pytest.approx(-np.pi / 2)


@given(boxes_ahead)
def test_ego_to_camera_and_back_changes_nothing(boxes):
    again = ego_boxes(*camera_objects(boxes, CALIBRATION), CALIBRATION)
    assert np.allclose(again[:, :6], boxes[:, :6], atol=1e-9, rtol=0)
    turn = (again[:, 6] - boxes[:, 6] + np.pi) % (2 * np.pi) - np.pi
    assert np.abs(turn).max() < 1e-9
    assert ((again[:, 6] >= -np.pi) & (again[:, 6] < np.pi)).all()


@given(boxes_ahead)
def test_camera_to_ego_and_back_keeps_alpha_and_the_2d_box(boxes):
    location, dimensions, rotation_y = camera_objects(boxes, CALIBRATION)
    again = camera_objects(ego_boxes(location, dimensions, rotation_y, CALIBRATION), CALIBRATION)
    first = image_boxes(camera_corners(location, dimensions, rotation_y), CALIBRATION, IMAGE_SIZE)
    second = image_boxes(camera_corners(*again), CALIBRATION, IMAGE_SIZE)
    turn = observation_angle(again[0], again[2], CALIBRATION)
    turn -= observation_angle(location, rotation_y, CALIBRATION)
    assert np.abs((turn + np.pi) % (2 * np.pi) - np.pi).max() < 1e-6
    assert np.array_equal(first[1], second[1])
    assert np.allclose(first[0], second[0], atol=1e-6, rtol=0)


@given(boxes_ahead)
def test_corners_agree_with_the_box_in_the_ego_frame_up_to_the_tilt(boxes):
    location, dimensions, rotation_y = camera_objects(boxes, STRAIGHT)
    corners = camera_corners(location, dimensions, rotation_y)
    in_ego = np.stack([corners[..., 2], -corners[..., 0], -corners[..., 1]], -1)
    offset = in_ego - boxes[:, None, :3]
    cos, sin = np.cos(boxes[:, 6, None]), np.sin(boxes[:, 6, None])
    along = offset[..., 0] * cos + offset[..., 1] * sin
    left = offset[..., 1] * cos - offset[..., 0] * sin
    signs = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)] * 2) / 2
    assert np.allclose(along, signs[:, 0] * boxes[:, 3, None], atol=1e-9)
    assert np.allclose(left, signs[:, 1] * boxes[:, 4, None], atol=1e-9)
    assert np.allclose(offset[:, :4, 2], -boxes[:, 5, None] / 2, atol=1e-9)


def test_a_box_before_the_camera_projects_as_by_hand():
    # Front face 2 x 2 m at 9 m, centred on the axis: 700 / 9 pixels to each side of (600, 180).
    corners = camera_corners(np.array([[0, 1.0, 10]]), np.array([[2.0, 2, 2]]), np.zeros(1))
    boxes, seen = image_boxes(corners, STRAIGHT, IMAGE_SIZE)
    half = 700 / 9
    assert seen.all()
    assert np.allclose(boxes, [[600 - half, 180 - half, 600 + half, 180 + half]])


def test_a_box_beside_the_camera_covers_the_picture_to_its_edge():
    # It reaches from 5 m behind the camera to 5 m ahead, 2 to 4 m to the right.
    corners = camera_corners(np.array([[3.0, 1.0, 0]]), np.array([[2.0, 2, 10]]), [-np.pi / 2])
    boxes, seen = image_boxes(corners, STRAIGHT, IMAGE_SIZE)
    assert seen.all()
    assert boxes[0, 0] == pytest.approx(600 + 700 * 2 / 5)
    assert boxes[0, 1:].tolist() == [0, IMAGE_SIZE[0] - 1, IMAGE_SIZE[1] - 1]


@pytest.mark.parametrize("location", [(0, 1, -10), (40, 1, 10), (-40, 1, 10), (0, 40, 10)])
def test_boxes_behind_or_outside_the_picture_are_not_seen(location):
    corners = camera_corners(np.array([location]), np.array([[2.0, 2, 2]]), np.zeros(1))
    boxes, seen = image_boxes(corners, STRAIGHT, IMAGE_SIZE)
    assert not seen.any() and (boxes == 0).all()


def test_results_leave_out_what_the_camera_does_not_see_and_keep_the_order():
    boxes = np.array([[20, 0, 0, 4, 2, 2, 0.0], [-20, 0, 0, 4, 2, 2, 0], [30, 5, 0, 1, 1, 2, 1]])
    objects = objects_from_boxes(
        boxes, ["Car", "Van", "Cyclist"], np.array([0.3, 0.9, 0.8]), CALIBRATION, IMAGE_SIZE
    )
    assert objects.types == ("Car", "Cyclist")
    assert objects.score.tolist() == [0.3, 0.8]
    assert objects.truncation.tolist() == [-1, -1] and objects.occlusion.tolist() == [-1, -1]


def test_no_boxes_make_no_objects():
    objects = objects_from_boxes(np.zeros((0, 7)), [], np.zeros(0), CALIBRATION, IMAGE_SIZE)
    assert len(objects) == 0


def test_difficulty_follows_height_occlusion_and_truncation():
    # Height, occlusion, truncation: at the limits of each level, and past them.
    rows = [(40.1, 0, 0.15), (40, 0, 0.15), (60, 1, 0.3), (60, 2, 0.5), (25, 0, 0), (60, 3, 0),
            (60, 0, 0.51)]  # fmt: skip
    height, occlusion, truncation = np.array(rows).T
    count = len(rows)
    objects = KittiObjects(
        ["Car"] * count, truncation, occlusion.astype(int), np.zeros(count),
        np.column_stack([np.zeros((count, 3)), height]), np.ones((count, 3)),
        np.ones((count, 3)), np.zeros(count),
    )  # fmt: skip
    assert difficulties(objects).tolist() == [0, 1, 1, 2, -1, -1, -1]


@pytest.mark.parametrize("name", ["kitti", "kitti_drive"])
def test_real_labels_come_back_from_the_ego_frame_as_they_were(real_data, name):
    folder = real_data / name / "training"
    for path in sorted((folder / "label_2").glob("*.txt")):
        calibration = read_calibration(folder / "calib" / path.name)
        objects = read_objects(path)
        boxed = np.array(objects.types) != "DontCare"
        location, dimensions = objects.location[boxed], objects.dimensions[boxed]
        rotation_y = objects.rotation_y[boxed]
        again = camera_objects(
            ego_boxes(location, dimensions, rotation_y, calibration), calibration
        )
        assert np.allclose(again[0], location, atol=1e-9)
        assert np.allclose(again[1], dimensions, atol=1e-12)
        turn = again[2] - rotation_y
        assert np.abs((turn + np.pi) % (2 * np.pi) - np.pi).max(initial=0) < 1e-9
        alpha = observation_angle(location, rotation_y, calibration) - objects.alpha[boxed]
        # Labels are printed to 0.01: half of it for each of two angles, and the location's share.
        near = 0.01 + 0.007 / np.hypot(location[:, 0], location[:, 2])
        assert (np.abs((alpha + np.pi) % (2 * np.pi) - np.pi) < near).all()
