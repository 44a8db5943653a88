"""From points to features of voxels."""

from __future__ import annotations

from collections.abc import Sequence

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
    columns. Numbers near one and local geometry let small networks learn in few steps.

    Args:
        grid, point_channels, options: see `MeanVoxelEncoder`.
        column_scales: factors of the columns after x, y, z that bring them near one, such as 4 for
            ages of up to half a second; None leaves them.
        flagged_columns: columns that only points have whose last column is 1, such as a radar
            target's among LiDAR points; their means are over those points alone.

    Raises:
        ValueError: another number of scales than of columns.
    """

    def __init__(
        self, grid: VoxelGrid, point_channels: int, *,
        column_scales: Sequence[float] | None = None, flagged_columns: Sequence[int] = (),
        **options,
    ):  # fmt: skip
        super().__init__(grid, point_channels, **options)
        self.out_channels = point_channels + 3
        self.has_flag = bool(flagged_columns)
        flagged = torch.tensor([column in flagged_columns for column in range(point_channels)])
        self.register_buffer("flagged", flagged, persistent=False)
        scales = column_factors(column_scales, point_channels - 3)
        self.register_buffer("column_scales", scales, persistent=False)

    def describe(self, voxels: Voxels) -> Float[Tensor, "V C+3"]:
        mean = voxels.features
        size = self.grid.voxel_size
        low, high = self.grid.minimum, self.grid.maximum
        cell = voxels.coordinates[:, 1:].flip(1).to(mean.dtype)                # (V, 3) x, y, z
        inside = [(mean[:, i] - low[i]) / size[i] - cell[:, i] - 0.5 for i in range(3)]
        height = (mean[:, 2] - low[2]) / (high[2] - low[2])
        distance = mean[:, :2].norm(dim=1) / max(map(abs, low[:2] + high[:2]))
        count = voxels.point_counts.to(mean.dtype).log1p() / 4
        if self.has_flag:
            share = mean[:, -1:].clamp(min=1e-6)
            mean = torch.where(self.flagged, mean / share, mean)
        others = mean[:, 3:] * self.column_scales
        return torch.cat([torch.stack([*inside, height, distance, count], 1), others], 1)


def column_factors(scales: Sequence[float] | None, columns: int) -> Float[Tensor, " C"]:
    """A factor for each column, 1 where none are given.

    Raises:
        ValueError: another number of scales than of columns.
    """
    if scales is None:
        return torch.ones(columns)
    if len(scales) != columns:
        raise ValueError(
            f"column_scales {tuple(scales)} needs a number for each of {columns} columns"
        )
    return torch.tensor(scales, dtype=torch.float32)
