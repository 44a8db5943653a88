"""Losses of the detectors' parts, each a pure function of predictions and targets."""

from detector.models.losses.center import (
    center_l1_loss,
    corner_loss,
    decoupled_diou_loss,
    gaussian_focal_loss,
    iou_prediction_loss,
)
from detector.models.losses.importance import focal_importance_loss

__all__ = [
    "center_l1_loss",
    "corner_loss",
    "decoupled_diou_loss",
    "focal_importance_loss",
    "gaussian_focal_loss",
    "iou_prediction_loss",
]
