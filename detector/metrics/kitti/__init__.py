"""The KITTI object metric."""

from detector.metrics.kitti.objects import KittiObjects

__all__ = ["KittiObjects"]
