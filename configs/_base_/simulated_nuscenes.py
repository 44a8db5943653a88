"""The simulated nuScenes of `tools/simulate.py nuscenes --out demo/nuscenes`: all ten classes, as
far as the metric looks (50 m)."""

from datasets.augment import GlobalRotation, GlobalScaling, RandomFlip, RangeFilter
from datasets.nuscenes import NuScenesDataset
from detector.geometry import VoxelGrid

classes = (
    "car", "truck", "bus", "trailer", "construction_vehicle", "pedestrian", "motorcycle", "bicycle",
    "traffic_cone", "barrier",
)  # fmt: skip
grid = dict(
    type=VoxelGrid,
    point_cloud_range=(-51.2, -51.2, -2, 51.2, 51.2, 4),
    voxel_size=(0.2, 0.2, 0.25),
)
train_dataset = dict(
    type=NuScenesDataset,
    root="demo/nuscenes",
    version="v1.0-simulated",
    split="simulated_train",
    classes=classes,
)
val_dataset = dict(
    type=NuScenesDataset,
    root="demo/nuscenes",
    version="v1.0-simulated",
    split="simulated_val",
    classes=classes,
)
train_transforms = [
    dict(type=RandomFlip, left_right=0.5, front_back=0.5),
    dict(type=GlobalRotation, max_angle=0.785),
    dict(type=GlobalScaling, low=0.95, high=1.05),
    dict(type=RangeFilter, point_cloud_range=grid["point_cloud_range"]),
]
best_metric = "NDS"
