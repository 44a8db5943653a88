"""Radar alone: six sweeps of five radars in pillars of 0.5 m, within 50 m, for nuScenes.

The figure to look at is `car/AP/4.0`, beside `car/ASE`.
"""

from mmengine.config import read_base
from torch.optim import AdamW

from datasets.augment import (
    GlobalRotation,
    GlobalScaling,
    RandomFlip,
    RangeFilter,
)
from datasets.nuscenes.categories import TASKS
from detector.models.bev import SecondBEV
from detector.models.detectors import CenterPoint
from detector.models.heads import CenterHead
from detector.models.pillars import PillarEncoder, PillarMap

with read_base():
    from .._base_.nuscenes import *
    from .._base_.training import *

grid.update(point_cloud_range=(-50, -50, -5, 50, 50, 3), voxel_size=(0.5, 0.5, 8))
# What no radar saw can't be learnt from radar.
train_dataset["dataset"].update(sensors=("radar",), min_radar_points=1)
val_dataset.update(sensors=("radar",))
train_transforms = [
    dict(type=RandomFlip, left_right=0.5, front_back=0.5),
    dict(type=GlobalRotation, max_angle=0.785),
    dict(type=GlobalScaling, low=0.95, high=1.05),
    dict(type=RangeFilter, point_cloud_range=grid["point_cloud_range"]),
]
model = dict(
    type=CenterPoint,
    # x, y, z, rcs_dbsm, vx_comp, vy_comp, age_s
    point_channels=7,
    double_flip=False,
    velocity_columns=(4, 5),
    encoder=dict(factory=PillarEncoder),
    backbone=dict(factory=PillarMap),
    bev=dict(
        factory=SecondBEV,
        channels=(64, 128, 256),
        layers=(3, 5, 5),
        strides=(1, 2, 2),
        upsample_channels=(64, 64, 64),
        upsample_strides=(1, 2, 4),
    ),
    head=dict(
        factory=CenterHead,
        tasks=TASKS,
        with_velocity=True,
        box_weight=0.25,
        nms_iou=0.2,
        score_threshold=0.05,
        max_detections=500,
    ),
)
best_metric = "car/AP/4.0"
epochs = 20
optimizer = dict(factory=AdamW, lr=0.001, weight_decay=0.01)
clip_norm = 35.0
