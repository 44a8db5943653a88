"""Pillars of 0.2 m with the centre head, for nuScenes."""

from mmengine.config import read_base
from torch.optim import AdamW

from datasets.nuscenes.categories import TASKS
from detector.models.bev import SecondBEV
from detector.models.detectors import CenterPoint
from detector.models.heads import CenterHead
from detector.models.pillars import PillarEncoder, PillarMap

with read_base():
    from .._base_.nuscenes import *
    from .._base_.training import *

grid.update(point_cloud_range=(-51.2, -51.2, -5, 51.2, 51.2, 3), voxel_size=(0.2, 0.2, 8))
train_transforms[-2].update(point_cloud_range=grid["point_cloud_range"])
model = dict(
    type=CenterPoint,
    point_channels=5,
    double_flip=False,
    encoder=dict(factory=PillarEncoder, max_pillars=(30000, 60000)),
    backbone=dict(factory=PillarMap),
    bev=dict(
        factory=SecondBEV,
        channels=(64, 128, 256),
        layers=(3, 5, 5),
        strides=(2, 2, 2),
        upsample_channels=(128, 128, 128),
        upsample_strides=(0.5, 1, 2),
    ),
    head=dict(
        factory=CenterHead,
        tasks=TASKS,
        with_velocity=True,
        box_weight=0.25,
        nms_iou=0.2,
        score_threshold=0.1,
        max_detections=500,
    ),
)
epochs = 20
optimizer = dict(factory=AdamW, lr=0.001, weight_decay=0.01)
clip_norm = 35.0
