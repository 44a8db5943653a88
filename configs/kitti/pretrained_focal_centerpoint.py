"""The detector that comes with the project (`--checkpoint demo`): the KITTI-size focal detector,
trained on simulated streets alone, `data/simulated` by `tools/simulate.py kitti`."""

from mmengine.config import read_base

with read_base():
    from .pretrained_centerpoint import *

model["backbone"].update(focal_stages=(1, 2, 3))
