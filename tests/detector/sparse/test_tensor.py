import pytest
import torch

from detector.geometry import VoxelGrid
from detector.ops.voxelize import voxelize
from detector.sparse import SparseTensor
from tests.oracles.sparse_scenes import GRIDS, random_coordinates, random_features


@pytest.mark.parametrize("shape", GRIDS)
def test_rows_are_sorted_and_features_follow_their_voxels(shape):
    cells = random_coordinates(shape, 2, 0.4, seed=0)
    features = random_features(len(cells), 3, seed=1).requires_grad_()
    order = torch.randperm(len(cells))
    tensor = SparseTensor(features[order], cells[order], shape, 2)
    assert torch.equal(tensor.coordinates, cells)
    assert torch.equal(tensor.features, features)
    tensor.features[0].sum().backward()
    assert features.grad[0].tolist() == [1, 1, 1]
    assert features.grad[1:].count_nonzero() == 0


def test_dense_is_batch_channel_z_y_x():
    cells = torch.tensor([[1, 0, 2, 3], [0, 1, 0, 0]])
    tensor = SparseTensor(torch.tensor([[1.0, 2], [3, 4]]), cells, (2, 3, 4), 3)
    dense = tensor.dense()
    assert dense.shape == (3, 2, 2, 3, 4)
    assert dense[1, :, 0, 2, 3].tolist() == [1, 2]
    assert dense[0, :, 1, 0, 0].tolist() == [3, 4]
    assert dense.count_nonzero() == 4


def test_int64_coordinates_are_welcome():
    tensor = SparseTensor(torch.zeros(1, 1), torch.zeros(1, 4, dtype=torch.int64), (1, 1, 1), 1)
    assert tensor.coordinates.dtype == torch.int32


def test_voxels_become_a_tensor_without_a_second_index():
    grid = VoxelGrid((0, 0, 0, 4, 4, 4), (1, 1, 1))
    voxels = voxelize(torch.rand(50, 4) * 4, grid)
    tensor = SparseTensor.from_occupancy(voxels.features, voxels.occupancy)
    again = SparseTensor(voxels.features, voxels.coordinates, grid.shape, 1)
    assert tensor.occupancy is voxels.occupancy
    assert torch.equal(tensor.coordinates, again.coordinates)
    assert torch.equal(tensor.features, again.features)


def test_an_empty_batch_is_legal():
    tensor = SparseTensor(torch.zeros(0, 3), torch.zeros(0, 4, dtype=torch.int32), (2, 2, 2), 4)
    assert tensor.batch_size == 4
    assert tensor.dense().shape == (4, 3, 2, 2, 2)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([[0, 0, 0, 0], [2, 0, 0, 0]], "row 1 .*outside a batch of 2"),
        ([[0, 0, 4, 0], [1, 0, 0, 0]], "row 0 .*outside"),
        ([[0, 0, 0, -1], [1, 0, 0, 0]], "row 0 .*outside"),
        ([[1, 2, 3, 4], [1, 2, 3, 4]], "repeated"),
        ([[0.0, 0, 0, 0], [1, 0, 0, 0]], "must be integers"),
        ([[0, 0, 0], [1, 0, 0]], r"shape \(V, 4\)"),
        ([[0, 0, 0, 0]], r"features must be floats of shape \(1, C\)"),
    ],
)
def test_coordinates_that_make_no_sense_are_refused(cells, message):
    with pytest.raises(ValueError, match=message):
        SparseTensor(torch.zeros(2, 3), torch.tensor(cells), (3, 4, 5), 2)
