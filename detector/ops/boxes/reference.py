"""What the kernels must compute, in plain torch and float64, any device; slow, memory-hungry."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def usable(boxes: Float[Tensor, "N 7+"]) -> Bool[Tensor, " N"]:
    """Boxes that take up space: seven finite numbers, positive sizes."""
    return boxes[:, :7].isfinite().all(1) & (boxes[:, 3:6] > 0).all(1)


def intersection_bev(
    a: Float[Tensor, "N 7+"], b: Float[Tensor, "M 7+"]
) -> Float[Tensor, "N M"]:
    """Area shared by the boxes' outlines seen from above.

    In the frame of box a, b's outline is pressed into the rectangle |x| <= l/2, |y| <= w/2:
    every edge is cut where it crosses a side, then all points are clamped. What was outside
    collapses onto the sides and encloses nothing, so the area left is the one shared.
    """
    a, b = a.double()[:, None], b.double()[None]                              # (N, 1, 7), (1, M, 7)
    cos, sin = a[..., 6].cos(), a[..., 6].sin()
    dx, dy = b[..., 0] - a[..., 0], b[..., 1] - a[..., 1]                     # (N, M)
    center = torch.stack([dx * cos + dy * sin, dy * cos - dx * sin], -1)      # (N, M, 2)
    turn = b[..., 6] - a[..., 6]
    along = torch.stack([turn.cos(), turn.sin()], -1) * b[..., 3, None] / 2
    across = torch.stack([-turn.sin(), turn.cos()], -1) * b[..., 4, None] / 2
    outline = torch.stack(
        [center + i * along + j * across for i, j in ((1, 1), (-1, 1), (-1, -1), (1, -1))], -2
    )                                                                         # (N, M, 4, 2)
    for axis in (0, 1):
        outline = _pressed(outline, axis, a[..., 3 + axis, None] / 2)         # 4, 12, 36 points
    area = _enclosed(outline)
    return torch.where(usable(a[:, 0])[:, None] & usable(b[0])[None], area.clamp(min=0), 0.0)


def _pressed(
    outline: Float[Tensor, "N M K 2"], axis: int, limit: Float[Tensor, "N M 1"]
) -> Float[Tensor, "N M 3K 2"]:
    """Each edge cut at -limit and +limit along one axis, then clamped between them."""
    step = outline.roll(-1, -2) - outline                                     # (N, M, K, 2)
    start, slope = outline[..., axis], step[..., axis]                        # (N, M, K)
    safe = torch.where(slope == 0, 1.0, slope)
    cuts = torch.stack([torch.zeros_like(start), (-limit - start) / safe, (limit - start) / safe])
    cuts = torch.where(slope == 0, 0.0, cuts.clamp(0, 1)).sort(0).values      # (3, N, M, K)
    points = outline + cuts[..., None] * step                                 # (3, N, M, K, 2)
    points = points.movedim(0, -2).flatten(-3, -2)                            # (N, M, 3K, 2)
    clamped = points[..., axis].clamp(-limit, limit)
    return torch.stack([clamped, points[..., 1]] if axis == 0 else [points[..., 0], clamped], -1)


def _enclosed(outline: Float[Tensor, "N M K 2"]) -> Float[Tensor, "N M"]:
    """Signed area by the shoelace formula, counter-clockwise positive."""
    following = outline.roll(-1, -2)
    return (outline[..., 0] * following[..., 1] - outline[..., 1] * following[..., 0]).sum(-1) / 2


def iou_bev(a: Float[Tensor, "N 7+"], b: Float[Tensor, "M 7+"]) -> Float[Tensor, "N M"]:
    """Intersection over union seen from above."""
    shared = intersection_bev(a, b)
    area_a, area_b = a[:, 3:5].double().prod(1), b[:, 3:5].double().prod(1)
    return _ratio(shared, area_a[:, None] + area_b[None])


def iou_3d(a: Float[Tensor, "N 7+"], b: Float[Tensor, "M 7+"]) -> Float[Tensor, "N M"]:
    """Intersection over union of volumes."""
    z = b.double()[None, :, 2] - a.double()[:, None, 2]                       # (N, M)
    half_a, half_b = a.double()[:, None, 5] / 2, b.double()[None, :, 5] / 2
    height = torch.minimum(half_a, z + half_b) - torch.maximum(-half_a, z - half_b)
    shared = intersection_bev(a, b) * height.clamp(min=0).nan_to_num(0, 0)
    volume_a, volume_b = a[:, 3:6].double().prod(1), b[:, 3:6].double().prod(1)
    return _ratio(shared, volume_a[:, None] + volume_b[None])


def _ratio(shared: Float[Tensor, "N M"], total: Float[Tensor, "N M"]) -> Float[Tensor, "N M"]:
    return torch.where(shared > 0, shared / (total - shared), 0.0).clamp(max=1.0)


def nms(
    boxes: Float[Tensor, "N 7+"], scores: Float[Tensor, " N"], iou_threshold: float
) -> Int64[Tensor, " K"]:
    """Indices kept, best score first."""
    order = scores.double().argsort(descending=True, stable=True)
    suppressed = iou_bev(boxes, boxes) > iou_threshold
    kept: list[int] = []
    for candidate in order.tolist():
        if not suppressed[kept, candidate].any():
            kept.append(candidate)
    return torch.tensor(kept, dtype=torch.int64, device=boxes.device)


def points_in_boxes(
    points: Float[Tensor, "P 3+"], boxes: Float[Tensor, "N 7+"]
) -> Bool[Tensor, "P N"]:
    """True where point p lies inside box n, faces included."""
    points, boxes = points.double(), boxes.double()
    offset = points[:, None, :3] - boxes[:, :3]                               # (P, N, 3)
    cos, sin = boxes[:, 6].cos(), boxes[:, 6].sin()                           # (N,)
    along = offset[..., 0] * cos + offset[..., 1] * sin                       # (P, N)
    across = offset[..., 1] * cos - offset[..., 0] * sin
    local = torch.stack([along, across, offset[..., 2]], -1)                  # (P, N, 3)
    return (local.abs() <= boxes[:, 3:6] / 2).all(-1) & usable(boxes)


def box_of_point(
    points: Float[Tensor, "P 3+"], boxes: Float[Tensor, "N 7+"]
) -> Int64[Tensor, " P"]:
    """Index of the first box that contains each point, or -1."""
    inside = points_in_boxes(points, boxes)                                   # (P, N)
    never = inside.new_ones(len(inside), 1)
    first = torch.cat([inside, never], 1).int().argmax(1)                     # N where none does
    return torch.where(first == inside.shape[1], -1, first)
