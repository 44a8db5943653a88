"""Networks run as a whole, not layer by layer.

Inference without waiting: buffers of a fixed capacity, counts that stay on the GPU. A plan is made
once from an eager network's weights; running it only starts kernels, so that it can be captured
into one CUDA graph.

Training (`training.py`): sizes are a batch's own, and forward and backward are one loop over
launches each.
"""

from detector.sparse.planned.convolution import PlannedConvolution
from detector.sparse.planned.encoder import PlannedEncoder
from detector.sparse.planned.focal import PlannedFocal
from detector.sparse.planned.graph import GraphedEncoder
from detector.sparse.planned.levels import Level, Levels
from detector.sparse.planned.voxelizer import GraphedVoxelizer, PlannedVoxelizer

__all__ = [
    "GraphedEncoder",
    "GraphedVoxelizer",
    "Level",
    "Levels",
    "PlannedConvolution",
    "PlannedEncoder",
    "PlannedFocal",
    "PlannedVoxelizer",
]
