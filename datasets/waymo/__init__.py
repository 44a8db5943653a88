"""The Waymo Open Dataset without TensorFlow: v1 TFRecords, v2 Parquet, and files of results."""
