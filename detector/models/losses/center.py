"""Losses of a centre head. All are computed in float32 and keep their shape whatever is valid, so
that nothing waits for a GPU; a batch without a true box gives 0 where it must, never NaN."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def gaussian_focal_loss(
    logits: Float[Tensor, "B K Y X"], target: Float[Tensor, "B K Y X"],
    labelled: Bool[Tensor, "B K"] | None = None, alpha: float = 2.0, beta: float = 4.0,
) -> Float[Tensor, ""]:  # fmt: skip
    """Focal loss for heatmaps, divided by the number of peaks (at least one).

    Cells where the target is 1 are positive; the others count as negative with the weight
    (1 - target)^beta. Law, Deng: "CornerNet", ECCV 2018, equation 1. Computed from logits, so
    that no probability has to be clamped.

    Args:
        labelled: where it is False, cells that are no peak don't count: there may be an object
            that has no label.
    """
    logits, target = logits.float(), target.float()
    probability = logits.sigmoid()
    positive = (target == 1).float()
    at_peak = (1 - probability) ** alpha * F.logsigmoid(logits) * positive
    elsewhere = probability**alpha * F.logsigmoid(-logits) * (1 - target) ** beta
    if labelled is not None:
        elsewhere = elsewhere * labelled[..., None, None]
    return -(at_peak + elsewhere).sum() / positive.sum().clamp(min=1)


def center_l1_loss(
    predicted: Float[Tensor, "N C"], target: Float[Tensor, "N C"], valid: Bool[Tensor, " N"],
    weights: Float[Tensor, " C"] | None = None,
) -> Float[Tensor, ""]:  # fmt: skip
    """Absolute differences summed over columns, averaged over valid rows; 0 where there is none.

    A target that is NaN (an unknown velocity) counts as met.
    """
    known = valid[:, None] & ~target.isnan()
    difference = (predicted.float() - torch.where(known, target.float(), 0.0)).abs()
    difference = torch.where(known, difference, 0.0)
    if weights is not None:
        difference = difference * weights
    return difference.sum() / valid.sum().clamp(min=1)


def decoupled_diou_loss(
    predicted: Float[Tensor, "N 7+"], target: Float[Tensor, "N 7+"], valid: Bool[Tensor, " N"]
) -> Float[Tensor, ""]:
    """1 - IoU + centre distance, of boxes that are taken to have the target's heading.

    Both boxes are turned into the target's own frame and compared as axis-aligned ones, which is
    smooth and exact wherever the heading is right; the heading itself is learnt by its own term.
    The distance term is that of Zheng et al.: "Distance-IoU Loss", AAAI 2020. Rows average as in
    `center_l1_loss`.
    """
    predicted, target = predicted.float(), target.float()
    delta = predicted[:, :3] - target[:, :3]
    cos, sin = target[:, 6].cos(), target[:, 6].sin()
    offset = torch.stack(
        [delta[:, 0] * cos + delta[:, 1] * sin, delta[:, 1] * cos - delta[:, 0] * sin, delta[:, 2]],
        1,
    )                                                                       # (N, 3)
    half_p, half_t = predicted[:, 3:6] / 2, target[:, 3:6] / 2
    high = torch.minimum(offset + half_p, half_t)
    low = torch.maximum(offset - half_p, -half_t)
    overlap = _product((high - low).clamp(min=0))
    union = _product(predicted[:, 3:6]) + _product(target[:, 3:6]) - overlap
    hull = torch.maximum(offset + half_p, half_t) - torch.minimum(offset - half_p, -half_t)
    distance = (offset**2).sum(1) / (hull**2).sum(1).clamp(min=1e-6)
    loss = 1 - overlap / union.clamp(min=1e-6) + distance
    return torch.where(valid, loss, 0.0).sum() / valid.sum().clamp(min=1)


def corner_loss(
    predicted: Float[Tensor, "N 7+"], heading: Float[Tensor, "N 2"],
    target: Float[Tensor, "N 7+"], valid: Bool[Tensor, " N"],
) -> Float[Tensor, ""]:  # fmt: skip
    """Mean distance of the corners seen from above, and of the upper and lower faces, metres.

    It turns a box by as much as that moves its corners, and never averages two headings: half way
    between two opposite ones its corners are farther off than at either. Differences of sine and
    cosine alone are the same all the way. Rows average as in `center_l1_loss`. After the corner
    loss of Qi et al.: "Frustum PointNets", CVPR 2018, equation 3.

    Args:
        predicted: boxes, whose yaw is not looked at.
        heading: sine and cosine of their yaw, of any length.
    """
    predicted, target, heading = predicted.float(), target.float(), heading.float()
    # Short ones are left short, so that their gradients stay bounded.
    heading = heading / heading.norm(dim=1, keepdim=True).clamp(min=0.1)
    true_heading = torch.stack([target[:, 6].sin(), target[:, 6].cos()], 1)
    shift = predicted[:, :2] - target[:, :2]
    errors = []
    for ours, theirs in zip(
        _half_diagonals(predicted, heading), _half_diagonals(target, true_heading), strict=True
    ):
        errors += [shift + (ours - theirs), shift - (ours - theirs)]
    squared = torch.stack(errors, 1).square().sum(2)                        # (N, 4)
    distance = squared.clamp(min=1e-12).sqrt().mean(1)
    rise, growth = predicted[:, 2] - target[:, 2], (predicted[:, 5] - target[:, 5]) / 2
    distance = distance + ((rise + growth).abs() + (rise - growth).abs()) / 2
    return torch.where(valid, distance, 0.0).sum() / valid.sum().clamp(min=1)


def _half_diagonals(
    boxes: Float[Tensor, "N 7+"], heading: Float[Tensor, "N 2"]
) -> tuple[Float[Tensor, "N 2"], Float[Tensor, "N 2"]]:
    """From a box's centre to its front left and its front right corner."""
    sin, cos = heading.unbind(1)
    along = torch.stack([cos, sin], 1) * boxes[:, 3:4] / 2
    across = torch.stack([-sin, cos], 1) * boxes[:, 4:5] / 2
    return along + across, along - across


def _product(sizes: Float[Tensor, "N 3"]) -> Float[Tensor, " N"]:
    """`sizes.prod(1)`, whose gradient would wait for a GPU to say whether there is a 0."""
    return sizes[:, 0] * sizes[:, 1] * sizes[:, 2]


def iou_prediction_loss(
    predicted: Float[Tensor, " N"], iou: Float[Tensor, " N"], valid: Bool[Tensor, " N"]
) -> Float[Tensor, ""]:
    """Absolute difference of the predicted quality to 2 IoU - 1, averaged over valid rows."""
    difference = (predicted.float() - (2 * iou.float() - 1)).abs()
    return torch.where(valid, difference, 0.0).sum() / valid.sum().clamp(min=1)
