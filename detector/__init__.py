"""Focal3D: oriented 3D boxes from LiDAR and radar points."""

import os

# Between parallel regions OpenMP's threads spin for milliseconds by default, on the very cores
# that our own kernels (`detector.ops.threads`) then need: sparse training on two cores took 1.4
# times as long. It is read when torch is first imported, and a choice of the user's stands.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
