"""Radar alone on the simulated nuScenes, small enough for two CPU cores."""

from mmengine.config import read_base

from datasets.augment import VisibleBoxes
from datasets.nuscenes.categories import LARGE_AND_SMALL
from detector.models.bev import SecondBEV
from detector.models.detectors import CenterPoint
from detector.models.heads import CenterHead
from detector.models.pillars import PillarEncoder, PillarMap
from detector.training.muon import Muon

with read_base():
    from .._base_.simulated_nuscenes import *
    from .._base_.training import *

grid.update(point_cloud_range=(-50, -50, -2, 50, 50, 4), voxel_size=(0.5, 0.5, 6))
train_transforms[-1].update(point_cloud_range=grid["point_cloud_range"])
# What none of six sweeps has a target of cannot be learnt; what only the newest lacks can.
train_transforms.append(dict(type=VisibleBoxes, min_points=1))
train_dataset.update(sensors=("radar",))
val_dataset.update(sensors=("radar",))
model = dict(
    type=CenterPoint,
    # x, y, z, rcs_dbsm, vx_comp, vy_comp, age_s
    point_channels=7,
    velocity_columns=(4, 5),
    norm_momentum=0.03,
    encoder=dict(
        factory=PillarEncoder,
        out_channels=32,
        column_scales=(0.02, 0.02, 0.5, 0.1, 0.3, 0.3, 4),
    ),
    backbone=dict(factory=PillarMap),
    bev=dict(
        factory=SecondBEV,
        channels=(32, 64, 96),
        layers=(2, 3, 3),
        strides=(1, 2, 2),
        upsample_channels=(32, 32, 32),
        upsample_strides=(1, 2, 4),
    ),
    head=dict(
        factory=CenterHead,
        tasks=LARGE_AND_SMALL,
        shared_channels=64,
        hidden_channels=32,
        with_velocity=True,
        box_weight=0.5,
        velocity_weight=1.0,
        corner_weight=0.5,
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
precision = "auto"
workers = 0
optimizer.update(factory=Muon, lr=0.004)
schedule.update(warmup=0.2)
evaluate_every = 0
