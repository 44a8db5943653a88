"""The regular grid that points are binned into."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class VoxelGrid:
    """A box of space cut into cells of equal size.

    Args:
        point_cloud_range: (x_min, y_min, z_min, x_max, y_max, z_max), metres.
        voxel_size: (x, y, z) of one cell, metres.

    Raises:
        ValueError: an empty range, a size that is not positive, or a range that is not a whole
            number of cells (to 1 part in 1000 of a cell).
    """

    point_cloud_range: tuple[float, float, float, float, float, float]
    voxel_size: tuple[float, float, float]

    def __post_init__(self):
        object.__setattr__(self, "point_cloud_range", tuple(map(float, self.point_cloud_range)))
        object.__setattr__(self, "voxel_size", tuple(map(float, self.voxel_size)))
        if len(self.point_cloud_range) != 6 or len(self.voxel_size) != 3:
            raise ValueError(
                f"point_cloud_range needs 6 numbers and voxel_size 3, got "
                f"{self.point_cloud_range} and {self.voxel_size}"
            )
        for axis, low, high, size in zip(
            "xyz", self.minimum, self.maximum, self.voxel_size, strict=True
        ):
            if not (size > 0 and high > low):
                raise ValueError(
                    f"{axis}: range {low} to {high} with voxel size {size} holds no cell; the "
                    f"range must grow and the size be positive"
                )
            cells = (high - low) / size
            if abs(cells - round(cells)) > 1e-3:
                raise ValueError(
                    f"{axis}: range {low} to {high} is {cells:.4f} voxels of {size} m; "
                    f"make it a whole number"
                )

    @property
    def minimum(self) -> tuple[float, float, float]:
        """Lower corner (x, y, z), metres."""
        return self.point_cloud_range[:3]

    @property
    def maximum(self) -> tuple[float, float, float]:
        """Upper corner (x, y, z), metres."""
        return self.point_cloud_range[3:]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of cells (Z, Y, X)."""
        cells = [
            round((high - low) / size)
            for low, high, size in zip(self.minimum, self.maximum, self.voxel_size, strict=True)
        ]
        return cells[2], cells[1], cells[0]

    def coordinates(self, points: Float[Tensor, "P 3+"]) -> Int[Tensor, "P 3"]:
        """(z, y, x) of the cell of each point; -1 in all three where it lies outside or is NaN.

        Computed in float32 as floor((p - minimum) / voxel_size), with this order of operations,
        on every device: the kernels of `detector.ops.voxelize` must agree to the bit.
        """
        minimum = points.new_tensor(self.minimum, dtype=torch.float32)
        size = points.new_tensor(self.voxel_size, dtype=torch.float32)
        cell = torch.floor((points[:, :3].float() - minimum) / size)     # (P, 3) x, y, z
        upper = cell.new_tensor(self.shape[::-1])
        inside = ((cell >= 0) & (cell < upper)).all(-1)                   # NaN compares false
        cell = torch.where(inside[:, None], cell, -1.0)
        return cell.flip(-1).to(torch.int32)

    def centers(self, coordinates: Int[Tensor, "V 3"], stride: int = 1) -> Float[Tensor, "V 3"]:
        """x, y, z of the centres of cells (z, y, x), of a map downsampled by `stride`."""
        # Column by column, with plain numbers: tensors of them would have to go to a GPU, waiting.
        columns = zip(coordinates.flip(-1).unbind(-1), self.voxel_size, self.minimum, strict=True)
        return torch.stack([(c + 0.5) * (size * stride) + low for c, size, low in columns], -1)
