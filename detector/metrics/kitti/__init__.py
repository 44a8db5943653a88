"""The KITTI object metric, as the benchmark's own C++ evaluator defines it."""

from detector.metrics.kitti.evaluate import evaluate_kitti
from detector.metrics.kitti.objects import KittiObjects
from detector.metrics.kitti.result import KittiResult

__all__ = ["KittiObjects", "KittiResult", "evaluate_kitti"]
