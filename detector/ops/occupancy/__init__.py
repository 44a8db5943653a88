"""The index of a sparse tensor: where voxels are, which row each has, who its neighbours are."""

from detector.ops.occupancy.kernel_map import KernelMap
from detector.ops.occupancy.op import Occupancy

__all__ = ["KernelMap", "Occupancy"]
