"""As `pretrained_centerpoint.py`, with focal stages 1 to 3."""

from mmengine.config import read_base

with read_base():
    from .pretrained_centerpoint import *

model["backbone"].update(focal_stages=(1, 2, 3))
