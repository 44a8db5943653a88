"""Points -> voxels."""

from detector.ops.voxelize.op import Voxels, voxelize

__all__ = ["Voxels", "voxelize"]
