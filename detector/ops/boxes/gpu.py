"""Starts the kernels of `boxes.cu`: float64 inside, as on a CPU."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from detector.ops.cuda_runtime import Kernel

SOURCE = Path(__file__).with_name("boxes.cu")
THREADS = 128

_overlap = Kernel(SOURCE, "overlap", "PiiPiiiP")
_suppressions = Kernel(SOURCE, "suppressions", "PiPPidPi")
_find_directions = Kernel(SOURCE, "find_directions", "PiiP")
_points_inside = Kernel(SOURCE, "points_inside", "PiiPiPiPP")


def _blocks(items: int) -> int:
    return -(-items // THREADS)


def iou(a: Tensor, b: Tensor, volume: bool) -> Tensor:
    """(N, M) float64."""
    a, b = a.detach().double().contiguous(), b.detach().double().contiguous()
    out = a.new_empty(len(a), len(b))
    if out.numel():
        _overlap(
            (_blocks(out.numel()),), THREADS, a, a.shape[1], len(a), b, b.shape[1], len(b),
            int(volume), out, device=a.get_device(),
        )  # fmt: skip
    return out


def kept_in_order(
    boxes: Tensor, order: Tensor, iou_threshold: float, labels: Tensor | None = None,
    skip: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Whether the box at each place in `order` (N,) survives; waits for nothing.

    Args:
        labels: (N,) int64 by box; boxes of different labels leave one another alone.
        skip: (N,) bool by place; such boxes are dropped and drop no other.
    """
    boxes = boxes.detach().double().contiguous()
    count, device = len(order), boxes.get_device()
    keep = torch.empty(count, dtype=torch.bool, device=boxes.device)
    if count:
        words = -(-count // 64)
        suppressed_by = torch.empty(count, words, dtype=torch.int64, device=boxes.device)
        _suppressions(
            (_blocks(64 * words), count), THREADS, boxes, boxes.shape[1], order, labels, count,
            float(iou_threshold), suppressed_by, words, device=device,
        )  # fmt: skip
        _walk(words)((1,), 32, suppressed_by, words, count, skip, keep, device=device)
    return keep


def kept_apart(
    boxes: Tensor, order: Tensor, radius_m: Tensor, labels: Tensor, skip: Tensor
) -> Tensor:
    """As `kept_in_order`, where it is not overlap but a centre within the better box's radius,
    seen from above, that drops a box of its label.

    Args:
        radius_m: (N,) float64 by box.
    """
    count = len(order)
    keep = torch.empty(count, dtype=torch.bool, device=boxes.device)
    if count:
        place, label = boxes[order, :2].double(), labels[order]
        distance = torch.cdist(place, place, compute_mode="donot_use_mm_for_euclid_dist")
        near = (distance < radius_m[order][:, None]) & (label[:, None] == label)
        words = -(-count // 64)
        near = functional.pad(near.triu(1), (0, 64 * words - count)).view(count, words, 64)
        bit = torch.arange(64, device=boxes.device)
        suppressed_by = (near.long() << bit).sum(2)  # distinct bits: their sum is their union
        _walk(words)((1,), 32, suppressed_by, words, count, skip, keep, device=boxes.get_device())
    return keep


@functools.cache
def _walk(words: int) -> Kernel:
    return Kernel(SOURCE, "walk", "PiiPP", None, 8 * words)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices kept, best score first."""
    scores = scores.detach().double()
    # Negated and rising, as on a CPU, so that NaN comes last.
    order = torch.argsort(-scores, stable=True)
    return order[kept_in_order(boxes, order, iou_threshold)]


def points_in_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    """(P, N) bool."""
    inside = torch.empty(len(points), len(boxes), dtype=torch.bool, device=points.device)
    _points(points, boxes, inside, None)
    return inside


def box_of_point(points: Tensor, boxes: Tensor) -> Tensor:
    """(P,) int64, -1 where no box contains the point."""
    first = torch.full((len(points),), -1, dtype=torch.int64, device=points.device)
    _points(points, boxes, None, first)
    return first


def _points(points: Tensor, boxes: Tensor, inside: Tensor | None, first: Tensor | None) -> None:
    if not len(points) or not len(boxes):
        return
    points, boxes = points.detach().double().contiguous(), boxes.detach().double().contiguous()
    directions = boxes.new_empty(len(boxes), 2)
    device = boxes.get_device()
    _find_directions(
        (_blocks(len(boxes)),), THREADS, boxes, boxes.shape[1], len(boxes), directions,
        device=device,
    )  # fmt: skip
    _points_inside(
        (_blocks(len(points)),), THREADS, points, points.shape[1], len(points), boxes,
        boxes.shape[1], directions, len(boxes), inside, first, device=device,
    )  # fmt: skip
