"""Radar alone on the simulated nuScenes, small enough for two CPU cores."""

from mmengine.config import read_base
from torch.optim import AdamW

from datasets.nuscenes.categories import LARGE_AND_SMALL
from detector.models.bev import SecondBEV
from detector.models.detectors import CenterPoint
from detector.models.heads import CenterHead
from detector.models.pillars import PillarEncoder, PillarMap

with read_base():
    from .._base_.simulated_nuscenes import *
    from .._base_.training import *

grid.update(point_cloud_range=(-50, -50, -2, 50, 50, 4), voxel_size=(0.5, 0.5, 6))
train_transforms[-1].update(point_cloud_range=grid["point_cloud_range"])
train_dataset.update(sensors=("radar",), min_radar_points=1)
val_dataset.update(sensors=("radar",))
model = dict(
    type=CenterPoint,
    # x, y, z, rcs_dbsm, vx_comp, vy_comp, age_s
    point_channels=7,
    velocity_columns=(4, 5),
    norm_momentum=0.03,
    encoder=dict(factory=PillarEncoder, out_channels=32),
    backbone=dict(factory=PillarMap),
    bev=dict(
        factory=SecondBEV,
        channels=(32, 64),
        layers=(2, 3),
        strides=(1, 2),
        upsample_channels=(32, 32),
        upsample_strides=(1, 2),
    ),
    head=dict(
        factory=CenterHead,
        tasks=LARGE_AND_SMALL,
        shared_channels=32,
        hidden_channels=16,
        with_velocity=True,
        neighbours=1,
        candidates=200,
        score_threshold=0.05,
        nms_iou=0.1,
    ),
)
best_metric = "car/AP/4.0"
cache_frames = True
epochs = 30
batch_size = 4
workers = 0
optimizer = dict(factory=AdamW, lr=0.004, weight_decay=0.01)
schedule.update(warmup=0.2)
evaluate_every = 0
