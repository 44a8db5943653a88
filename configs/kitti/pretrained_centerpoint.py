"""As `pretrained_focal_centerpoint.py`, without focal stages."""

from mmengine.config import read_base

from datasets.augment import VisibleBoxes
from detector.models.encoders import OffsetVoxelEncoder
from detector.training.muon import Muon

with read_base():
    from .centerpoint import *

train_dataset.update(root="data/simulated")
val_dataset.update(root="data/simulated")
train_transforms[0].update(last_epochs=2)
train_transforms[0]["transform"].update(database="data/simulated/paste_train.db")
# In a short training, boxes with hardly a point are noise.
train_transforms.insert(1, dict(type=VisibleBoxes, min_points=5))
model["encoder"] = dict(
    factory=OffsetVoxelEncoder, max_points_per_voxel=5, max_voxels=(16000, 40000)
)
model["head"].update(neighbours=1)
cache_frames = True
epochs = 15
batch_size = 4
precision = "float16"
optimizer.update(factory=Muon, lr=0.004)
schedule.update(warmup=0.2)
evaluate_every = 0
