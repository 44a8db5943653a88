"""The nuScenes detection metric `detection_cvpr_2019`: mAP, five true-positive errors, NDS.

Pure: arrays in, a dataclass out. `datasets.nuscenes` reads the arrays from tables and result files.
"""

from detector.metrics.nuscenes.boxes import (
    ATTRIBUTES,
    CLASS_RANGE_M,
    CLASSES,
    BikeRacks,
    NuScenesBoxes,
    yaw_of_quaternion,
)
from detector.metrics.nuscenes.evaluation import evaluate_nuscenes, filter_boxes
from detector.metrics.nuscenes.result import Curve, NuScenesResult

__all__ = [
    "ATTRIBUTES",
    "CLASSES",
    "CLASS_RANGE_M",
    "BikeRacks",
    "Curve",
    "NuScenesBoxes",
    "NuScenesResult",
    "evaluate_nuscenes",
    "filter_boxes",
    "yaw_of_quaternion",
]
