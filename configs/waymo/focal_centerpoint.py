"""The centre-based detector with focal stages 1 to 3 (Chen et al., CVPR 2022), for Waymo."""

from mmengine.config import read_base

with read_base():
    from .centerpoint_voxel import *

model["backbone"].update(focal_stages=(1, 2, 3))
