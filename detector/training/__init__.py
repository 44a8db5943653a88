"""Training on mmengine's Runner: data, loop, schedule, checkpoints, and what is written down."""

from detector.training.train import train

__all__ = ["train"]
