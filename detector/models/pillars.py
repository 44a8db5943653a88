"""Pillars: cells as high as the grid, each described by a small network over its points.

Lang et al.: "PointPillars: Fast Encoders for Object Detection from Point Clouds", CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from detector.geometry import VoxelGrid
from detector.models.backbones import BackboneOutput, bev_map
from detector.models.encoders import column_factors
from detector.ops.voxelize import voxelize
from detector.records import Batch
from detector.sparse import SparseTensor


class PillarEncoder(nn.Module):
    """The largest of each learnt feature over the points of a pillar.

    A point is described by its columns, its place against the mean of the pillar's points and
    against the pillar's middle.

    Args:
        grid: with one layer of cells.
        point_channels: columns of the points.
        out_channels: features of a pillar.
        column_scales: factors of the points' columns that bring them near one; None leaves them.
        max_pillars: how many a frame may have, while training and otherwise; None is no limit.

    Raises:
        ValueError: a grid with several layers, or another number of scales than of columns.
    """

    def __init__(
        self,
        grid: VoxelGrid,
        point_channels: int,
        *,
        out_channels: int = 64,
        max_pillars: tuple[int | None, int | None] = (None, None),
        column_scales: Sequence[float] | None = None,
    ):
        super().__init__()
        if grid.shape[0] != 1:
            raise ValueError(
                f"pillars need a grid with one layer of cells, got {grid.shape[0]}; make "
                f"voxel_size as high as the range"
            )
        self.grid = grid
        self.point_channels = point_channels
        self.max_pillars = max_pillars
        self.out_channels = out_channels
        self.spatial_shape = grid.shape
        scales = column_factors(column_scales, point_channels)
        self.register_buffer("column_scales", scales, persistent=False)
        self.linear = nn.Linear(point_channels + 5, out_channels, bias=False)
        self.norm = nn.BatchNorm1d(out_channels, eps=1e-3, momentum=0.01)

    def forward(self, batch: Batch) -> SparseTensor:
        """Pillars of all frames; a frame without points in range has none.

        Raises:
            ValueError: points with another number of columns than the encoder was made for.
        """
        if batch.points.shape[1] != self.point_channels:
            raise ValueError(
                f"points have {batch.points.shape[1]} columns, the encoder was made for "
                f"{self.point_channels}; point_channels in the config must fit the data set"
            )
        pillars = voxelize(
            batch.points,
            self.grid,
            None,
            self.max_pillars[0] if self.training else self.max_pillars[1],
            frame_of_point=batch.frame_of_point,
            batch_size=batch.batch_size,
        )
        kept = pillars.voxel_of_point >= 0
        points, pillar = batch.points[kept], pillars.voxel_of_point[kept]
        middle = self.grid.centers(pillars.coordinates[:, 1:])[:, :2]              # (V, 2)
        described = torch.cat(
            [
                points * self.column_scales,
                points[:, :3] - pillars.features[pillar, :3],
                points[:, :2] - middle[pillar],
            ],
            1,
        )
        learnt = self._normalized(self.linear(described)).relu()                   # (P, C)
        # Nothing is below 0 after the ReLU, so that zeros to start from change no maximum.
        largest = learnt.new_zeros(len(pillars.coordinates), self.out_channels)
        largest = largest.scatter_reduce(0, pillar[:, None].expand_as(learnt), learnt, "amax")
        return SparseTensor(largest, pillars.coordinates, self.spatial_shape, batch.batch_size)

    def _normalized(self, x: Float[Tensor, "P C"]) -> Float[Tensor, "P C"]:
        if self.training and len(x) < 2:
            # Too few points to tell a spread from.
            norm = self.norm
            return functional.batch_norm(
                x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
            )
        return self.norm(x)


class PillarMap(nn.Module):
    """In place of a sparse backbone: the pillars as a dense map, at the grid's own size."""

    def __init__(self, in_channels: int, spatial_shape: tuple[int, int, int]):
        super().__init__()
        self.stride = 1
        self.bev_shape = spatial_shape[1:]
        self.out_channels = in_channels
        # Has no focal stages; see `SparseEncoder`.
        self.focal = nn.ModuleDict()

    def forward(self, x: SparseTensor) -> BackboneOutput:
        return BackboneOutput(bev_map(x), [])
