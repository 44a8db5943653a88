"""LiDAR and radar in one model on the simulated nuScenes."""

from mmengine.config import read_base

with read_base():
    from .simulated_focal_centerpoint import *

train_dataset.update(sensors=("lidar", "radar"))
val_dataset.update(sensors=("lidar", "radar"))
train_transforms[0].update(database="demo/nuscenes/paste_lidar_radar.db")
# x, y, z, intensity, age_s, rcs_dbsm, vx_comp, vy_comp, is_radar
model.update(point_channels=9, velocity_columns=(6, 7))
model["encoder"].update(column_scales=(1, 1, 0.1, 0.3, 0.3, 1), flagged_columns=(5, 6, 7))
