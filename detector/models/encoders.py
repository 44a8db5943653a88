"""From points to features of voxels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from detector.geometry import VoxelGrid
from detector.ops.voxelize import Voxels, voxelize
from detector.records import Batch
from detector.sparse import SparseTensor


class MeanVoxelEncoder(nn.Module):
    """The mean of a voxel's points, columns as they come (VoxelNet's simplified encoder).

    Args:
        grid: the voxel grid.
        point_channels: columns of the points.
        max_points_per_voxel: how many points of a voxel count; None takes all.
        max_voxels: how many voxels a frame may have, while training and otherwise; None is no
            limit.
    """

    def __init__(
        self,
        grid: VoxelGrid,
        point_channels: int,
        max_points_per_voxel: int | None = None,
        max_voxels: tuple[int | None, int | None] = (None, None),
    ):
        super().__init__()
        self.grid = grid
        self.point_channels = point_channels
        self.max_points_per_voxel = max_points_per_voxel
        self.max_voxels = max_voxels
        self.out_channels = point_channels
        # One empty layer of cells above, so that three halvings with padding keep an odd number.
        z, y, x = grid.shape
        self.spatial_shape = (z + 1, y, x)

    def forward(self, batch: Batch) -> SparseTensor:
        """Voxels of all frames; a frame without points in range has none.

        Raises:
            ValueError: points with another number of columns than the encoder was made for.
        """
        if batch.points.shape[1] != self.point_channels:
            raise ValueError(
                f"points have {batch.points.shape[1]} columns, the encoder was made for "
                f"{self.point_channels}; point_channels in the config must fit the data set"
            )
        voxels = voxelize(
            batch.points,
            self.grid,
            self.max_points_per_voxel,
            self.max_voxels[0] if self.training else self.max_voxels[1],
            frame_of_point=batch.frame_of_point,
            batch_size=batch.batch_size,
        )
        return SparseTensor(
            self.describe(voxels), voxels.coordinates, self.spatial_shape, batch.batch_size
        )

    def describe(self, voxels: Voxels) -> Float[Tensor, "V C"]:
        """Features of each voxel."""
        return voxels.features


class OffsetVoxelEncoder(MeanVoxelEncoder):
    """As the mean encoder, with features that do not depend on where the voxel lies: where in
    the voxel the mean is, its height, its distance, how many points there are, and the other
    columns. Numbers near one and local geometry let small networks learn in few steps."""

    def __init__(self, grid: VoxelGrid, point_channels: int, **options):
        super().__init__(grid, point_channels, **options)
        self.out_channels = point_channels + 3

    def describe(self, voxels: Voxels) -> Float[Tensor, "V C+3"]:
        mean = voxels.features
        size = self.grid.voxel_size
        low, high = self.grid.minimum, self.grid.maximum
        cell = voxels.coordinates[:, 1:].flip(1).to(mean.dtype)                # (V, 3) x, y, z
        inside = [(mean[:, i] - low[i]) / size[i] - cell[:, i] - 0.5 for i in range(3)]
        height = (mean[:, 2] - low[2]) / (high[2] - low[2])
        distance = mean[:, :2].norm(dim=1) / max(map(abs, low[:2] + high[:2]))
        count = voxels.point_counts.to(mean.dtype).log1p() / 4
        return torch.cat([torch.stack([*inside, height, distance, count], 1), mean[:, 3:]], 1)
