"""Kernel maps' tables on a GPU: filled from bitmap indices, put in order, turned round.

A table in order has its columns sorted, within windows of so many, by what they see; `order.cuh`
says why.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int32
from torch import Tensor

from detector.ops.cuda_runtime import THREADS, Kernel, blocks
from detector.ops.occupancy.shapes import ONE, Triple

if TYPE_CHECKING:
    from detector.ops.occupancy.gpu_bitmap import Bitmap

TABLES = Path(__file__).with_name("tables.cu")
ORDER = Path(__file__).with_name("order.cu")
TABLE_THREADS = 128
WINDOW = LIST_THREADS = 1024
ORDERED = range(9, 33)
"""Numbers of offsets of tables that can be put in order; with fewer there is nothing to gain."""
ALL_ROWS = (1 << 31) - 1

_transpose_table = Kernel(TABLES, "transpose_table", "PiiPPi")
_mask_table = Kernel(TABLES, "mask_table", "PiiiPi")


@dataclass(frozen=True)
class ConvTable:
    """What a convolution reads of a kernel map."""

    table: Int32[Tensor, "K V_out"]
    """Rows lie apart by a multiple of 32."""
    masks: Int32[Tensor, "tiles words"]
    """Which offsets each 32 columns use, in words of 32 offsets."""
    order: Int32[Tensor, " V_out"] | None = None
    """The output row that each column stands for; None: they follow one another."""
    tiles: Int32[Tensor, " tiles"] | None = None
    """With an order: tiles of 64 columns, those with most offsets first."""

    @classmethod
    def empty(
        cls, offsets: int, columns: int, device: torch.device, *, in_order: bool = False
    ) -> ConvTable:
        pitch = max(-(-columns // 32) * 32, 32)
        table = torch.empty(offsets, pitch, dtype=torch.int32, device=device)[:, :columns]
        masks = torch.empty(pitch // 32, -(-offsets // 32), dtype=torch.int32, device=device)
        if not in_order:
            return cls(table, masks)
        return cls(table, masks, table.new_empty(columns), table.new_empty(-(-columns // 64)))

    @property
    def _place(self) -> tuple[Tensor, int, Tensor, int]:
        return self.table, self.table.stride(0), self.masks, self.masks.shape[1]


def can_be_ordered(kernel_size: Triple, dilation: Triple) -> bool:
    return math.prod(kernel_size) in ORDERED and is_known(kernel_size, dilation)


def is_known(kernel_size: Triple, dilation: Triple = ONE) -> bool:
    """Whether there are kernels for just this size."""
    return math.prod(kernel_size) <= 125 and (kernel_size[2] - 1) * dilation[2] < 32


@functools.cache
def _filling(
    name: str, signature: str, kernel_size: Triple | None, dilation: int, in_order: bool
) -> Kernel:
    """For one kernel size and dilation along x, or for any."""
    defines = {}
    if kernel_size:
        defines = dict(zip(("KZ", "KY", "KX"), kernel_size, strict=True), DX=dilation)
    defines |= dict(THREADS=WINDOW, WINDOW=WINDOW) if in_order else dict(THREADS=TABLE_THREADS)
    return Kernel(TABLES, name, signature + "PiPiPiPP", defines)


def fill_table(
    bitmap: Bitmap, sites: Int32[Tensor, "N 4"], count: Tensor, into: Sequence[ConvTable],
    kernel_size: Triple, stride: Triple, padding: Triple, dilation: Triple,
    most_rows: int = ALL_ROWS,
) -> None:  # fmt: skip
    """table[k, o] = row of cell `site * stride - padding + offset * dilation`, or -1, for the first
    `count` sites.

    Args:
        into: one table, or two of which one is in order (`can_be_ordered`).
        most_rows: from this row on they count as absent.
    """
    if not len(sites):
        return
    about = (
        bitmap.words, bitmap.rank, *bitmap.dimensions, *kernel_size, *stride, *padding, *dilation,
        most_rows,
    )  # fmt: skip
    threads, places = _places(into)
    size = kernel_size if is_known(kernel_size, dilation) else None
    dx = dilation[2] if size else 1
    kernel = _filling("fill_table", "PPiPP" + "i" * 17, size, dx, threads == WINDOW)
    kernel(
        (blocks(len(sites), threads),), threads, sites, count, len(sites), *about, *places,
        device=bitmap.device.index,
    )  # fmt: skip
    _list_tiles(into, count)


def fill_scanned(
    bitmap: Bitmap, sites: Bitmap, coordinates: Int32[Tensor, "N 4"], into: Sequence[ConvTable],
    kernel_size: Triple, stride: Triple, padding: Triple, dilation: Triple,
    most_rows: int = ALL_ROWS,
) -> None:  # fmt: skip
    """As `fill_table` for the voxels of a bitmap after its `scan`; writes their coordinates."""
    if not is_known(kernel_size, dilation):
        sites.emit(coordinates)
        fill_table(
            bitmap, coordinates, sites.count, into, kernel_size, stride, padding, dilation,
            most_rows,
        )  # fmt: skip
    elif len(coordinates):
        threads, places = _places(into)
        signature = "PPPiPPiii" + "Ii" * 3 + "PiPP" + "i" * 14
        kernel = _filling(
            "fill_scanned", signature, kernel_size, dilation[2], threads == WINDOW
        )
        kernel(
            (blocks(len(coordinates), threads),), threads, *sites.scanned, coordinates,
            len(coordinates), bitmap.words, bitmap.rank, *bitmap.dimensions, *stride, *padding,
            *dilation, most_rows, *places, device=bitmap.device.index, overlap=True,
        )  # fmt: skip
        _list_tiles(into, sites.count)


def _places(into: Sequence[ConvTable]) -> tuple[int, tuple]:
    """Threads of a block, and the kernels' last arguments."""
    plain = next((table for table in into if table.order is None), None)
    ordered = next((table for table in into if table.order is not None), None)
    first = (None, 0, None, 0) if plain is None else plain._place
    if ordered is None:
        return TABLE_THREADS, (*first, None, 0, None, None)
    return WINDOW, (*first, *ordered._place[:3], ordered.order)


@functools.cache
def _order_table(offsets: int) -> Kernel:
    return Kernel(ORDER, "order_table", "PiPiPiPP", dict(OFFSETS=offsets, WINDOW=WINDOW))


@functools.cache
def _listing(offsets: int) -> Kernel:
    return Kernel(ORDER, "list_tiles", "PPiP", dict(OFFSETS=offsets, WINDOW=WINDOW))


def put_in_order(table: Int32[Tensor, "K V_out"], count: Tensor, into: ConvTable) -> None:
    """The first `count` columns of a table that is there."""
    columns = min(table.shape[1], into.table.shape[1])
    if columns:
        _order_table(len(table))(
            (blocks(columns, WINDOW),), WINDOW, table, table.stride(0), count, columns,
            *into._place[:3], into.order, device=table.get_device(),
        )  # fmt: skip
        _list_tiles([into], count)


def _list_tiles(tables: Sequence[ConvTable], count: Tensor) -> None:
    """Of those that are in order."""
    for table in tables:
        if table.tiles is not None:
            _listing(len(table.table))(
                (1,), LIST_THREADS, table.masks, count, table.table.shape[1], table.tiles,
                device=table.table.get_device(),
            )  # fmt: skip


def conv_table(
    table: Int32[Tensor, "K V_out"], count: Tensor, *, in_order: bool = False
) -> ConvTable:
    """Of a kernel map's table, all of whose columns count; made once."""
    if not in_order or len(table) not in ORDERED:
        return ConvTable(table, tile_masks(table))
    made = getattr(table, "in_order", None)
    if made is None:
        made = table.in_order = ConvTable.empty(*table.shape, table.device, in_order=True)
        put_in_order(table, count, made)
    return made


def tile_masks(table: Int32[Tensor, "K V_out"]) -> Int32[Tensor, "tiles words"]:
    """Which offsets each 32 columns of a table use; made once."""
    masks = getattr(table, "tile_masks", None)
    if masks is None:
        masks = ConvTable.empty(len(table), table.shape[1], table.device).masks
        _fill_masks(table, masks)
        table.tile_masks = masks
    return masks


def transpose_table(
    table: Int32[Tensor, "K V_out"], rows_in: int
) -> Int32[Tensor, "K V_in"]:
    """The table from input rows to output rows."""
    made = ConvTable.empty(len(table), rows_in, table.device)
    fill_transposed(table, None, made.table, made.masks)
    made.table.tile_masks = made.masks
    return made.table


def fill_transposed(
    table: Int32[Tensor, "K V_out"], count: Tensor | None, turned: Int32[Tensor, "K V_in"],
    masks: Int32[Tensor, "tiles words"],
) -> None:  # fmt: skip
    """The table from input rows to output rows, of the first `count` of these, and its masks."""
    turned.fill_(-1)
    if table.shape[1]:
        _transpose_table(
            (blocks(table.shape[1]), len(table)), THREADS, table, table.stride(0),
            table.shape[1], count, turned, turned.stride(0), device=table.get_device(),
        )  # fmt: skip
    _fill_masks(turned, masks)


def _fill_masks(table: Int32[Tensor, "K V_out"], masks: Int32[Tensor, "tiles words"]) -> None:
    if table.shape[1]:
        _mask_table(
            (blocks(table.shape[1]),), THREADS, table, table.stride(0), table.shape[1],
            len(table), masks, masks.shape[1], device=table.get_device(),
        )  # fmt: skip
