"""A centre-based detector on SECOND's sparse encoder, for Waymo."""

from mmengine.config import read_base

from detector.models.backbones import SparseEncoder8x
from detector.models.bev import SecondBEV
from detector.models.detectors import CenterPoint
from detector.models.encoders import MeanVoxelEncoder
from detector.models.heads import CenterHead

with read_base():
    from .._base_.training import *
    from .._base_.waymo import *

model = dict(
    type=CenterPoint,
    point_channels=5,
    encoder=dict(factory=MeanVoxelEncoder, max_points_per_voxel=5, max_voxels=(150000, 150000)),
    backbone=dict(factory=SparseEncoder8x),
    bev=dict(factory=SecondBEV),
    head=dict(
        factory=CenterHead,
        quality_weight=0.5,
        diou_weight=1.0,
        score_threshold=0.1,
        # The official matcher allows one detection an object: near duplicates cost little, a
        # neighbour suppressed costs recall.
        nms_iou=0.5,
        max_detections=300,
    ),
)
epochs = 30
