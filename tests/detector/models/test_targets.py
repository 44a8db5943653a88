"""Targets of a centre head, against a loop over boxes and cells."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.geometry import VoxelGrid
from detector.models.targets import BEVGrid, TrueBoxes, assign_centers, gaussian_radius

GRID = VoxelGrid((0, -8, -3, 16, 8, 1), (0.1, 0.1, 0.2))
BEV = BEVGrid.of(GRID, 8, (20, 20))


def heatmap_by_loop(boxes, labels, classes, bev, min_overlap=0.1, min_radius=2, max_radius=16):
    """Every cell's largest Gaussian, in float64 and with scalars."""
    rows, columns = bev.shape
    heatmap = np.zeros((len(classes), rows, columns))
    for box, label in zip(boxes.double().tolist(), labels.tolist(), strict=True):
        x = (box[0] - bev.minimum[0]) / bev.cell[0]
        y = (box[1] - bev.minimum[1]) / bev.cell[1]
        on_map = 0 <= x < columns and 0 <= y < rows
        if label not in classes or not on_map or min(box[3:6]) <= 0:
            continue
        radius = radius_by_search(box[3] / bev.cell[0], box[4] / bev.cell[1], min_overlap)
        radius = min(max(int(radius), min_radius), max_radius)
        sigma = (2 * radius + 1) / 6
        for row in range(rows):
            for column in range(columns):
                dx, dy = column - int(x), row - int(y)
                if max(abs(dx), abs(dy)) <= radius:
                    value = math.exp(-(dx * dx + dy * dy) / (2 * sigma * sigma))
                    k = classes.index(label)
                    heatmap[k, row, column] = max(heatmap[k, row, column], value)
    return heatmap


def radius_by_search(length, width, min_overlap):
    """Largest shift of the corners that keeps the overlap in all three cases, by bisection."""

    def worst(r):
        area = length * width
        shifted = max(length - r, 0) * max(width - r, 0)
        return min(
            shifted / (2 * area - shifted),
            max(length - 2 * r, 0) * max(width - 2 * r, 0) / area,
            area / ((length + 2 * r) * (width + 2 * r)),
        )

    low, high = 0.0, length + width
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if worst(middle) >= min_overlap else (low, middle)
    return low


@settings(max_examples=50, deadline=None)
@given(st.floats(0.5, 60), st.floats(0.5, 60), st.floats(0.05, 0.9))
def test_radius_is_the_largest_shift_that_keeps_the_overlap(length, width, overlap):
    found = gaussian_radius(
        torch.tensor([length]).double(), torch.tensor([width]).double(), overlap
    )
    assert found.item() == pytest.approx(radius_by_search(length, width, overlap), abs=1e-6)


def random_boxes(count, seed):
    g = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 7, generator=g)
    boxes[:, 0] = boxes[:, 0] * 20 - 2
    boxes[:, 1] = boxes[:, 1] * 20 - 10
    boxes[:, 3:6] = boxes[:, 3:6] * 6 + 0.2
    boxes[:, 6] = boxes[:, 6] * 6 - 3
    return boxes, torch.randint(0, 3, (count,), generator=g)


def test_heatmap_matches_the_loop_over_boxes_and_cells():
    boxes, labels = zip(*(random_boxes(12, seed) for seed in range(3)), strict=True)
    targets = assign_centers(TrueBoxes.of(boxes, labels), (2, 0), BEV)
    for frame in range(3):
        expected = heatmap_by_loop(boxes[frame], labels[frame], (2, 0), BEV)
        np.testing.assert_allclose(targets.heatmap[frame].numpy(), expected, atol=1e-6)


def test_boxes_outside_the_map_or_without_size_do_not_count():
    boxes = torch.tensor([
        [8.0, 0.0, 0, 4, 2, 1.5, 0],
        [-0.01, 0.0, 0, 4, 2, 1.5, 0],
        [16.0, 0.0, 0, 4, 2, 1.5, 0],
        [8.0, 0.0, 0, 4, 0, 1.5, 0],
        [8.0, 0.0, 0, -4, 2, 1.5, 0],
        [float("nan"), 0.0, 0, 4, 2, 1.5, 0],
    ])  # fmt: skip
    targets = assign_centers(TrueBoxes.of([boxes], [torch.zeros(6, dtype=torch.int64)]), (0,), BEV)
    assert targets.valid.tolist() == [True] + [False] * 5
    assert (targets.heatmap == 1).sum() == 1
    assert targets.boxes.isfinite().all()


def test_labels_of_other_tasks_and_unknown_ones_do_not_count():
    boxes = torch.tensor([[8.0, 0, 0, 4, 2, 1.5, 0]]).repeat(4, 1)
    targets = assign_centers(TrueBoxes.of([boxes], [torch.tensor([1, 0, 7, -1])]), (1,), BEV)
    assert targets.valid.tolist() == [True, False, False, False]


def test_first_and_last_cell_of_the_map_can_hold_a_centre():
    boxes = torch.tensor([[0.0, -8, 0, 1, 1, 1, 0], [15.99, 7.99, 0, 1, 1, 1, 0]])
    targets = assign_centers(TrueBoxes.of([boxes], [torch.zeros(2, dtype=torch.int64)]), (0,), BEV)
    assert targets.heatmap[0, 0, 0, 0] == 1
    assert targets.heatmap[0, 0, -1, -1] == 1
    assert targets.cells.tolist() == [0, 399]


def test_frames_without_boxes_are_legal_anywhere_in_the_batch():
    none, no_label = torch.zeros(0, 7), torch.zeros(0, dtype=torch.int64)
    one, label = torch.tensor([[8.0, 0, 0, 4, 2, 1.5, 0]]), torch.tensor([0])
    true = TrueBoxes.of([none, one, none], [no_label, label, no_label])
    targets = assign_centers(true, (0,), BEV)
    assert targets.heatmap.flatten(1).amax(1).tolist() == [0, 1, 0]
    assert targets.cells.tolist() == [400 + 10 * 20 + 10]
    empty = assign_centers(TrueBoxes.of([none], [no_label]), (0, 1), BEV)
    assert empty.heatmap.shape == (1, 2, 20, 20) and len(empty.cells) == 0


def test_neighbours_regress_the_same_box_and_stop_at_the_edge():
    boxes = torch.tensor([[0.1, -7.9, 0, 1, 1, 1, 0]])
    targets = assign_centers(TrueBoxes.of([boxes], [torch.tensor([0])]), (0,), BEV, neighbours=1)
    assert len(targets.cells) == 9
    assert sorted(targets.cells[targets.valid].tolist()) == [0, 1, 20, 21]
    assert (targets.boxes == boxes).all()


def test_a_box_of_unknown_velocity_counts():
    boxes = torch.tensor([[8.0, 0, 0, 4, 2, 1.5, 0, math.nan, math.nan]])
    targets = assign_centers(TrueBoxes.of([boxes], [torch.tensor([0])]), (0,), BEV)
    assert targets.valid.all() and targets.heatmap.max() == 1
    broken = boxes.clone()
    broken[0, 6] = math.nan
    assert not assign_centers(TrueBoxes.of([broken], [torch.tensor([0])]), (0,), BEV).valid.any()


def test_rows_that_do_not_count_change_nothing():
    true = TrueBoxes.of(*zip(random_boxes(5, 0), random_boxes(3, 1), strict=True))
    room = torch.zeros(4, true.boxes.shape[1])
    nothing = torch.full((4,), -1)
    padded = TrueBoxes(
        torch.cat([true.boxes, room]), torch.cat([true.labels, nothing]),
        torch.cat([true.frames, torch.zeros_like(nothing)]), 2,
    )  # fmt: skip
    found, wanted = (assign_centers(t, (0, 1, 2), BEV, neighbours=1) for t in (padded, true))
    assert torch.equal(found.heatmap, wanted.heatmap)
    assert not found.valid[len(wanted.valid) :].any()
    for name in ("cells", "boxes", "valid"):
        assert torch.equal(getattr(found, name)[: len(wanted.valid)], getattr(wanted, name))
