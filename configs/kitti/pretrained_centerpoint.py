"""As `pretrained_focal_centerpoint.py`, without focal stages."""

from mmengine.config import read_base

from datasets.augment import (
    FadeOut,
    GlobalRotation,
    GlobalScaling,
    GroundTruthPaste,
    PointShuffle,
    RandomFlip,
    RangeFilter,
    VisibleBoxes,
)
from detector.models.encoders import OffsetVoxelEncoder

with read_base():
    from .centerpoint import *

train_dataset.update(root="data/simulated")
val_dataset.update(root="data/simulated")
train_transforms = [
    dict(
        type=FadeOut,
        last_epochs=2,
        transform=dict(
            type=GroundTruthPaste,
            database="data/simulated/paste_train.db",
            classes=classes,
            counts=dict(Car=15, Pedestrian=10, Cyclist=10),
            min_points=5,
        ),
    ),
    # In a short training, boxes with hardly a point are noise.
    dict(type=VisibleBoxes, min_points=5),
    dict(type=RandomFlip),
    dict(type=GlobalRotation, max_angle=0.785),
    dict(type=GlobalScaling, low=0.95, high=1.05),
    dict(type=RangeFilter, point_cloud_range=grid["point_cloud_range"]),
    dict(type=PointShuffle),
]
model["encoder"] = dict(
    factory=OffsetVoxelEncoder, max_points_per_voxel=5, max_voxels=(16000, 40000)
)
model["head"].update(neighbours=1)
cache_frames = True
epochs = 13
batch_size = 8
precision = "float16"
evaluate_every = 0
