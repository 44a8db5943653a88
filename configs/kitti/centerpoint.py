"""A centre-based detector on SECOND's sparse encoder, for KITTI."""

from mmengine.config import read_base

from detector.models.backbones import SparseEncoder8x
from detector.models.bev import SecondBEV
from detector.models.detectors import CenterPoint
from detector.models.encoders import MeanVoxelEncoder
from detector.models.heads import CenterHead

with read_base():
    from .._base_.kitti import *
    from .._base_.training import *

model = dict(
    type=CenterPoint,
    point_channels=4,
    encoder=dict(factory=MeanVoxelEncoder, max_points_per_voxel=5, max_voxels=(16000, 40000)),
    backbone=dict(factory=SparseEncoder8x),
    bev=dict(factory=SecondBEV),
    head=dict(
        factory=CenterHead,
        quality_weight=0.5,
        diou_weight=1.0,
        score_threshold=0.05,
        nms_iou=0.1,
    ),
)
