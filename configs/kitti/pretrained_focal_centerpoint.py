"""The KITTI-size focal detector, trained on simulated streets alone: `--checkpoint demo`.

    python tools/simulate.py kitti --out data/simulated --frames 640 --val-frames 200 \\
        --scene-frames 1
    python tools/prepare.py paste configs/kitti/pretrained_focal_centerpoint.py
    python tools/train.py configs/kitti/pretrained_focal_centerpoint.py
"""

from mmengine.config import read_base

with read_base():
    from .pretrained_centerpoint import *

model["backbone"].update(focal_stages=(1, 2, 3))
