"""Fine-tuning of the detector that comes along on a few real frames, mixed with simulated ones.

    python tools/simulate.py kitti --out data/simulated_few --frames 64 --val-frames 24 \\
        --scene-frames 1 --seed 7
    python tools/prepare.py paste configs/kitti/pretrained_centerpoint.py \\
        --out data/simulated_few/paste_train.db --cfg-options train_dataset.root=data/simulated_few
    python tools/train.py configs/kitti/finetuned_focal_centerpoint.py \\
        --weights detector/pretrained/demo.pth

A few frames of one place say little about what they hardly show; simulated frames beside them keep
the detector from forgetting the rest. What the real frames don't label and looks like what they do
is left out of their scans, or they would teach that it is background. Where a class isn't labelled
at all, wrap the data set in `datasets.combined.PartlyLabelledDataset`.
"""

from mmengine.config import read_base
from torch.optim import AdamW

from datasets.combined import ConcatDataset
from datasets.kitti import KittiDataset

with read_base():
    from .pretrained_focal_centerpoint import *

train_dataset = dict(
    type=ConcatDataset,
    datasets=[
        dict(
            type=KittiDataset, root="data/kitti", split="train", classes=classes,
            without_types=("Van", "DontCare"),
        ),
        dict(type=KittiDataset, root="data/simulated_few", split="train", classes=classes),
    ],
    # 39 real frames stand beside 64 simulated ones.
    repeats=(4, 2),
)  # fmt: skip
val_dataset.update(root="data/kitti")
train_transforms[0].update(last_epochs=1)
train_transforms[0]["transform"].update(database="data/simulated_few/paste_train.db")
epochs = 4
batch_size = 8
optimizer.update(factory=AdamW, lr=0.0003)
