"""nuScenes: tables and sensor files as they are on disk, and its result files."""

from datasets.nuscenes.boxes import NuScenesAnnotations
from datasets.nuscenes.dataset import NuScenesDataset
from datasets.nuscenes.sensor_files import RadarFilter
from detector.metrics.nuscenes import CLASSES

__all__ = [
    "CLASSES",
    "NuScenesAnnotations",
    "NuScenesDataset",
    "RadarFilter",
]
