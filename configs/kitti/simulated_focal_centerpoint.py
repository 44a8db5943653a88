"""The demo: a focal detector small enough that two CPU cores train it in minutes.

Four times the KITTI configs' voxels along x and y, a fraction of their channels, and half the
area, where KITTI's easy and moderate objects are. What lets it learn in 12 epochs of 240 frames:
frames that each show another street, objects pasted to the end, a corner loss, and Muon.
"""

from mmengine.config import read_base

from datasets.augment import (
    GlobalRotation,
    GlobalScaling,
    GroundTruthPaste,
    RandomFlip,
    RangeFilter,
    VisibleBoxes,
)
from detector.models.backbones import SparseEncoder
from detector.models.bev import SecondBEV
from detector.models.detectors import CenterPoint
from detector.models.encoders import OffsetVoxelEncoder
from detector.models.heads import CenterHead
from detector.training.muon import Muon

with read_base():
    from .._base_.kitti import *
    from .._base_.training import *

grid.update(point_cloud_range=(0, -24, -3, 48, 24, 1), voxel_size=(0.2, 0.2, 0.2))
train_dataset.update(root="demo/kitti")
val_dataset.update(root="demo/kitti")
train_transforms = [
    # To the end: few epochs have none to spare for getting used to frames with fewer objects.
    dict(
        type=GroundTruthPaste,
        database="demo/kitti/paste_train.db",
        classes=classes,
        counts=dict(Car=15, Pedestrian=8, Cyclist=5),
        min_points=15,
    ),
    dict(type=VisibleBoxes, min_points=5),
    dict(type=RandomFlip),
    dict(type=GlobalRotation, max_angle=0.4),
    dict(type=GlobalScaling, low=0.95, high=1.05),
    dict(type=RangeFilter, point_cloud_range=grid["point_cloud_range"]),
]
model = dict(
    type=CenterPoint,
    point_channels=4,
    norm_momentum=0.03,
    encoder=dict(factory=OffsetVoxelEncoder),
    backbone=dict(
        factory=SparseEncoder,
        channels=(16, 32),
        layers=(1, 1),
        out_channels=8,
        focal_stages=(2,),
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
        output_kernel=1,
        quality_weight=0.7,
        diou_weight=2.0,
        corner_weight=1.0,
        neighbours=1,
        candidates=200,
        score_threshold=0.05,
        nms_iou=0.1,
    ),
)
cache_frames = True
epochs = 12
batch_size = 2
precision = "auto"
workers = 0
optimizer.update(factory=Muon, lr=0.004)
schedule.update(warmup=0.2)
evaluate_every = 0
