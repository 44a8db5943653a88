"""A small focal detector for simulated Waymo drives, which two CPU cores train in minutes:

    python tools/simulate.py waymo --out demo/waymo --format v2 --frames 120 --val-frames 24
    python tools/train.py configs/waymo/simulated_focal_centerpoint.py

The top laser's first return alone, 38.4 m around, where most of its objects are; twice the voxels'
size of the Waymo configs and a quarter of the channels.
"""

from mmengine.config import read_base

from datasets.augment import GlobalRotation, GlobalScaling, RandomFlip, RangeFilter
from detector.models.backbones import SparseEncoder
from detector.models.bev import SecondBEV
from detector.models.detectors import CenterPoint
from detector.models.encoders import OffsetVoxelEncoder
from detector.models.heads import CenterHead

with read_base():
    from .._base_.training import *
    from .._base_.waymo import *

grid.update(point_cloud_range=(-38.4, -38.4, -2, 38.4, 38.4, 4), voxel_size=(0.15, 0.15, 0.1875))
train_dataset.update(root="demo/waymo/v2", lasers=(1,), echoes=(1,))
val_dataset.update(root="demo/waymo/v2", lasers=(1,), echoes=(1,))
train_transforms = [
    dict(type=RandomFlip, front_back=0.5),
    dict(type=GlobalRotation, max_angle=0.785),
    dict(type=GlobalScaling, low=0.95, high=1.05),
    dict(type=RangeFilter, point_cloud_range=grid["point_cloud_range"]),
]
model = dict(
    type=CenterPoint,
    point_channels=5,
    encoder=dict(factory=OffsetVoxelEncoder),
    backbone=dict(
        factory=SparseEncoder,
        channels=(16, 16, 32, 32),
        layers=(1, 1, 1, 1),
        out_channels=64,
        focal_stages=(2, 3),
        # Only voxels that are found important dilate, so that the cost stays with the objects.
        focal=dict(top_k=False, foreground_prior=0.02),
    ),
    bev=dict(
        factory=SecondBEV,
        channels=(64,),
        layers=(4,),
        strides=(1,),
        upsample_channels=(64,),
        upsample_strides=(1,),
    ),
    head=dict(
        factory=CenterHead,
        shared_channels=64,
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
epochs = 12
batch_size = 2
precision = "auto"
workers = 0
optimizer.update(lr=0.005)
evaluate_every = 0
