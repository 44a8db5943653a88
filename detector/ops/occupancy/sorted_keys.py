"""The index for grids too large for a bitmap: sorted 64-bit keys and binary search.

Plain torch, on any device. Same methods and results as `bitmap.BitmapIndex`.
"""

from __future__ import annotations

import itertools
import math

import torch
from jaxtyping import Bool, Int32, Int64
from torch import Tensor

from detector.ops.occupancy.shapes import Triple, convolved_shape


class SortedKeyIndex:
    """Cells as sorted linear indices ((b * Z + z) * Y + y) * X + x."""

    def __init__(self, keys: Int64[Tensor, " V"], shape: Triple, batch_size: int):
        self.shape = shape
        self.batch_size = batch_size
        self.keys = keys
        z_size, y_size, x_size = shape
        line = keys // x_size
        plane = line // y_size
        self.coordinates = torch.stack(
            [plane // z_size, plane % z_size, line % y_size, keys % x_size], 1
        ).int()

    @classmethod
    def of_sorted(
        cls, coordinates: Int32[Tensor, "V 4"], shape: Triple, batch_size: int
    ) -> SortedKeyIndex:
        """Of coordinates that are sorted, distinct and inside."""
        return cls(_keys(coordinates, shape), shape, batch_size)

    @classmethod
    def of_any(
        cls, coordinates: Int32[Tensor, "N 4"], shape: Triple, batch_size: int
    ) -> SortedKeyIndex:
        """Of coordinates in any order, repeated or not, inside; rows with b < 0 don't count."""
        keys = _keys(coordinates[coordinates[:, 0] >= 0], shape)
        return cls(torch.unique(keys), shape, batch_size)

    def union(self, coordinates: Int32[Tensor, "N 4"]) -> SortedKeyIndex:
        """Of these cells and the given ones, which are as for `of_any`."""
        keys = _keys(coordinates[coordinates[:, 0] >= 0], self.shape)
        keys = torch.unique(torch.cat([self.keys, keys]))
        return SortedKeyIndex(keys, self.shape, self.batch_size)

    def dilate(self, chosen: Bool[Tensor, "V K"], kernel_size: Triple) -> SortedKeyIndex:
        """Of these cells and the neighbours inside the grid that each chose."""
        offsets = torch.tensor(
            [
                (0, *(o - k // 2 for o, k in zip(offset, kernel_size, strict=True)))
                for offset in itertools.product(*map(range, kernel_size))
            ],
            device=chosen.device,
        )  # (K, 4)
        rows, picked = chosen.nonzero(as_tuple=True)
        cells = self.coordinates[rows] + offsets[picked]
        inside = ((cells[:, 1:] >= 0) & (cells[:, 1:] < self._triple(self.shape))).all(1)
        return self.union(cells[inside])

    def windows(
        self, kernel_size: Triple, stride: Triple, padding: Triple, dilation: Triple
    ) -> SortedKeyIndex:
        """Of the output cells of a strided convolution whose window holds a cell of this one."""
        shape = convolved_shape(self.shape, kernel_size, stride, padding, dilation)
        step, upper = self._triple(stride), self._triple(shape)
        keys = []
        for offset in itertools.product(*map(range, kernel_size)):
            cell = (
                self.coordinates[:, 1:] + self._triple(padding)
                - self._triple(offset) * self._triple(dilation)
            )  # (V, 3)
            hit = ((cell >= 0) & (cell % step == 0)).all(1)
            cell = torch.div(cell, step, rounding_mode="floor")
            hit &= (cell < upper).all(1)
            out = torch.cat([self.coordinates[:, :1], cell], 1)[hit]
            keys.append(torch.unique(_keys(out, shape)))
        return SortedKeyIndex(torch.unique(torch.cat(keys)), shape, self.batch_size)

    def rows(self, coordinates: Int32[Tensor, "N 4"]) -> Int32[Tensor, " N"]:
        upper = coordinates.new_tensor((self.batch_size, *self.shape))
        inside = ((coordinates >= 0) & (coordinates < upper)).all(1)
        if not len(self.keys):
            return coordinates.new_full((len(coordinates),), -1)
        keys = _keys(coordinates, self.shape)
        rows = torch.searchsorted(self.keys, keys).clamp_(max=len(self.keys) - 1)
        return torch.where(inside & (self.keys[rows] == keys), rows, -1).int()

    def table(
        self,
        sites: Int32[Tensor, "N 4"],
        kernel_size: Triple,
        stride: Triple,
        padding: Triple,
        dilation: Triple,
    ) -> Int32[Tensor, "K N"]:
        """Row of cell `site * stride - padding + offset * dilation`, or -1."""
        table = sites.new_empty(math.prod(kernel_size), len(sites))
        first = sites[:, 1:] * self._triple(stride) - self._triple(padding)  # (N, 3)
        for row, offset in enumerate(itertools.product(*map(range, kernel_size))):
            cell = first + self._triple(offset) * self._triple(dilation)
            table[row] = self.rows(torch.cat([sites[:, :1], cell], 1))
        return table

    def _triple(self, values: Triple) -> Int32[Tensor, " 3"]:
        return torch.tensor(values, dtype=torch.int32, device=self.keys.device)


def _keys(coordinates: Int32[Tensor, "N 4"], shape: Triple) -> Int64[Tensor, " N"]:
    b, z, y, x = coordinates.long().unbind(1)
    return ((b * shape[0] + z) * shape[1] + y) * shape[2] + x
