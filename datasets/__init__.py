"""Adapters: a data set's own files -> `Sample`, and `Detections` -> its result files."""
