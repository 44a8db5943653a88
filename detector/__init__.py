"""Focal3D: oriented 3D boxes from LiDAR and radar points."""

__version__ = "0.1.0"
