"""LiDAR and radar in one model: the points of both in the same voxels, told apart by a column."""

from mmengine.config import read_base

with read_base():
    from .centerpoint_voxel import *

train_dataset["dataset"].update(sensors=("lidar", "radar"))
val_dataset.update(sensors=("lidar", "radar"))
# Objects pasted from a database of LiDAR and radar points: a file of its own.
train_transforms[0]["transform"].update(database="data/nuscenes/paste_train_lidar_radar.db")
# x, y, z, intensity, age_s, rcs_dbsm, vx_comp, vy_comp, is_radar
model.update(point_channels=9, velocity_columns=(6, 7))
