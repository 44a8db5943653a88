"""Average precision of the Waymo Open Dataset, equal to the official tool's, without TensorFlow.

Pure: arrays of boxes in, `WaymoResult` out. Definition and rounding follow `src/waymo_open_dataset
/metrics` of waymo-open-dataset 1.6 (github.com/waymo-research/waymo-open-dataset, 99a4cb3).
"""

from detector.metrics.waymo.evaluate import (
    OBJECT_TYPES,
    WaymoPredictions,
    WaymoTruth,
    evaluate_waymo,
)
from detector.metrics.waymo.result import WaymoResult

__all__ = [
    "OBJECT_TYPES",
    "WaymoPredictions",
    "WaymoResult",
    "WaymoTruth",
    "evaluate_waymo",
]
