"""A focal detector for the simulated nuScenes, small enough for two CPU cores; learns velocities
from ten sweeps. Without focal stages: `--cfg-options "model.backbone.focal_stages=()"`."""

from mmengine.config import read_base

from datasets.augment import GroundTruthPaste
from datasets.nuscenes.categories import LARGE_AND_SMALL
from detector.models.backbones import SparseEncoder
from detector.models.bev import SecondBEV
from detector.models.detectors import CenterPoint
from detector.models.encoders import OffsetVoxelEncoder
from detector.models.heads import CenterHead
from detector.training.muon import Muon

with read_base():
    from .._base_.simulated_nuscenes import *
    from .._base_.training import *

# Of the rare classes each frame gets some more; `tools/prepare.py paste` cuts them out.
train_transforms.insert(
    0,
    dict(
        type=GroundTruthPaste,
        database="demo/nuscenes/paste_lidar.db",
        classes=classes,
        counts=dict(
            car=4, truck=3, bus=3, trailer=3, construction_vehicle=2, pedestrian=5, motorcycle=5,
            bicycle=5, traffic_cone=2, barrier=2,
        ),
        min_points=10,
    ),
)  # fmt: skip
model = dict(
    type=CenterPoint,
    point_channels=5,
    norm_momentum=0.03,
    encoder=dict(factory=OffsetVoxelEncoder),
    backbone=dict(
        factory=SparseEncoder,
        channels=(16, 32, 32),
        layers=(1, 1, 1),
        out_channels=48,
        focal_stages=(2, 3),
        # Only voxels that are found important dilate, so that the cost stays with the objects.
        focal=dict(top_k=False, foreground_prior=0.02),
    ),
    bev=dict(
        factory=SecondBEV,
        # The second block sees lorries and buses from end to end.
        channels=(64, 96),
        layers=(2, 3),
        strides=(1, 2),
        upsample_channels=(64, 64),
        upsample_strides=(1, 2),
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
cache_frames = True
epochs = 12
batch_size = 2
precision = "auto"
workers = 0
optimizer.update(factory=Muon, lr=0.004)
schedule.update(warmup=0.2)
evaluate_every = 0
