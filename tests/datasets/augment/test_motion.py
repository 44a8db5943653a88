"""Moving a whole sample."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.augment import move_sample
from detector.geometry import rotation_z
from detector.records import Camera, Sample


def sample_with_points_in_boxes(seed: int, columns: int = 7) -> Sample:
    """Three boxes with points inside, half of them close to the faces, and points outside."""
    rng = np.random.default_rng(seed)
    boxes = np.column_stack(
        [
            rng.uniform((5, -20, -1), (60, 20, 1), (3, 3)),
            rng.uniform((1, 0.5, 1), (6, 2.5, 3), (3, 3)),
            rng.uniform(-np.pi, np.pi, 3),
            rng.normal(0, 5, (3, 2)),
        ]
    )
    clouds = []
    for x, y, z, l, w, h, yaw in boxes[:, :7]:
        local = rng.uniform(-0.49, 0.49, (20, 3))
        local[::2] = np.sign(local[::2]) * 0.499
        along, across, up = (local * (l, w, h)).T
        cos, sin = np.cos(yaw), np.sin(yaw)
        xy = [x + along * cos - across * sin, y + along * sin + across * cos]
        clouds.append(np.column_stack([*xy, z + up]))
    clouds.append(rng.uniform(-60, 60, (30, 3)))
    xyz = np.concatenate(clouds)
    points = np.column_stack([xyz, rng.random((len(xyz), 1)), rng.normal(0, 3, (len(xyz), 2))])
    return Sample(
        "000042",
        points.astype(np.float32),
        ("x", "y", "z", "intensity", "vx_comp", "vy_comp"),
        boxes[:, :columns].astype(np.float32),
        np.array([0, 1, 2]),
    )


def inside(sample: Sample) -> np.ndarray:
    """(P, N): which point lies in which box."""
    offset = sample.points[:, None, :3].astype(np.float64) - sample.boxes[:, :3]
    cos, sin = np.cos(sample.boxes[:, 6]), np.sin(sample.boxes[:, 6])
    along = offset[..., 0] * cos + offset[..., 1] * sin
    across = offset[..., 1] * cos - offset[..., 0] * sin
    local = np.stack([along, across, offset[..., 2]], -1)
    return (np.abs(local) <= sample.boxes[:, 3:6] / 2).all(-1)


motions = st.tuples(
    st.floats(-4, 4), st.floats(0.5, 2), st.sampled_from([1, -1]), st.sampled_from([1, -1]),
    st.tuples(st.floats(-5, 5), st.floats(-5, 5), st.floats(-5, 5)),
)  # fmt: skip


def matrix(motion) -> np.ndarray:
    angle, scale, sign_x, sign_y, shift = motion
    moved_from_ego = rotation_z(angle) @ np.diag([scale * sign_x, scale * sign_y, scale, 1])
    moved_from_ego[:3, 3] = shift
    return moved_from_ego


@given(motions, st.integers(0, 1000))
def test_points_stay_in_their_boxes(motion, seed):
    sample = sample_with_points_in_boxes(seed)
    moved = move_sample(sample, matrix(motion))
    assert np.array_equal(inside(moved), inside(sample))
    assert inside(sample)[:60].any(1).all()


@given(motions, st.integers(0, 1000))
def test_taking_the_motion_back_gives_the_sample_again(motion, seed):
    sample = sample_with_points_in_boxes(seed, columns=9)
    there = move_sample(sample, matrix(motion))
    back = move_sample(there, np.linalg.inv(matrix(motion)))
    assert np.allclose(back.points, sample.points, atol=1e-4)
    turn = (back.boxes[:, 6] - sample.boxes[:, 6] + np.pi) % (2 * np.pi) - np.pi
    assert np.abs(turn).max() < 1e-5
    assert np.allclose(np.delete(back.boxes, 6, 1), np.delete(sample.boxes, 6, 1), atol=1e-4)
    assert ((there.boxes[:, 6] >= -np.pi) & (there.boxes[:, 6] < np.pi)).all()


def test_every_column_with_a_direction_turns_along():
    box = np.array([[10, 0, 0, 4, 2, 1, 0, 5, 0]], np.float32)
    point = np.array([[10, 0, 0, 0.5, 3, 0]], np.float32)
    names = ("x", "y", "z", "intensity", "vx_comp", "vy_comp")
    sample = Sample("a", point, names, box, np.zeros(1, np.int64))
    moved = move_sample(sample, rotation_z(np.pi / 2))
    assert np.allclose(moved.points, [[0, 10, 0, 0.5, 0, 3]], atol=1e-6)
    assert np.allclose(moved.boxes, [[0, 10, 0, 4, 2, 1, np.pi / 2, 0, 5]], atol=1e-6)


def test_the_input_is_left_as_it_was():
    sample = sample_with_points_in_boxes(0)
    points, boxes = sample.points.copy(), sample.boxes.copy()
    sample.points.flags.writeable = sample.boxes.flags.writeable = False
    move_sample(sample, matrix((1.0, 1.5, -1, 1, (1, 2, 3))))
    assert np.array_equal(points, sample.points) and np.array_equal(boxes, sample.boxes)


@given(motions)
def test_points_still_project_to_their_pixels(motion):
    sample = sample_with_points_in_boxes(1)
    camera_from_ego = np.array([[0, -1, 0, 0], [0, 0, -1, -0.1], [1, 0, 0, -0.3], [0, 0, 0, 1.0]])
    intrinsics = np.array([[700, 0, 600, 40], [0, 700, 170, 0.2], [0, 0, 1, 0]], np.float32)
    camera = Camera(
        "image_2", np.zeros((4, 4, 3), np.uint8), camera_from_ego.astype(np.float32), intrinsics
    )

    def pixels(some):
        homogeneous = np.column_stack([some.points[:60, :3], np.ones(60)]).astype(np.float64)
        projected = homogeneous @ (intrinsics @ some.cameras[0].camera_from_ego).T
        return projected[:, :2] / projected[:, 2:]

    sample = sample.replace(cameras=(camera,))
    moved = move_sample(sample, matrix(motion))
    assert np.allclose(pixels(moved), pixels(sample), atol=0.05)


@pytest.mark.parametrize(
    "linear",
    [
        np.diag([1, 2, 1]), np.diag([1, 1, -1]), np.zeros((3, 3)),
        [[1, 0.2, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
    ],
)  # fmt: skip
def test_motions_that_boxes_cannot_follow_are_refused(linear):
    moved_from_ego = np.eye(4)
    moved_from_ego[:3, :3] = linear
    with pytest.raises(ValueError, match="turn about z, mirror"):
        move_sample(sample_with_points_in_boxes(0), moved_from_ego)


def test_frames_without_points_or_boxes_move_too():
    empty = Sample("a", np.zeros((0, 4), np.float32), ("x", "y", "z", "intensity"))
    moved = move_sample(empty, matrix((1.0, 1.5, -1, 1, (1, 2, 3))))
    assert moved.points.shape == (0, 4) and moved.boxes.shape == (0, 7)
