import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from detector.geometry import box_corners, boxes_in_frame, wrap_angle


def test_length_follows_yaw():
    corners = box_corners(torch.tensor([[0.0, 0, 0, 4, 2, 1, math.pi / 2]]))[0]
    assert torch.allclose(corners[:, 0].abs(), torch.ones(8), atol=1e-6)
    assert torch.allclose(corners[:, 1].abs(), torch.full((8,), 2.0), atol=1e-6)


def test_bottom_face_comes_first_and_runs_counter_clockwise_from_front_left():
    corners = box_corners(torch.tensor([[1.0, 2, 3, 4, 2, 6, 0]]))[0]
    assert corners[:4].tolist() == [[3, 3, 0], [-1, 3, 0], [-1, 1, 0], [3, 1, 0]]
    assert torch.equal(corners[4:, :2], corners[:4, :2])
    assert (corners[4:, 2] == 6).all()


@given(st.floats(-1e4, 1e4))
def test_wrapped_angles_are_the_same_direction_in_the_half_open_turn(angle):
    wrapped = wrap_angle(torch.tensor(angle, dtype=torch.float64)).item()
    assert -math.pi <= wrapped < math.pi
    assert math.isclose(math.cos(wrapped), math.cos(angle), abs_tol=1e-9)
    assert math.isclose(math.sin(wrapped), math.sin(angle), abs_tol=1e-9)


def test_pi_wraps_to_minus_pi():
    assert wrap_angle(torch.tensor(math.pi, dtype=torch.float64)).item() == -math.pi
    assert wrap_angle(torch.tensor(-1e-30)).item() < math.pi


def test_moving_boxes_moves_their_corners_and_turns_their_velocity():
    target_from_source = torch.tensor(
        [[0.0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]], dtype=torch.float64
    )
    boxes = torch.tensor([[1, 2, 3, 4, 2, 1, 3.0, 10, 0]], dtype=torch.float64)
    moved = boxes_in_frame(target_from_source, boxes)
    corners = box_corners(boxes)[0] @ target_from_source[:3, :3].T + target_from_source[:3, 3]
    assert torch.allclose(box_corners(moved)[0], corners)
    assert torch.allclose(moved[0, 7:], torch.tensor([0.0, 10], dtype=torch.float64), atol=1e-12)
