"""The loss that teaches a focal convolution which voxels matter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor
from torch.nn import functional

from detector.geometry import VoxelGrid
from detector.ops.boxes import box_of_point
from detector.records import frame_of_rows
from detector.sparse.focal import FocalImportance


def focal_importance_loss(
    importance: FocalImportance, boxes: Sequence[Float[Tensor, "N 7|9"]], grid: VoxelGrid,
    labelled: Bool[Tensor, "B K"] | None = None,
) -> Float[Tensor, ""]:
    """Sigmoid focal loss (gamma 2, unweighted), averaged over all voxels of the batch.

    The target of a voxel is whether its centre lies inside a true box, turned boxes as they are.
    It is 0, and still has a gradient, where there are no voxels.

    Args:
        boxes: true boxes of each frame, (x, y, z, l, w, h, yaw, ...).
        grid: the grid that the points were voxelized with.
        labelled: frames in which a class is not labelled don't count.

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
    loss = torch.sigmoid(-agreement).square() * functional.softplus(-agreement)
    if labelled is None:
        return loss.mean()
    counts = labelled.all(1)[importance.coordinates[:, 0].long()]
    return torch.where(counts, loss, 0.0).sum() / counts.sum().clamp(min=1)


def voxels_in_boxes(
    coordinates: Int32[Tensor, "V 4"],
    boxes: Sequence[Float[Tensor, "N 7|9"]],
    grid: VoxelGrid,
    stride: int,
    batch_size: int,
) -> Bool[Tensor, " V"]:
    """True where the centre of voxel (batch, z, y, x) lies in a box of its frame.

    Frames are set apart along z and looked at together, so that nothing has to wait for the number
    of voxels that each has.
    """
    if len(boxes) != batch_size:
        raise ValueError(f"got boxes of {len(boxes)} frames for a batch of {batch_size}")
    centers = grid.centers(coordinates[:, 1:], stride).double()                # (V, 3)
    centers[:, 2] += APART_M * coordinates[:, 0]
    all_boxes = torch.cat([of_frame[:, :7] for of_frame in boxes]).to(centers)
    frame = frame_of_rows([len(of_frame) for of_frame in boxes])
    all_boxes[:, 2] += APART_M * frame.to(centers, non_blocking=True)
    return box_of_point(centers, all_boxes) >= 0


APART_M = 2.0**16
"""Farther than any grid or box is high; float64 then still tells nanometres apart."""
