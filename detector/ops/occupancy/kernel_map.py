"""Which input row meets which output row under which offset of a kernel."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from jaxtyping import Int32
from torch import Tensor

from detector.ops.threads import in_threads


class KernelMap:
    """A sparse convolution's neighbour table.

    `table[k, o]` is the input row that output row o sees through kernel offset k, or -1. Offsets
    are numbered lexicographically by (kz, ky, kx). Through one offset every input row is seen by
    at most one output row.

    Args:
        table: (K, V_out) int32.
        rows_in: V_in, number of input rows.
        kernel_size: (kz, ky, kx), K = kz * ky * kx.
        mirrored: input and output rows are the same and `table[K - 1 - k]` undoes `table[k]`, as
            in every submanifold map; its transpose then costs nothing.
    """

    def __init__(
        self,
        table: Int32[Tensor, "K V_out"],
        rows_in: int,
        kernel_size: tuple[int, int, int],
        *,
        mirrored: bool = False,
    ):
        if table.shape[0] != math.prod(kernel_size):
            raise ValueError(
                f"a table of {table.shape[0]} offsets does not fit kernel size {kernel_size}"
            )
        self.table = table
        self.rows_in = rows_in
        self.kernel_size = kernel_size
        self.mirrored = mirrored

    @property
    def rows_out(self) -> int:
        return self.table.shape[1]

    @property
    def is_identity(self) -> bool:
        """Every row meets itself and nothing else: kernel size 1 on the same voxels."""
        return self.mirrored and len(self.table) == 1

    @cached_property
    def _transposed(self) -> KernelMap:
        if self.table.is_cuda:
            from detector.ops.occupancy import tables

            table = tables.transpose_table(self.table, self.rows_in)
        else:
            from detector.ops.occupancy import cpu

            table = self.table.new_full((self.table.shape[0], self.rows_in), -1)
            in_threads(
                cpu.transpose_table, len(table), self.table.numpy(), table.numpy(),
                work_per_item=self.rows_out,
            )
        return KernelMap(table, self.rows_out, self.kernel_size)

    def transposed(self) -> KernelMap:
        """From output rows to input rows, offset by offset: an inverse convolution's map, and
        the input gradient's. Computed once."""
        if self.mirrored:
            return KernelMap(
                self.table.flip(0), self.rows_in, self.kernel_size, mirrored=True
            )
        return self._transposed

    def pair_count(self) -> Tensor:
        """() int64: how many (input, output, offset) triples take part."""
        return torch.count_nonzero(self.table >= 0)
