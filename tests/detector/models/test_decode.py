"""Decoding: the inverse of the targets, peaks, scores, and suppression within a class."""

import math

import pytest
import torch

from detector.geometry import VoxelGrid
from detector.models.decode import (
    Candidates,
    circle_nms,
    class_aware_nms,
    decode_boxes,
    decode_task,
    encode_boxes,
    keep_best,
)
from detector.models.targets import BEVGrid, TrueBoxes, assign_centers

GRID = VoxelGrid((0, -8, -3, 16, 8, 1), (0.1, 0.1, 0.2))
BEV = BEVGrid.of(GRID, 4, (40, 40))
CLASSES = torch.tensor([2, 0])


@pytest.mark.parametrize("columns", [7, 9])
def test_decoding_undoes_encoding(columns):
    torch.manual_seed(0)
    boxes = torch.rand(50, columns) * 5 + 0.5
    boxes[:, 6] = torch.linspace(1e-3 - math.pi, math.pi - 1e-3, 50)
    cells = torch.randint(0, 3 * 40 * 40, (50,))
    found = decode_boxes(encode_boxes(boxes, cells, BEV), cells, BEV)
    torch.testing.assert_close(found, boxes, rtol=1e-4, atol=1e-4)


def perfect_maps(boxes, labels):
    """Maps that say exactly what the targets ask for."""
    targets = assign_centers(TrueBoxes.of([boxes], [labels]), (2, 0), BEV)
    regression = torch.zeros(1, 8, 40, 40)
    flat = regression.view(8, -1)
    flat[:, targets.cells] = encode_boxes(targets.boxes, targets.cells, BEV).T
    return torch.logit(targets.heatmap.clamp(1e-4, 0.9)), regression


def test_perfect_maps_give_the_true_boxes_back():
    boxes = torch.tensor([[4.0, 0.5, -1, 4, 2, 1.5, 0.3], [12.1, -5, -1, 0.8, 0.6, 1.7, -2]])
    labels = torch.tensor([0, 2])
    heatmap, regression = perfect_maps(boxes, labels)
    candidates = decode_task(
        heatmap, regression, None, CLASSES, BEV, candidates=50, quality_weight=0
    )
    assert candidates.boxes.shape == (1, 50, 7)
    (found,) = keep_best(
        candidates, ["a"], score_threshold=0.5, nms_iou=0.2, max_detections=10
    )
    order = found.labels.argsort()
    torch.testing.assert_close(found.boxes[order], boxes, rtol=1e-4, atol=1e-4)
    assert found.labels[order].tolist() == [0, 2]
    assert found.frame_id == "a"


def test_predicted_quality_weighs_the_score():
    heatmap, regression = perfect_maps(
        torch.tensor([[4.0, 0.5, -1, 4, 2, 1.5, 0.3]]), torch.tensor([0])
    )
    quality = torch.full((1, 1, 40, 40), 2 * 0.64 - 1)
    candidates = decode_task(
        heatmap, regression, quality, CLASSES, BEV, candidates=3, quality_weight=0.5
    )
    assert candidates.scores[0, 0].item() == pytest.approx(math.sqrt(0.9 * 0.64), rel=1e-4)


def test_nothing_above_the_threshold_gives_no_detections():
    maps = torch.full((2, 2, 40, 40), -9.0), torch.zeros(2, 8, 40, 40)
    candidates = decode_task(*maps, None, CLASSES, BEV, candidates=5, quality_weight=0)
    found = keep_best(
        candidates, ["a", "b"], score_threshold=0.1, nms_iou=0.2, max_detections=10
    )
    assert [len(d) for d in found] == [0, 0]
    assert found[1].boxes.shape == (0, 7) and found[1].labels.dtype == torch.int64


def test_boxes_suppress_only_their_own_class():
    box = torch.tensor([10.0, 0, 0, 4, 2, 1.5, 0])
    boxes = torch.stack([box, box, box + torch.tensor([0.2, 0, 0, 0, 0, 0, 0])])
    scores, labels = torch.tensor([0.5, 0.9, 0.7]), torch.tensor([0, 1, 1])
    assert class_aware_nms(boxes, scores, labels, 0.2).tolist() == [1, 0]


def test_best_detections_come_first_and_are_limited():
    boxes = torch.tensor([[x, 0.0, 0, 1, 1, 1, 0] for x in (0, 5, 10)])[None]
    scores = torch.tensor([[0.2, 0.9, 0.5]])
    candidates = Candidates(boxes, scores, torch.zeros(1, 3, dtype=torch.int64))
    (found,) = keep_best(candidates, ["a"], score_threshold=0.1, nms_iou=0.2, max_detections=2)
    assert found.scores.tolist() == pytest.approx([0.9, 0.5])


def test_circle_suppression_looks_at_centres_of_one_class():
    boxes = torch.zeros(6, 9)
    boxes[:, 3:6] = 1
    boxes[:, 0] = torch.tensor([0.0, 0.9, 1.8, 0.1, 5.0, 5.0])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.5])
    labels = torch.tensor([0, 0, 0, 1, 0, 0])
    kept = circle_nms(boxes, scores, labels, (1.0, 0.1))
    assert kept.tolist() == [0, 2, 3, 4]
    assert circle_nms(boxes, scores, labels, (0.0, 0.0)).tolist() == [0, 1, 2, 3, 4, 5]
    assert circle_nms(boxes[:0], scores[:0], labels[:0], (1.0, 1.0)).tolist() == []


def test_a_radius_replaces_the_overlap():
    boxes = torch.zeros(1, 2, 9)
    boxes[..., 3:6] = 1
    boxes[0, 1, 0] = 2
    candidates = Candidates(boxes, torch.tensor([[0.9, 0.8]]), torch.zeros(1, 2, dtype=torch.int64))
    options = dict(score_threshold=0.1, nms_iou=0.2, max_detections=10)
    assert len(keep_best(candidates, ["a"], **options)[0]) == 2
    assert len(keep_best(candidates, ["a"], **options, nms_radius_m=(3.0,))[0]) == 1
