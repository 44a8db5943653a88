"""nuScenes: ten classes, ten LiDAR sweeps, class-balanced frames, the usual augmentation."""

from datasets.augment import (
    FadeOut,
    GlobalRotation,
    GlobalScaling,
    GlobalTranslation,
    GroundTruthPaste,
    PointShuffle,
    RandomFlip,
    RangeFilter,
)
from datasets.balance import ClassBalancedDataset
from datasets.nuscenes import NuScenesDataset
from detector.geometry import VoxelGrid

classes = (
    "car",
    "truck",
    "bus",
    "trailer",
    "construction_vehicle",
    "pedestrian",
    "motorcycle",
    "bicycle",
    "traffic_cone",
    "barrier",
)
grid = dict(
    type=VoxelGrid,
    point_cloud_range=(-54, -54, -5, 54, 54, 3),
    voxel_size=(0.075, 0.075, 0.2),
)
train_dataset = dict(
    type=ClassBalancedDataset,
    dataset=dict(
        type=NuScenesDataset,
        root="data/nuscenes",
        version="v1.0-trainval",
        split="train",
        classes=classes,
    ),
)
val_dataset = dict(
    type=NuScenesDataset,
    root="data/nuscenes",
    version="v1.0-trainval",
    split="val",
    classes=classes,
)
train_transforms = [
    # Its file is written by `tools/prepare.py paste CONFIG`; counts as in CBGS and CenterPoint.
    dict(
        type=FadeOut,
        last_epochs=5,
        transform=dict(
            type=GroundTruthPaste,
            database="data/nuscenes/paste_train.db",
            classes=classes,
            counts=dict(
                car=2,
                truck=3,
                construction_vehicle=7,
                bus=4,
                trailer=6,
                barrier=2,
                motorcycle=6,
                bicycle=6,
                pedestrian=2,
                traffic_cone=2,
            ),
            min_points=5,
        ),
    ),
    dict(type=RandomFlip, left_right=0.5, front_back=0.5),
    dict(type=GlobalRotation, max_angle=0.785),
    dict(type=GlobalScaling, low=0.9, high=1.1),
    dict(type=GlobalTranslation, std=(0.5, 0.5, 0.5)),
    dict(type=RangeFilter, point_cloud_range=grid["point_cloud_range"]),
    dict(type=PointShuffle),
]
best_metric = "NDS"
