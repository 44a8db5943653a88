"""A detector that a CPU trains in seconds, on toy frames."""

from mmengine.config import read_base

from detector.geometry import VoxelGrid
from detector.models.backbones import SparseEncoder
from detector.models.bev import SecondBEV
from detector.models.detectors import CenterPoint
from detector.models.encoders import OffsetVoxelEncoder
from detector.models.heads import CenterHead
from tests.writers.toy import Shift, ToyDataset

with read_base():
    from ...configs._base_.training import *

classes = ("Car", "Cyclist")
grid = dict(
    type=VoxelGrid, point_cloud_range=(0, -8, -2, 16, 8, 2), voxel_size=(0.25, 0.25, 0.25)
)
train_dataset = dict(type=ToyDataset, frames=6, classes=classes)
val_dataset = dict(type=ToyDataset, frames=3, classes=classes)
train_transforms = [dict(type=Shift)]
model = dict(
    type=CenterPoint,
    encoder=dict(factory=OffsetVoxelEncoder),
    backbone=dict(
        factory=SparseEncoder, channels=(4, 8), layers=(1, 1), out_channels=8, focal_stages=(1,)
    ),
    bev=dict(
        factory=SecondBEV, channels=(8,), layers=(1,), strides=(1,), upsample_channels=(8,),
        upsample_strides=(1,),
    ),
    head=dict(
        factory=CenterHead, shared_channels=8, hidden_channels=8, quality_weight=0.5,
        diou_weight=1.0, neighbours=1, score_threshold=0.01,
    ),
)
epochs = 3
batch_size = 2
workers = 0
evaluate_every = 1
best_metric = "score"
