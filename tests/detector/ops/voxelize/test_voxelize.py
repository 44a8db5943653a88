import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.geometry import VoxelGrid
from detector.ops.voxelize import reference, voxelize

GRID = VoxelGrid((-2, -1, 0, 5, 3, 2), (0.25, 0.5, 0.5))


def random_points(count, seed, columns=5, dtype=np.float32):
    rng = np.random.default_rng(seed)
    points = rng.uniform(-3, 6, (count, columns)).astype(dtype)
    if count > 10:
        points[3, 1], points[5, 0], points[7, 2] = np.nan, np.inf, -np.inf
        points[8:10] = points[:2]
    return points


@pytest.mark.parametrize("count", [0, 1, 2, 3000])
@pytest.mark.parametrize("limits", [(None, None), (3, None), (None, 40), (2, 25), (1, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_the_reference(count, limits, dtype):
    points = random_points(count, 0, dtype=dtype)
    frames = np.sort(np.random.default_rng(1).integers(0, 3, count)).astype(np.int32)
    ours = voxelize(
        torch.from_numpy(points), GRID, *limits, frame_of_point=torch.from_numpy(frames),
        batch_size=3,
    )  # fmt: skip
    expected = reference.voxelize(points, GRID, *limits, frames)
    np.testing.assert_array_equal(ours.coordinates.numpy(), expected.coordinates)
    np.testing.assert_array_equal(ours.point_counts.numpy(), expected.point_counts)
    np.testing.assert_array_equal(ours.voxel_of_point.numpy(), expected.voxel_of_point)
    # Sums in float64, rounded once: only their order can differ.
    np.testing.assert_allclose(ours.features.numpy(), expected.features, rtol=1e-6)
    assert ours.features.dtype == torch.from_numpy(points).dtype
    assert ours.dropped_voxels == expected.dropped_voxels


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.floats(-4, 7, width=32) | st.sampled_from([math.nan, math.inf])] * 3),
        max_size=30,
    )
)
def test_cells_are_those_of_the_grid_to_the_bit(rows):
    points = torch.tensor(rows, dtype=torch.float32).reshape(-1, 3)
    cells = GRID.coordinates(points)
    voxels = voxelize(points, GRID)
    kept = voxels.voxel_of_point >= 0
    assert torch.equal(kept, cells[:, 0] >= 0)
    assert torch.equal(voxels.coordinates[voxels.voxel_of_point[kept], 1:], cells[kept])


def test_cell_borders_of_kitti_agree_to_the_bit():
    grid = VoxelGrid((0, -40, -3, 70.4, 40, 1), (0.05, 0.05, 0.1))
    steps = torch.arange(-2, 1412, dtype=torch.float32)
    borders = torch.stack([steps * 0.05, steps * 0.05 - 40, steps * 0.1 - 3], 1)
    points = torch.cat(
        [borders, borders.nextafter(borders + 1), borders.nextafter(borders - 1)]
    )
    points = torch.cat([points, points[torch.randperm(len(points))]])
    voxels = voxelize(points, grid)
    cells = grid.coordinates(points)
    kept = voxels.voxel_of_point >= 0
    assert torch.equal(kept, cells[:, 0] >= 0)
    assert torch.equal(voxels.coordinates[voxels.voxel_of_point[kept], 1:], cells[kept])


def test_a_voxel_keeps_its_first_points_in_their_order():
    points = torch.tensor([[0.1, 0, 0, 1], [4, 0, 0, 9], [0.2, 0, 0, 2], [0.1, 0.1, 0, 3]])
    voxels = voxelize(points, GRID, max_points_per_voxel=2)
    assert voxels.voxel_of_point.tolist() == [0, 1, 0, -1]
    assert voxels.point_counts.tolist() == [2, 1]
    assert torch.allclose(voxels.features[0], torch.tensor([0.15, 0, 0, 1.5]))
    assert torch.equal(voxels.points[0], points[[0, 2]])
    assert torch.equal(voxels.points[1], torch.stack([points[1], torch.zeros(4)]))


def test_without_a_limit_all_points_are_kept():
    points = torch.full((1000, 3), 0.5)
    voxels = voxelize(points, GRID)
    assert voxels.point_counts.tolist() == [1000]
    assert voxels.points.shape == (1, 1000, 3)


def test_a_full_frame_keeps_the_voxels_that_were_met_first():
    x = torch.tensor([4.0, 0.0, 2.0, 1.0, 4.1, 3.0])
    points = torch.stack([x, torch.zeros(6), torch.zeros(6)], 1)
    voxels = voxelize(points, GRID, max_voxels=3)
    assert voxels.voxel_of_point.tolist() == [2, 0, 1, -1, 2, -1]
    assert voxels.dropped_voxels == 2


def test_the_limit_of_voxels_holds_for_each_frame():
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 0, 0], [3, 0, 0]])
    frames = torch.tensor([1, 1, 1, 3, 3])
    voxels = voxelize(points, GRID, max_voxels=2, frame_of_point=frames, batch_size=5)
    assert voxels.coordinates[:, 0].tolist() == [1, 1, 3, 3]
    assert voxels.dropped_voxels == 1
    assert voxels.occupancy.batch_size == 5


@pytest.mark.parametrize("points", [torch.zeros(0, 4), torch.full((3, 4), math.nan),
                                    torch.full((3, 4), 100.0)])  # fmt: skip
def test_a_scan_with_no_point_in_range_gives_no_voxels(points):
    voxels = voxelize(points, GRID, 5, 10)
    assert voxels.features.shape == (0, 4)
    assert voxels.coordinates.shape == (0, 4)
    assert voxels.points.shape == (0, 5, 4)
    assert (voxels.voxel_of_point == -1).all()


def test_interleaved_frames_do_not_mix():
    points = torch.from_numpy(random_points(500, 2))
    frames = torch.arange(500) % 3
    together = voxelize(points, GRID, 2, 30, frame_of_point=frames, batch_size=3)
    for frame in range(3):
        alone = voxelize(points[frames == frame], GRID, 2, 30)
        rows = together.coordinates[:, 0] == frame
        assert torch.equal(together.coordinates[rows, 1:], alone.coordinates[:, 1:])
        assert torch.equal(together.features[rows], alone.features)


def test_a_grid_beyond_the_byte_budget_gives_the_same(monkeypatch):
    points = torch.from_numpy(random_points(500, 3))
    usual = voxelize(points, GRID, 2, 30)
    monkeypatch.setattr("detector.ops.occupancy.op.BYTE_BUDGET", 0)
    frugal = voxelize(points, GRID, 2, 30)
    for name in ("coordinates", "features", "point_counts", "voxel_of_point"):
        assert torch.equal(getattr(usual, name), getattr(frugal, name))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(points=torch.zeros(3, 2)), "points must be"),
        (dict(points=torch.zeros(3, 4, dtype=torch.int32)), "points must be"),
        (dict(max_voxels=0), "max_voxels must be at least 1"),
        (dict(max_points_per_voxel=-1), "max_points_per_voxel must be at least 1"),
        (dict(frame_of_point=torch.zeros(2, dtype=torch.int32)), "one entry for each"),
        (dict(frame_of_point=torch.tensor([0, 1, 2]), batch_size=2), "found 0 to 2"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(changes, message):
    arguments = dict(points=torch.zeros(3, 4), grid=GRID) | changes
    with pytest.raises(ValueError, match=message):
        voxelize(**arguments)
