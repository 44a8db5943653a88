import math

import pytest
import torch

from detector.geometry import VoxelGrid

KITTI = VoxelGrid((0, -40, -3, 70.4, 40, 1), (0.05, 0.05, 0.1))


def test_shape_is_z_y_x():
    assert KITTI.shape == (40, 1600, 1408)


def test_lower_faces_belong_to_the_cell_and_upper_faces_do_not():
    grid = VoxelGrid((0, 0, 0, 4, 3, 2), (1, 1, 1))
    points = torch.tensor(
        [[0.0, 0, 0], [1, 1, 1], [3.99, 2.99, 1.99], [4, 0, 0], [0, 3, 0], [0, 0, 2]]
    )
    assert grid.coordinates(points).tolist() == [
        [0, 0, 0], [1, 1, 1], [1, 2, 3], [-1, -1, -1], [-1, -1, -1], [-1, -1, -1],
    ]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e30])
def test_points_that_are_not_finite_are_outside(bad):
    for axis in range(3):
        point = torch.full((1, 3), 0.5)
        point[0, axis] = bad
        assert (KITTI.coordinates(point) == -1).all()


def test_centers_fall_back_into_their_cells():
    coordinates = torch.tensor([[0, 0, 0], [39, 1599, 1407], [20, 3, 1000]], dtype=torch.int32)
    assert torch.equal(KITTI.coordinates(KITTI.centers(coordinates)), coordinates)


def test_centers_of_a_strided_map_carry_half_a_coarse_cell():
    center = KITTI.centers(torch.tensor([[0, 0, 0]]), stride=8)
    assert torch.allclose(center, torch.tensor([[0.2, -39.8, -2.6]]))


@pytest.mark.parametrize(
    ("point_cloud_range", "voxel_size"),
    [
        ((0, 0, 0, 1, 1, 1), (0.3, 1, 1)),
        ((0, 0, 0, 0, 1, 1), (1, 1, 1)),
        ((0, 0, 0, 1, 1, 1), (-1, 1, 1)),
    ],
)
def test_a_range_that_is_not_whole_cells_is_refused(point_cloud_range, voxel_size):
    with pytest.raises(ValueError, match="x: range"):
        VoxelGrid(point_cloud_range, voxel_size)
