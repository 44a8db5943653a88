"""Boxes as tensors `(N, 7)` or `(N, 9)`; see `detector.geometry` for what the columns mean."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

# Signs of the eight corners along (l, w, h): the bottom face counter-clockwise from front left,
# then the top face in the same order.
CORNER_SIGNS = (
    (1, 1, -1), (-1, 1, -1), (-1, -1, -1), (1, -1, -1),
    (1, 1, 1), (-1, 1, 1), (-1, -1, 1), (1, -1, 1),
)  # fmt: skip


def wrap_angle(angle: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The same direction in [-pi, pi)."""
    wrapped = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
    # A tiny negative sum rounds up to the excluded end.
    return torch.where(wrapped >= math.pi, wrapped - 2 * math.pi, wrapped)


def box_corners(boxes: Float[Tensor, "N 7+"]) -> Float[Tensor, "N 8 3"]:
    """The eight corners: bottom face counter-clockwise from front left, then the top face."""
    local = boxes.new_tensor(CORNER_SIGNS) * boxes[:, None, 3:6] / 2          # (N, 8, 3)
    cos, sin = boxes[:, 6, None].cos(), boxes[:, 6, None].sin()               # (N, 1)
    x = local[..., 0] * cos - local[..., 1] * sin                             # (N, 8)
    y = local[..., 0] * sin + local[..., 1] * cos
    return torch.stack([x, y, local[..., 2]], -1) + boxes[:, None, :3]


def boxes_in_frame(
    target_from_source: Float[Tensor, "4 4"], boxes: Float[Tensor, "N 7|9"]
) -> Float[Tensor, "N 7|9"]:
    """Boxes moved by a transform that turns about z alone; velocities turn along."""
    rotation = target_from_source[:3, :3]
    turn = torch.atan2(rotation[1, 0], rotation[0, 0])
    parts = [
        boxes[:, :3] @ rotation.T + target_from_source[:3, 3],
        boxes[:, 3:6],
        wrap_angle(boxes[:, 6:7] + turn),
    ]
    if boxes.shape[1] == 9:
        parts.append(boxes[:, 7:9] @ rotation[:2, :2].T)
    return torch.cat(parts, 1)
