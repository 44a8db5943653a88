"""A small focal detector for simulated Waymo drives, which two CPU cores train in minutes:

    python tools/simulate.py waymo --out demo/waymo --format v2 --columns 1325
    python tools/train.py configs/waymo/simulated_focal_centerpoint.py

The top laser's first return alone, 32 m around, where most of its objects are, and a quarter of
the channels.
"""

from mmengine.config import read_base

from datasets.augment import (
    GlobalRotation,
    GlobalScaling,
    RandomFlip,
    RangeFilter,
    VisibleBoxes,
)
from detector.models.backbones import SparseEncoder
from detector.models.bev import SecondBEV
from detector.models.detectors import CenterPoint
from detector.models.encoders import OffsetVoxelEncoder
from detector.models.heads import CenterHead

with read_base():
    from .._base_.training import *
    from .._base_.waymo import *

grid.update(point_cloud_range=(-32, -32, -2, 32, 32, 4), voxel_size=(0.1, 0.1, 0.15))
train_dataset.update(root="demo/waymo/v2", lasers=(1,), echoes=(1,))
val_dataset.update(root="demo/waymo/v2", lasers=(1,), echoes=(1,))
train_transforms = [
    dict(type=VisibleBoxes, min_points=5),
    dict(type=RandomFlip, front_back=0.5),
    dict(type=GlobalRotation, max_angle=0.785),
    dict(type=GlobalScaling, low=0.95, high=1.05),
    dict(type=RangeFilter, point_cloud_range=grid["point_cloud_range"]),
]
model = dict(
    type=CenterPoint,
    point_channels=5,
    norm_momentum=0.03,
    encoder=dict(factory=OffsetVoxelEncoder),
    backbone=dict(
        factory=SparseEncoder,
        channels=(16, 16, 32),
        layers=(1, 1, 1),
        out_channels=16,
        focal_stages=(3,),
        # Only voxels that are found important dilate, so that the cost stays with the objects.
        focal=dict(top_k=False, foreground_prior=0.1),
    ),
    bev=dict(
        factory=SecondBEV,
        channels=(32, 64),
        layers=(1, 3),
        strides=(1, 2),
        upsample_channels=(32, 32),
        upsample_strides=(1, 2),
    ),
    head=dict(
        factory=CenterHead,
        shared_channels=32,
        hidden_channels=16,
        quality_weight=0.5,
        diou_weight=2.0,
        neighbours=1,
        candidates=200,
        score_threshold=0.05,
        nms_iou=0.2,
    ),
)
cache_frames = True
epochs = 8
batch_size = 2
precision = "auto"
workers = 0
optimizer.update(lr=0.004)
schedule.update(warmup=0.2)
evaluate_every = 0
