"""CenterPoint for nuScenes with focal stages 1 to 3 (Chen et al., CVPR 2022), on LiDAR alone; the
stages' own loss is part of the detector's."""

from mmengine.config import read_base

with read_base():
    from .centerpoint_voxel import *

model["backbone"].update(focal_stages=(1, 2, 3))
