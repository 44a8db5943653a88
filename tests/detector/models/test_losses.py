"""Losses of a centre head on cases worked by hand."""

import math

import pytest
import torch

from detector.geometry import box_corners
from detector.models.losses import (
    center_l1_loss,
    corner_loss,
    decoupled_diou_loss,
    gaussian_focal_loss,
    iou_prediction_loss,
)

CAR = torch.tensor([[10.0, 2.0, -1.0, 4.0, 2.0, 1.5, 0.7]])
YES = torch.tensor([True])


def test_focal_loss_of_one_peak_and_one_background_cell():
    p, q = 0.3, 0.2
    logits = torch.logit(torch.tensor([p, q])).view(1, 1, 1, 2)
    target = torch.tensor([1.0, 0.5]).view(1, 1, 1, 2)
    expected = -((1 - p) ** 2 * math.log(p) + 0.5**4 * q**2 * math.log(1 - q))
    assert gaussian_focal_loss(logits, target).item() == pytest.approx(expected, rel=1e-5)


def test_focal_loss_is_finite_for_extreme_logits_and_without_peaks():
    logits = torch.tensor([1e4, -1e4]).view(1, 1, 1, 2).requires_grad_()
    loss = gaussian_focal_loss(logits, torch.tensor([0.0, 1.0]).view(1, 1, 1, 2))
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()
    assert gaussian_focal_loss(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)).isfinite()


def test_l1_averages_over_valid_rows_and_skips_unknown_velocities():
    predicted = torch.tensor([[1.0, 2.0], [5.0, 5.0], [0.0, 0.0]])
    target = torch.tensor([[0.0, math.nan], [5.0, 3.0], [9.0, 9.0]])
    valid = torch.tensor([True, True, False])
    assert center_l1_loss(predicted, target, valid).item() == pytest.approx((1 + 2) / 2)
    weighted = center_l1_loss(predicted, target, valid, torch.tensor([2.0, 0.5]))
    assert weighted.item() == pytest.approx((2 + 1) / 2)


def test_losses_without_valid_rows_are_zero_with_zero_gradient():
    predicted = torch.randn(3, 7, requires_grad=True)
    none = torch.zeros(3, dtype=torch.bool)
    for loss in (
        center_l1_loss(predicted, torch.randn(3, 7), none),
        decoupled_diou_loss(predicted, CAR.repeat(3, 1), none),
        corner_loss(predicted, predicted[:, :2], CAR.repeat(3, 1), none),
        iou_prediction_loss(predicted[:, 0], torch.rand(3), none),
    ):
        assert loss.item() == 0
        (gradient,) = torch.autograd.grad(loss, predicted, allow_unused=True)
        assert gradient is None or (gradient == 0).all()


def test_diou_is_zero_for_the_same_box_and_exact_for_a_shift_along_the_heading():
    assert decoupled_diou_loss(CAR, CAR, YES).item() == pytest.approx(0, abs=1e-6)
    along = CAR.clone()
    along[0, 0] += math.cos(0.7)
    along[0, 1] += math.sin(0.7)
    # 1 of 4 metres: overlap 3, union 5; hull 5 x 2 x 1.5.
    expected = 1 - 3 / 5 + 1 / (25 + 4 + 2.25)
    assert decoupled_diou_loss(along, CAR, YES).item() == pytest.approx(expected, rel=1e-4)


def test_diou_pulls_apart_boxes_together():
    far = CAR.clone() + torch.tensor([[30.0, 0, 0, 0, 0, 0, 0]])
    far.requires_grad_()
    decoupled_diou_loss(far, CAR, YES).backward()
    assert far.grad[0, 0] > 0


def test_the_corner_loss_is_the_distance_of_the_boxes_corners():
    torch.manual_seed(0)
    boxes, true = torch.rand(20, 7) * 3 + 0.5, torch.rand(20, 7) * 3 + 0.5
    every = torch.ones(20, dtype=torch.bool)
    apart = box_corners(boxes) - box_corners(true)                          # (20, 8, 3)
    expected = apart[..., :2].norm(dim=2).mean() + apart[..., 2].abs().mean()
    heading = 2.5 * torch.stack([boxes[:, 6].sin(), boxes[:, 6].cos()], 1)
    found = corner_loss(boxes, heading, true, every)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    perfect = torch.stack([true[:, 6].sin(), true[:, 6].cos()], 1)
    assert corner_loss(true, perfect, true, every).item() == pytest.approx(0, abs=1e-5)


def test_headings_that_may_be_either_settle_on_one():
    true = CAR.repeat(2, 1)
    true[1, 6] -= math.pi
    valid = torch.ones(2, dtype=torch.bool)
    heading = torch.tensor([0.4, -0.2], requires_grad=True)                  # across
    optimizer = torch.optim.SGD([heading], lr=0.02)
    for _ in range(400):
        optimizer.zero_grad()
        corner_loss(true, heading.expand(2, 2), true, valid).backward()
        optimizer.step()
    angle = math.atan2(*heading.tolist()) % math.pi
    assert angle == pytest.approx(0.7, abs=0.05)


def test_quality_target_is_twice_the_iou_less_one():
    loss = iou_prediction_loss(torch.tensor([0.5]), torch.tensor([0.8]), YES)
    assert loss.item() == pytest.approx(0.1, rel=1e-5)
