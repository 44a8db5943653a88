"""KITTI: frames of the camera's view, three classes, 0.05 m voxels, the usual augmentation."""

from datasets.augment import (
    FadeOut,
    GlobalRotation,
    GlobalScaling,
    GroundTruthPaste,
    PointShuffle,
    RandomFlip,
    RangeFilter,
)
from datasets.kitti import KittiDataset
from detector.geometry import VoxelGrid

classes = ("Car", "Pedestrian", "Cyclist")
grid = dict(
    type=VoxelGrid,
    point_cloud_range=(0, -40, -3, 70.4, 40, 1),
    voxel_size=(0.05, 0.05, 0.1),
)
train_dataset = dict(type=KittiDataset, root="data/kitti", split="train", classes=classes)
val_dataset = dict(type=KittiDataset, root="data/kitti", split="val", classes=classes)
train_transforms = [
    # Its file is written by `tools/prepare.py paste CONFIG`; counts as in SECOND's.
    dict(
        type=FadeOut,
        last_epochs=5,
        transform=dict(
            type=GroundTruthPaste,
            database="data/kitti/paste_train.db",
            classes=classes,
            counts=dict(Car=15, Pedestrian=10, Cyclist=10),
            min_points=5,
        ),
    ),
    dict(type=RandomFlip),
    dict(type=GlobalRotation, max_angle=0.785),
    dict(type=GlobalScaling, low=0.95, high=1.05),
    dict(type=RangeFilter, point_cloud_range=grid["point_cloud_range"]),
    dict(type=PointShuffle),
]
best_metric = "Car/3d/R40/moderate"
