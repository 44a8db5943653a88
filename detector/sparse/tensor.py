"""Features on the occupied cells of a batch of grids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor

from detector.ops.occupancy import Occupancy


class SparseTensor:
    """Features (V, C) on distinct cells (batch, z, y, x), rows sorted by linear index.

    Args:
        features: (V, C), any float dtype.
        coordinates: (V, 4) integers, in any order; features are sorted along.
        spatial_shape: cells (Z, Y, X) of one frame's grid.
        batch_size: number of frames; frames without voxels count too, so it is never guessed.

    Raises:
        ValueError: shapes that don't match, a cell outside the grid or the batch, or a cell given
            twice.
    """

    def __init__(
        self,
        features: Float[Tensor, "V C"],
        coordinates: Int[Tensor, "V 4"],
        spatial_shape: Sequence[int],
        batch_size: int,
    ):
        if coordinates.ndim != 2 or coordinates.shape[1] != 4 or coordinates.is_floating_point():
            raise ValueError(
                f"coordinates must be integers of shape (V, 4), got {coordinates.dtype} of shape "
                f"{tuple(coordinates.shape)}"
            )
        occupancy, order = _index_of(coordinates, spatial_shape, batch_size)
        _check_features(features, len(coordinates))
        self.features = features if order is None else features[order]
        self.occupancy = occupancy

    @classmethod
    def from_occupancy(cls, features: Float[Tensor, "V C"], occupancy: Occupancy) -> SparseTensor:
        """Features in the row order of an index, such as `Voxels.occupancy`; nothing is sorted or
        built again."""
        _check_features(features, len(occupancy))
        tensor = cls.__new__(cls)
        tensor.features = features
        tensor.occupancy = occupancy
        return tensor

    @property
    def coordinates(self) -> Int32[Tensor, "V 4"]:
        """(batch, z, y, x) of every row, sorted by linear index."""
        return self.occupancy.coordinates

    @property
    def spatial_shape(self) -> tuple[int, int, int]:
        """Cells (Z, Y, X) of one frame's grid."""
        return self.occupancy.spatial_shape

    @property
    def batch_size(self) -> int:
        return self.occupancy.batch_size

    def __len__(self) -> int:
        return self.features.shape[0]

    def __repr__(self) -> str:
        return (
            f"SparseTensor({len(self)} voxels of {self.features.shape[1]} channels, "
            f"{self.features.dtype}, grid {self.spatial_shape}, batch of {self.batch_size})"
        )

    def replace(self, features: Float[Tensor, "V C2"]) -> SparseTensor:
        """Other features on the same voxels."""
        return SparseTensor.from_occupancy(features, self.occupancy)

    def dense(self) -> Float[Tensor, "B C Z Y X"]:
        """The features on the full grid, zero where there is no voxel."""
        b, z, y, x = self.coordinates.long().unbind(1)
        grid = self.features.new_zeros(
            self.batch_size, self.features.shape[1], *self.spatial_shape
        )
        grid[b, :, z, y, x] = self.features
        return grid


def _index_of(
    coordinates: Tensor, spatial_shape: Sequence[int], batch_size: int
) -> tuple[Occupancy, Tensor | None]:
    """The index, and the order that sorts the rows (None: they are sorted)."""
    coordinates = coordinates.detach()
    if coordinates.dtype == torch.int32:
        made = Occupancy.of_unchecked(coordinates, spatial_shape, batch_size)
        if made is not None and not made[1] and len(made[0]) == len(coordinates):
            occupancy, _, in_order = made
            return occupancy, None if in_order else _order(occupancy, coordinates)
    upper = torch.tensor((batch_size, *spatial_shape), device=coordinates.device)
    outside = ((coordinates < 0) | (coordinates >= upper)).any(1)
    if outside.any():
        row = int(outside.nonzero()[0, 0])
        raise ValueError(
            f"coordinates row {row} is (batch, z, y, x) = {tuple(coordinates[row].tolist())}, "
            f"outside a batch of {batch_size} grids of {tuple(spatial_shape)}"
        )
    coordinates = coordinates.int().contiguous()
    occupancy = Occupancy.of_any(coordinates, spatial_shape, batch_size)
    if len(occupancy) < len(coordinates):
        raise ValueError(
            f"coordinates hold {len(coordinates) - len(occupancy)} repeated cells; a sparse "
            f"tensor has one row a cell (`voxelize` merges points into cells)"
        )
    if torch.equal(occupancy.coordinates, coordinates):
        return occupancy, None
    return occupancy, _order(occupancy, coordinates)


def _order(occupancy: Occupancy, coordinates: Tensor) -> Tensor:
    """Which given row each row of the index was."""
    order = torch.empty(len(coordinates), dtype=torch.int64, device=coordinates.device)
    order[occupancy.rows(coordinates).long()] = torch.arange(
        len(coordinates), device=coordinates.device
    )
    return order


def _check_features(features: Tensor, rows: int) -> None:
    if features.ndim != 2 or features.shape[0] != rows or not features.is_floating_point():
        raise ValueError(
            f"features must be floats of shape ({rows}, C), one row a voxel; got "
            f"{features.dtype} of shape {tuple(features.shape)}"
        )
