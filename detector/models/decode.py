"""From a centre head's maps to boxes.

`decode_task` gives a fixed number of candidates whatever the maps hold, so it never waits for a
GPU; `keep_best` then drops the weak and the doubled ones, and its result's size depends on values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from detector.geometry import wrap_angle
from detector.models.targets import BEVGrid
from detector.ops.boxes import nms
from detector.records import Detections

# Logarithms of sizes are kept within these bounds: 7 mm to 148 m.
MAX_LOG_SIZE = 5.0


@dataclass(frozen=True)
class Candidates:
    """The K best-scored cells of each frame, before thresholds and suppression."""

    boxes: Float[Tensor, "B K 7|9"]
    scores: Float[Tensor, "B K"]
    labels: Int64[Tensor, "B K"]

    @classmethod
    def joined(cls, parts: Sequence[Candidates]) -> Candidates:
        """Those of several tasks, side by side."""
        return cls(
            boxes=torch.cat([p.boxes for p in parts], 1),
            scores=torch.cat([p.scores for p in parts], 1),
            labels=torch.cat([p.labels for p in parts], 1),
        )


def encode_boxes(
    boxes: Float[Tensor, "N 7|9"], cells: Int64[Tensor, " N"], bev: BEVGrid
) -> Float[Tensor, "N 8|10"]:
    """What the head should regress at `cells` (indices into flattened (B, Y, X)) for `boxes`:
    offset from the cell's lower corner in cells (2), z, log l, w, h, sin and cos of yaw, then
    the velocity where there is one."""
    offset = bev.to_cells(boxes[:, :2]) - _corner(cells, bev)
    return torch.cat(
        [
            offset, boxes[:, 2:3], boxes[:, 3:6].log(),
            boxes[:, 6:7].sin(), boxes[:, 6:7].cos(), boxes[:, 7:9],
        ],
        1,
    )  # fmt: skip


def decode_boxes(
    rows: Float[Tensor, "N 8|10"], cells: Int64[Tensor, " N"], bev: BEVGrid
) -> Float[Tensor, "N 7|9"]:
    """The inverse of `encode_boxes`, in float32."""
    rows = rows.float()
    centre = bev.to_metres(rows[:, :2] + _corner(cells, bev))
    size = rows[:, 3:6].clamp(-MAX_LOG_SIZE, MAX_LOG_SIZE).exp()
    yaw = wrap_angle(torch.atan2(rows[:, 6:7], rows[:, 7:8]))
    return torch.cat([centre, rows[:, 2:3], size, yaw, rows[:, 8:10]], 1)


def _corner(cells: Int64[Tensor, " N"], bev: BEVGrid) -> Float[Tensor, "N 2"]:
    rows, columns = bev.shape
    return torch.stack([cells % columns, cells // columns % rows], 1).float()


def decode_task(
    heatmap: Float[Tensor, "B K Y X"],
    regression: Float[Tensor, "B D Y X"],
    quality: Float[Tensor, "B 1 Y X"] | None,
    classes: Int64[Tensor, " K"],
    bev: BEVGrid,
    *,
    candidates: int,
    quality_weight: float,
) -> Candidates:
    """The best `candidates` peaks of each frame.

    A peak is a cell that no neighbour of its class exceeds. With a predicted quality the score is
    heatmap^(1 - quality_weight) * IoU^quality_weight.
    """
    scores = heatmap.float().sigmoid()
    peak = F.max_pool2d(scores, 3, stride=1, padding=1) == scores
    if quality is not None:
        iou = ((quality.float() + 1) / 2).clamp(0, 1)
        scores = scores ** (1 - quality_weight) * iou**quality_weight
    scores = torch.where(peak, scores, 0.0)
    frames, _, rows, columns = scores.shape
    best, index = scores.flatten(1).topk(min(candidates, scores[0].numel()))   # (B, K)
    cell = index % (rows * columns)
    frame = torch.arange(frames, device=cell.device)[:, None]
    flat = (frame * rows * columns + cell).reshape(-1)
    values = rows_at(regression, flat)
    boxes = decode_boxes(values, flat, bev)
    return Candidates(
        boxes=boxes.view(frames, -1, boxes.shape[1]),
        scores=best,
        labels=classes[index // (rows * columns)],
    )


def rows_at(maps: Float[Tensor, "B D Y X"], cells: Int64[Tensor, " N"]) -> Float[Tensor, "N D"]:
    """Values of a map at cells of its flattened (B, Y, X)."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])[cells]


def keep_best(
    candidates: Candidates,
    frame_ids: Sequence[str],
    *,
    score_threshold: float,
    nms_iou: float,
    max_detections: int,
    nms_radius_m: Sequence[float] | None = None,
) -> list[Detections]:
    """Detections of each frame: scores of at least `score_threshold`, none of which overlaps a
    better one of its class by more than `nms_iou` in the bird's-eye view, best first. With
    `nms_radius_m`, one number a class, it is nearness of the centres that counts instead."""
    result = []
    for frame_id, boxes, scores, labels in zip(
        frame_ids, candidates.boxes, candidates.scores, candidates.labels, strict=True
    ):
        strong = (scores >= score_threshold) & (scores > 0) & boxes.isfinite().all(1)
        boxes, scores, labels = boxes[strong], scores[strong], labels[strong]
        if nms_radius_m is None:
            kept = class_aware_nms(boxes, scores, labels, nms_iou)
        else:
            kept = circle_nms(boxes, scores, labels, nms_radius_m)
        kept = kept[:max_detections]
        result.append(Detections(frame_id, boxes[kept], scores[kept], labels[kept]))
    return result


def class_aware_nms(
    boxes: Float[Tensor, "N 7|9"], scores: Float[Tensor, " N"], labels: Int64[Tensor, " N"],
    iou_threshold: float,
) -> Int64[Tensor, " K"]:  # fmt: skip
    """`nms` among boxes of one class only, best score first.

    The classes are moved apart so far that no two boxes of different classes can meet; one call
    then serves all.
    """
    if len(boxes) == 0:
        return labels
    apart = boxes[:, :7].double().clone()
    reach = apart[:, :2].abs().max() + apart[:, 3:5].max()
    apart[:, 0] += labels * (3 * reach + 1)
    return nms(apart, scores, iou_threshold)


def circle_nms(
    boxes: Float[Tensor, "N 7|9"], scores: Float[Tensor, " N"], labels: Int64[Tensor, " N"],
    radius_m: Sequence[float],
) -> Int64[Tensor, " K"]:  # fmt: skip
    """Kept rows, best score first: none has its centre, seen from above, within its class's radius
    of a better one of the class. Ties keep the lower row. For objects that nearly touch, and
    cheaper than overlaps."""
    order = torch.argsort(scores, descending=True, stable=True)
    place, label = boxes[order, :2].double(), labels[order]
    radius = torch.tensor(radius_m, dtype=torch.float64, device=boxes.device)[label]
    near = torch.cdist(place, place, compute_mode="donot_use_mm_for_euclid_dist") < radius[:, None]
    near = (near & (label[:, None] == label)).cpu()
    free = torch.ones(len(order), dtype=torch.bool)
    kept = []
    for row in range(len(order)):
        if free[row]:
            kept.append(row)
            free &= ~near[row]
    return order[torch.tensor(kept, dtype=torch.int64, device=order.device)]
