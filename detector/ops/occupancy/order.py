"""Kernel maps' tables in an order that saves a convolution work; `order.cu` says how."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int32
from torch import Tensor

from detector.ops.cuda_runtime import Kernel
from detector.ops.occupancy.gpu import blocks, new_table

SOURCE = Path(__file__).with_name("order.cu")
WINDOW = 1024
OFFSETS = range(9, 33)
"""Of tables that can be ordered; with fewer there is nothing to gain."""


@functools.cache
def _order_table(offsets: int) -> Kernel:
    return Kernel(
        SOURCE, "order_table", "PiPiPiPP", dict(OFFSETS=offsets, WINDOW=WINDOW)
    )


@dataclass(frozen=True)
class OrderedTable:
    """A table whose column p stands for output row `order[p]`.

    Args:
        offsets, columns: of the table.
    """

    table: Int32[Tensor, "K V_out"]
    masks: Int32[Tensor, "tiles 1"]
    order: Int32[Tensor, " V_out"]

    @classmethod
    def empty(cls, offsets: int, columns: int, device: torch.device) -> OrderedTable:
        table, masks = new_table(offsets, columns, device)
        return cls(table, masks, torch.empty(columns, dtype=torch.int32, device=device))

    def fill(self, table: Tensor, count: Tensor) -> None:
        """With the first `count` columns of a table."""
        columns = min(table.shape[1], self.table.shape[1])
        if columns:
            _order_table(len(table))(
                (blocks(columns, WINDOW),), WINDOW, table, table.stride(0), count, columns,
                self.table, self.table.stride(0), self.masks, self.order,
                device=table.get_device(),
            )  # fmt: skip


def ordered(table: Int32[Tensor, "K V_out"], count: Tensor) -> OrderedTable:
    """Of a table with `count` columns; made once."""
    made = getattr(table, "ordered", None)
    if made is None:
        made = table.ordered = OrderedTable.empty(*table.shape, table.device)
        made.fill(table, count)
    return made
