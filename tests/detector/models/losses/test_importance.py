import math

import pytest
import torch

from detector.geometry import VoxelGrid
from detector.models.losses.importance import focal_importance_loss, voxels_in_boxes
from detector.sparse import FocalConv3d, FocalImportance, SparseTensor
from tests.oracles import focal as oracle
from tests.oracles.sparse_scenes import random_coordinates, random_features

# Nothing like KITTI's.
GRID = VoxelGrid((-10, 20, 1, -4, 26, 5), (0.5, 0.25, 1))


def random_boxes(count, seed):
    generator = torch.Generator().manual_seed(seed)
    low = torch.tensor([-10, 20, 1, 0.5, 0.5, 0.5, -4.0])
    high = torch.tensor([-4, 26, 5, 4, 3, 3, 4.0])
    return low + (high - low) * torch.rand(count, 7, generator=generator)


@pytest.mark.parametrize("stride", [1, 2])
def test_equals_the_oracle(stride):
    shape = tuple(size // stride for size in GRID.shape)
    cells = random_coordinates(shape, 3, 0.2, 0, empty_frames=(1,))
    logits = random_features(len(cells), 1, 1)[:, 0].requires_grad_()
    boxes = [random_boxes(4, 2), random_boxes(2, 3), torch.zeros(0, 7)]
    loss = focal_importance_loss(FocalImportance(logits, cells, stride, 3), boxes, GRID)
    expected = oracle.importance_loss(
        logits, cells.tolist(), boxes, GRID.minimum, GRID.voxel_size, stride
    )
    assert torch.allclose(loss.double(), expected, atol=1e-6)
    gradient, wanted = (torch.autograd.grad(value, logits)[0] for value in (loss, expected))
    assert torch.allclose(gradient, wanted, atol=1e-7)


def inside(cells, boxes, grid=GRID, stride=1):
    return voxels_in_boxes(
        torch.tensor(cells, dtype=torch.int32), [torch.tensor(boxes)], grid, stride, 1
    ).tolist()


def test_a_voxel_counts_by_its_centre_and_not_its_corner():
    grid = VoxelGrid((0, 0, 0, 4, 4, 4), (1, 1, 1))
    box = [[1.0, 1, 1, 1.2, 1.2, 1.2, 0]]  # 0.4 to 1.6 holds the centres 0.5 and 1.5
    assert inside([[0, 0, 0, 0], [0, 1, 1, 1], [0, 2, 1, 1]], box, grid) == [True, True, False]


def test_a_coarse_voxel_counts_by_the_centre_of_the_cells_it_spans():
    grid = VoxelGrid((0, 0, 0, 8, 8, 8), (1, 1, 1))
    box = [[6.0, 6, 6, 0.2, 0.2, 0.2, 0]]
    assert inside([[0, 0, 0, 0], [0, 1, 1, 1]], box, grid, stride=4) == [False, True]


def test_boxes_turn_with_their_yaw():
    grid = VoxelGrid((-4, -4, -1, 4, 4, 1), (1, 1, 2))
    cells = [[0, 0, 4, 6], [0, 0, 6, 4]]  # centres (2.5, 0.5) and (0.5, 2.5)
    assert inside(cells, [[0.0, 0.5, 0, 6, 1.5, 2, 0]], grid) == [True, False]
    assert inside(cells, [[0.5, 0, 0, 6, 1.5, 2, math.pi / 2]], grid) == [False, True]


def test_boxes_are_not_doubled():
    grid = VoxelGrid((0, 0, 0, 8, 1, 1), (1, 1, 1))
    cells = [[0, 0, 0, x] for x in range(8)]
    found = inside(cells, [[4.0, 0.5, 0.5, 4, 1, 1, 0]], grid)
    assert found == [False, False, True, True, True, True, False, False]


def test_boxes_of_one_frame_do_not_mark_another():
    cells = torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0]], dtype=torch.int32)
    box = torch.cat([GRID.centers(cells[:1, 1:]), torch.ones(1, 4)], 1)
    assert voxels_in_boxes(cells, [torch.zeros(0, 7), box], GRID, 1, 2).tolist() == [False, True]


def test_a_sure_and_right_opinion_costs_nothing_and_a_sure_and_wrong_one_its_logit():
    cells = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.int32)
    box = torch.cat([GRID.centers(cells[:1, 1:]), torch.full((1, 3), 0.1), torch.zeros(1, 1)], 1)
    right, wrong = torch.tensor([30.0, -30]), torch.tensor([-100.0, 100])
    assert focal_importance_loss(FocalImportance(right, cells, 1, 1), [box], GRID) < 1e-12
    assert focal_importance_loss(FocalImportance(wrong, cells, 1, 1), [box], GRID) == 100


def test_no_voxels_cost_nothing():
    logits = torch.zeros(0, requires_grad=True)
    importance = FocalImportance(logits, torch.zeros(0, 4, dtype=torch.int32), 1, 2)
    loss = focal_importance_loss(importance, [torch.zeros(0, 9)] * 2, GRID)
    loss.backward()
    assert loss == 0


def test_the_loss_teaches_the_layer_which_voxels_matter():
    torch.manual_seed(0)
    cells = random_coordinates(GRID.shape, 1, 0.3, 4)
    boxes = [random_boxes(3, 5)]
    target = voxels_in_boxes(cells, boxes, GRID, 1, 1)
    features = torch.cat([target[:, None].float(), torch.rand(len(cells), 2)], 1)
    x = SparseTensor(features, cells, GRID.shape, 1)
    layer = FocalConv3d(3, 2)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(60):
        loss = focal_importance_loss(layer(x)[1], boxes, GRID)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.01
    assert torch.equal(layer(x)[1].logits > 0, target)


def test_another_number_of_frames_is_refused():
    importance = FocalImportance(torch.zeros(1), torch.zeros(1, 4, dtype=torch.int32), 1, 2)
    with pytest.raises(ValueError, match="boxes of 1 frames for a batch of 2"):
        focal_importance_loss(importance, [torch.zeros(0, 7)], GRID)
