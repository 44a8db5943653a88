"""The loss that teaches a focal convolution which voxels matter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor
from torch.nn import functional

from detector.geometry import VoxelGrid
from detector.ops.boxes import box_of_point
from detector.sparse.focal import FocalImportance


def focal_importance_loss(
    importance: FocalImportance, boxes: Sequence[Float[Tensor, "N 7|9"]], grid: VoxelGrid
) -> Float[Tensor, ""]:
    """Sigmoid focal loss (gamma 2, unweighted), averaged over all voxels of the batch.

    The target of a voxel is whether its centre lies inside a true box, turned boxes as they are.
    It is 0, and still has a gradient, where there are no voxels.

    Args:
        boxes: true boxes of each frame, (x, y, z, l, w, h, yaw, ...).
        grid: the grid that the points were voxelized with.

    Raises:
        ValueError: another number of frames than the tensor has.
    """
    logits = importance.logits.float()
    if not len(logits):
        return logits.sum()
    inside = voxels_in_boxes(
        importance.coordinates, boxes, grid, importance.stride, importance.batch_size
    )
    agreement = torch.where(inside, logits, -logits)
    return (torch.sigmoid(-agreement).square() * functional.softplus(-agreement)).mean()


def voxels_in_boxes(
    coordinates: Int32[Tensor, "V 4"],
    boxes: Sequence[Float[Tensor, "N 7|9"]],
    grid: VoxelGrid,
    stride: int,
    batch_size: int,
) -> Bool[Tensor, " V"]:
    """True where the centre of voxel (batch, z, y, x), sorted, lies in a box of its frame."""
    if len(boxes) != batch_size:
        raise ValueError(f"got boxes of {len(boxes)} frames for a batch of {batch_size}")
    centers = grid.centers(coordinates[:, 1:], stride)                         # (V, 3)
    counts = torch.bincount(coordinates[:, 0], minlength=batch_size).tolist()
    return torch.cat(
        [
            box_of_point(of_frame, frame_boxes[:, :7].to(of_frame)) >= 0
            for of_frame, frame_boxes in zip(centers.split(counts), boxes, strict=True)
        ]
    )
