import numpy as np
import pytest
import torch

from detector.geometry import VoxelGrid
from detector.models.pillars import PillarEncoder, PillarMap
from detector.records import Sample, collate

GRID = VoxelGrid((-4, -2, -1, 4, 2, 3), (1.0, 0.5, 4.0))
FEATURES = ("x", "y", "z", "rcs_dbsm")


def batch(*clouds):
    return collate([
        Sample(str(i), np.asarray(points, np.float32).reshape(-1, 4), FEATURES)
        for i, points in enumerate(clouds)
    ])  # fmt: skip


def random_points(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform([-5, -2.5, -1, -5], [5, 2.5, 3, 20], (count, 4))


def test_a_pillar_holds_the_largest_features_of_its_points():
    torch.manual_seed(1)
    scales = (0.1, 0.2, 1.0, 0.3)
    encoder = PillarEncoder(GRID, 4, out_channels=6, column_scales=scales).eval()
    frames = batch(random_points(60), random_points(5, 1))
    pillars = encoder(frames)
    assert pillars.spatial_shape == (1, 8, 8) and pillars.features.shape[1] == 6
    for row, (frame, _, y, x) in enumerate(pillars.coordinates.tolist()):
        points = frames.points[frames.frame_of_point == frame]
        cell = GRID.coordinates(points)
        mine = points[(cell[:, 1] == y) & (cell[:, 2] == x)]
        middle = torch.tensor([-4 + (x + 0.5) * 1.0, -2 + (y + 0.5) * 0.5])
        off = mine[:, :3] - mine[:, :3].mean(0)
        described = torch.cat([mine * torch.tensor(scales), off, mine[:, :2] - middle], 1)
        expected = encoder.norm(encoder.linear(described)).relu().amax(0)
        torch.testing.assert_close(pillars.features[row], expected, atol=1e-5, rtol=1e-5)


def test_the_map_has_the_grids_size():
    encoder = PillarEncoder(GRID, 4, out_channels=6)
    backbone = PillarMap(encoder.out_channels, encoder.spatial_shape)
    pillars = encoder(batch(random_points(40)))
    seen = backbone(pillars)
    assert seen.bev.shape == (1, 6, 8, 8) and seen.importances == []
    assert (backbone.stride, backbone.bev_shape, backbone.out_channels) == (1, (8, 8), 6)
    _, _, y, x = pillars.coordinates[3].tolist()
    torch.testing.assert_close(seen.bev[0, :, y, x], pillars.features[3])


@pytest.mark.parametrize("counts", [(0,), (1,), (0, 0), (1, 0), (0, 30)])
def test_few_points_and_none_are_legal_while_training(counts):
    encoder = PillarEncoder(GRID, 4, out_channels=6)
    clouds = [random_points(count)[:, :] * [0.5, 0.5, 0.5, 1] for count in counts]
    pillars = encoder(batch(*clouds))
    assert pillars.batch_size == len(counts) and pillars.features.isfinite().all()
    pillars.features.sum().backward()
    assert encoder.norm.running_mean.isfinite().all()


def test_gradients_reach_the_network():
    encoder = PillarEncoder(GRID, 4, out_channels=6)
    encoder(batch(random_points(50))).features.square().sum().backward()
    assert encoder.linear.weight.grad.abs().sum() > 0


def test_a_grid_of_several_layers_and_other_columns_are_refused():
    with pytest.raises(ValueError, match="one layer of cells, got 2"):
        PillarEncoder(VoxelGrid((0, 0, 0, 4, 4, 2), (1, 1, 1)), 4)
    with pytest.raises(ValueError, match="points have 4 columns"):
        PillarEncoder(GRID, 5)(batch(random_points(3)))
