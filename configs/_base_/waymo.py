"""Waymo: all around to 75.2 m, three classes, voxels of 0.1 x 0.1 x 0.15 m, the usual
augmentation. Either format of the data set: `root/{training,validation}`."""

from datasets.augment import (
    FadeOut,
    GlobalRotation,
    GlobalScaling,
    GroundTruthPaste,
    PointShuffle,
    RandomFlip,
    RangeFilter,
)
from datasets.waymo import WaymoDataset
from detector.geometry import VoxelGrid

classes = ("Vehicle", "Pedestrian", "Cyclist")
grid = dict(
    type=VoxelGrid,
    point_cloud_range=(-75.2, -75.2, -2, 75.2, 75.2, 4),
    voxel_size=(0.1, 0.1, 0.15),
)
# `every=5` trains on the fifth of the frames that papers often use.
train_dataset = dict(type=WaymoDataset, root="data/waymo", split="training", classes=classes)
val_dataset = dict(type=WaymoDataset, root="data/waymo", split="validation", classes=classes)
train_transforms = [
    # Its file is written by `tools/prepare.py paste CONFIG`.
    dict(
        type=FadeOut,
        last_epochs=3,
        transform=dict(
            type=GroundTruthPaste,
            database="data/waymo/paste_training.db",
            classes=classes,
            counts=dict(Vehicle=15, Pedestrian=10, Cyclist=10),
            min_points=5,
        ),
    ),
    dict(type=RandomFlip, front_back=0.5),
    dict(type=GlobalRotation, max_angle=0.785),
    dict(type=GlobalScaling, low=0.95, high=1.05),
    dict(type=RangeFilter, point_cloud_range=grid["point_cloud_range"]),
    dict(type=PointShuffle),
]
best_metric = "mean/L2/APH"
