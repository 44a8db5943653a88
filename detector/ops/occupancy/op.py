"""The occupancy index: checks, dispatch, and the maps it keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int, Int32
from torch import Tensor

from detector.ops.occupancy.kernel_map import KernelMap
from detector.ops.occupancy.shapes import Triple, as_triple
from detector.ops.occupancy.sorted_keys import SortedKeyIndex

BYTE_BUDGET = 1 << 30
"""Most bytes that the bitmap of one grid may take; larger grids use sorted keys."""


class Occupancy:
    """Where the voxels of a batch are: row r of a sparse tensor is cell `coordinates[r]`.

    Rows are sorted by linear index (b, z, y, x). Kernel maps and downsampled indices are made
    once and kept, so that layers which share an index share them. An index never changes.

    Make one with `of_sorted`, `of_any`, or from another by `downsample` or `union`.
    """

    def __init__(self, index):
        self._index = index
        self._neighbours: dict[tuple[Triple, Triple], KernelMap] = {}
        self._downsampled: dict[tuple[Triple, ...], tuple[Occupancy, KernelMap]] = {}

    @classmethod
    def of_sorted(
        cls,
        coordinates: Int32[Tensor, "V 4"],
        spatial_shape: Sequence[int],
        batch_size: int,
        *,
        byte_budget: int | None = None,
    ) -> Occupancy:
        """Of coordinates (b, z, y, x) that are known to be sorted, distinct and inside the grid;
        nothing is checked."""
        shape = as_triple(spatial_shape, "spatial_shape", 1)
        kind = _index_class(coordinates.device, shape, batch_size, byte_budget)
        return cls(kind.of_sorted(coordinates.contiguous(), shape, batch_size))

    @classmethod
    def of_any(
        cls,
        coordinates: Int32[Tensor, "N 4"],
        spatial_shape: Sequence[int],
        batch_size: int,
        *,
        byte_budget: int | None = None,
    ) -> Occupancy:
        """Of coordinates inside the grid in any order, repeated or not; rows with b < 0 don't
        count. Their rows are then `rows(coordinates)`."""
        shape = as_triple(spatial_shape, "spatial_shape", 1)
        kind = _index_class(coordinates.device, shape, batch_size, byte_budget)
        return cls(kind.of_any(coordinates.contiguous(), shape, batch_size))

    @classmethod
    def of_unchecked(
        cls, coordinates: Int32[Tensor, "N 4"], spatial_shape: Sequence[int], batch_size: int
    ) -> tuple[Occupancy, bool, bool] | None:
        """On a GPU, the index of whatever was given, whether a row lies outside the grid, and
        whether rows are in order and distinct, with one wait; None where this can't be done."""
        shape = as_triple(spatial_shape, "spatial_shape", 1)
        kind = _index_class(coordinates.device, shape, batch_size, None)
        if not hasattr(kind, "of_unchecked"):
            return None
        index, outside, in_order = kind.of_unchecked(coordinates.contiguous(), shape, batch_size)
        return cls(index), outside, in_order

    @property
    def coordinates(self) -> Int32[Tensor, "V 4"]:
        """(b, z, y, x) of every row, sorted."""
        return self._index.coordinates

    @property
    def spatial_shape(self) -> Triple:
        """Cells (Z, Y, X) of the grid."""
        return self._index.shape

    @property
    def batch_size(self) -> int:
        return self._index.batch_size

    @property
    def device(self) -> torch.device:
        return self.coordinates.device

    def __len__(self) -> int:
        return self.coordinates.shape[0]

    @property
    def count(self) -> Int32[Tensor, " 1"]:
        """The number of voxels, on the device."""
        count = getattr(self._index, "count", None)
        if count is None:
            count = self.coordinates.new_full((1,), len(self))
        return count

    def release(self) -> None:
        """Gives memory back that only making maps needs; it is taken and filled again if need
        be."""
        if hasattr(self._index, "release"):
            self._index.release()

    def rows(self, coordinates: Int[Tensor, "N 4"]) -> Int32[Tensor, " N"]:
        """Row of each cell (b, z, y, x); -1 where it is empty or outside the grid."""
        return self._index.rows(coordinates.int().contiguous())

    def neighbours(
        self, kernel_size: int | Sequence[int], dilation: int | Sequence[int] = 1
    ) -> KernelMap:
        """The map of a submanifold convolution: each voxel's neighbours around it.

        The kernel's centre is offset `kernel_size // 2` of each axis, for even sizes too.
        """
        kernel_size = as_triple(kernel_size, "kernel_size", 1)
        dilation = as_triple(dilation, "dilation", 1)
        key = kernel_size, dilation
        if key not in self._neighbours:
            table = self._table(self.coordinates, kernel_size, dilation)
            self._neighbours[key] = KernelMap(
                table, len(self), kernel_size, mirrored=all(size % 2 for size in kernel_size)
            )
        return self._neighbours[key]

    def seen_from(
        self,
        sites: Occupancy,
        kernel_size: int | Sequence[int],
        dilation: int | Sequence[int] = 1,
    ) -> KernelMap:
        """The map of a stride-1 convolution from these voxels to the sites of another index of
        the same grid; not kept."""
        kernel_size = as_triple(kernel_size, "kernel_size", 1)
        dilation = as_triple(dilation, "dilation", 1)
        table = self._table(sites.coordinates, kernel_size, dilation)
        return KernelMap(table, len(self), kernel_size)

    def downsample(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
    ) -> tuple[Occupancy, KernelMap]:
        """The index and the map of a strided convolution: an output cell exists where its window
        holds a voxel. Output cell o sees input cells o * stride - padding + offset * dilation.

        Raises:
            ValueError: a kernel larger than the padded grid.
        """
        key = (
            as_triple(kernel_size, "kernel_size", 1),
            as_triple(stride, "stride", 1),
            as_triple(padding, "padding", 0),
            as_triple(dilation, "dilation", 1),
        )
        if key not in self._downsampled:
            coarse = Occupancy(self._index.windows(*key))
            table = self._index.table(coarse.coordinates, *key)
            self._downsampled[key] = coarse, KernelMap(table, len(self), key[0])
        return self._downsampled[key]

    def prepare(self, steps: Sequence[tuple[Triple, Triple, Triple, Triple]]) -> None:
        """Makes the indices and maps of strided convolutions one after another, each given by
        (kernel_size, stride, padding, dilation). `downsample` then finds them; on a GPU this waits
        for it once, where one by one each would wait."""
        if not steps or steps[0] in self._downsampled:
            return
        if not hasattr(self._index, "windows_chain"):
            return
        fine = self
        for key, index in zip(steps, self._index.windows_chain(steps), strict=True):
            coarse = Occupancy(index)
            table = fine._index.table(coarse.coordinates, *key)
            fine._downsampled[key] = coarse, KernelMap(table, len(fine), key[0])
            fine = coarse

    def windows(self, steps: Sequence[tuple[Triple, Triple, Triple, Triple]]) -> list[Occupancy]:
        """The indices of strided convolutions one after another, as `prepare` makes them; maps are
        made when `map_by` asks."""
        if not hasattr(self._index, "windows_chain"):
            made, fine = [], self
            for step in steps:
                fine = Occupancy(fine._index.windows(*step))
                made.append(fine)
            return made
        return [Occupancy(index) for index in self._index.windows_chain(steps)] if steps else []

    def map_by(
        self, coarse: Occupancy, step: tuple[Triple, Triple, Triple, Triple]
    ) -> KernelMap:
        """The map of a strided convolution from these voxels to those that `windows` made."""
        table = self._index.table(coarse.coordinates, *step)
        return KernelMap(table, len(self), step[0])

    @property
    def has_bitmap(self) -> bool:
        """Whether the index is a bitmap on a GPU."""
        return hasattr(self._index, "release")

    @property
    def bitmap(self):
        """The bitmap of an index that has one."""
        return self._index.bitmap

    def map_to(self, coarse: Occupancy, kernel_size: int | Sequence[int]) -> KernelMap:
        """The map by which `downsample` made `coarse` from this index.

        Raises:
            ValueError: `coarse` was not made from this index with this kernel size.
        """
        kernel_size = as_triple(kernel_size, "kernel_size", 1)
        found = [
            kernel_map.kernel_size
            for made, kernel_map in self._downsampled.values()
            if made is coarse
        ]
        for made, kernel_map in self._downsampled.values():
            if made is coarse and kernel_map.kernel_size == kernel_size:
                return kernel_map
        made_with = f"with kernel size {found[0]}" if found else "not from this one"
        raise ValueError(
            f"an inverse convolution of kernel size {kernel_size} needs an index that a strided "
            f"convolution of that kernel size made from the given fine index; it was made "
            f"{made_with}"
        )

    def union(self, coordinates: Int32[Tensor, "N 4"]) -> Occupancy:
        """These voxels and the given cells of the same grid, in any order, repeated or not; rows
        with b < 0 don't count."""
        return Occupancy(self._index.union(coordinates.int().contiguous()))

    def dilate(
        self, chosen: Bool[Tensor, "V K"], kernel_size: int | Sequence[int]
    ) -> Occupancy:
        """These voxels and, of each voxel's neighbours in a kernel of odd sizes, those it chose;
        choices outside the grid don't count."""
        kernel_size = as_triple(kernel_size, "kernel_size", 1)
        if chosen.shape != (len(self), math.prod(kernel_size)):
            raise ValueError(
                f"chosen must be ({len(self)} voxels, {math.prod(kernel_size)} offsets), got "
                f"shape {tuple(chosen.shape)}"
            )
        return Occupancy(self._index.dilate(chosen.contiguous(), kernel_size))

    def _table(self, sites: Tensor, kernel_size: Triple, dilation: Triple) -> Tensor:
        padding = tuple(d * (k // 2) for d, k in zip(dilation, kernel_size, strict=True))
        return self._index.table(sites, kernel_size, (1, 1, 1), padding, dilation)


def _index_class(device: torch.device, shape: Triple, batch_size: int, byte_budget: int | None):
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if batch_size * math.prod(shape) >= 1 << 63:
        raise ValueError(f"{batch_size} grids of {shape} cells don't fit a 64-bit index")
    budget = BYTE_BUDGET if byte_budget is None else byte_budget
    if device.type == "cuda":
        from detector.ops.occupancy.gpu import BitmapIndex
    else:
        from detector.ops.occupancy.bitmap import BitmapIndex
    fits = BitmapIndex.bytes_needed(shape, batch_size) <= budget
    return BitmapIndex if fits else SortedKeyIndex
