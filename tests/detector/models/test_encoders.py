import numpy as np
import pytest
import torch

from detector.geometry import VoxelGrid
from detector.models.encoders import OffsetVoxelEncoder
from detector.records import Sample, collate

GRID = VoxelGrid((-4, -2, -1, 4, 2, 3), (1.0, 0.5, 0.5))
FEATURES = ("x", "y", "z", "intensity", "age_s", "rcs_dbsm", "vx_comp", "vy_comp", "is_radar")


def batch(points):
    points = np.asarray(points, np.float32).reshape(-1, len(FEATURES))
    return collate([Sample("0", points, FEATURES)])


def test_features_are_places_in_the_voxel_and_columns_times_their_scales():
    encoder = OffsetVoxelEncoder(GRID, 9, column_scales=(1, 4, 0.1, 1, 1, 1))
    voxels = encoder(batch([[-3.3, -1.9, -0.8, 0.4, 0.1, 0, 0, 0, 0],
                            [-3.1, -1.7, -0.6, 0.6, 0.3, 0, 0, 0, 0]]))  # fmt: skip
    # A tenth of a voxel along x and y, a fifth along z; height and distance in shares of the grid.
    expected = [0.3, -0.1, 0.1, 0.3 / 4, np.hypot(3.2, 1.8) / 4, np.log(3) / 4]
    expected += [0.5, 4 * 0.2, 0, 0, 0, 0]
    assert encoder.out_channels == 12 and voxels.coordinates.tolist() == [[0, 0, 0, 0]]
    torch.testing.assert_close(voxels.features, torch.tensor([expected], dtype=torch.float32))


def test_a_radar_targets_columns_are_not_thinned_by_the_lidars_points():
    lidar, radar = [[0.1, 0.1, 0.1, 0.5, 0.2, 0, 0, 0, 0]], [[0.1, 0.1, 0.1, 0, 0, 8, 6, -2, 1]]
    faster = [[0.1, 0.1, 0.1, 0, 0, 8, 8, -2, 1]]
    beside = [[2.1, 0.1, 0.1, 0.5, 0.2, 0, 0, 0, 0]]
    points = batch(lidar * 30 + radar + faster + beside * 3)
    plain = OffsetVoxelEncoder(GRID, 9)(points).features
    encoder = OffsetVoxelEncoder(GRID, 9, flagged_columns=(5, 6, 7))
    own = encoder(points).features
    torch.testing.assert_close(own[0, 8:11], torch.tensor([8.0, 7.0, -2.0]))
    torch.testing.assert_close(plain[0, 8:11], torch.tensor([8.0, 7.0, -2.0]) * 2 / 32)
    # What tells how many there are, what the laser measured, and voxels without a target stay.
    torch.testing.assert_close(own[:, [0, 1, 2, 3, 4, 5, 6, 7, 11]],
                               plain[:, [0, 1, 2, 3, 4, 5, 6, 7, 11]])  # fmt: skip
    assert (own[1, 8:] == 0).all()


def test_scales_of_another_number_of_columns_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 4\) needs a number for each of 6 columns"):
        OffsetVoxelEncoder(GRID, 9, column_scales=(1, 4))
