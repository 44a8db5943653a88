"""CenterPoint for nuScenes: voxels of 0.075 m, a residual sparse encoder, a head of six tasks.

`--cfg-options model.double_flip=True` predicts from four mirror images of each frame.
"""

from mmengine.config import read_base
from torch.optim import AdamW

from datasets.nuscenes.categories import TASKS
from detector.models.backbones import ResidualSparseEncoder8x
from detector.models.bev import SecondBEV
from detector.models.detectors import CenterPoint
from detector.models.encoders import MeanVoxelEncoder
from detector.models.heads import CenterHead

with read_base():
    from .._base_.nuscenes import *
    from .._base_.training import *

model = dict(
    type=CenterPoint,
    point_channels=5,
    double_flip=False,
    encoder=dict(factory=MeanVoxelEncoder, max_points_per_voxel=10, max_voxels=(120000, 160000)),
    backbone=dict(factory=ResidualSparseEncoder8x),
    bev=dict(factory=SecondBEV),
    head=dict(
        factory=CenterHead,
        tasks=TASKS,
        with_velocity=True,
        box_weight=0.25,
        # In place of overlap, nearness of centres: nms_radius_m with a number for each class.
        nms_iou=0.2,
        score_threshold=0.1,
        max_detections=500,
    ),
)
epochs = 20
optimizer = dict(factory=AdamW, lr=0.001, weight_decay=0.01)
clip_norm = 35.0
