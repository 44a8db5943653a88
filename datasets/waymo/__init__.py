"""The Waymo Open Dataset without TensorFlow: v1 TFRecords, v2 Parquet tables, result files."""

from datasets.waymo.dataset import WaymoDataset

__all__ = ["WaymoDataset"]
