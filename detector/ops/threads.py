"""Splits the work of a compiled loop over threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def in_threads(
    kernel: Callable[..., None], count: int, *arguments, work_per_item: int = 1
) -> None:
    """Calls `kernel(start, stop, *arguments)` for pieces that together cover [0, count).

    The kernel must release the GIL (`numba.njit(nogil=True)`) and write to its own items only.
    As many threads run as torch is set to use, which is one inside a DataLoader's workers; they
    end with the call, so that a process may fork at any time. Numba's own `prange` offers
    neither: its OpenMP layer aborts a worker that was forked after first use.

    Args:
        work_per_item: rough cost of one item in units of 10 ns; a piece worth less than about
            0.3 ms isn't given a thread of its own.
    """
    pieces = max(1, min(torch.get_num_threads(), count * work_per_item // 30_000))
    if pieces == 1:
        kernel(0, count, *arguments)
        return
    edges = [count * piece // pieces for piece in range(pieces + 1)]
    with ThreadPoolExecutor(pieces) as pool:
        running = [
            pool.submit(kernel, start, stop, *arguments)
            for start, stop in zip(edges[:-1], edges[1:], strict=True)
        ]
    for piece in running:
        piece.result()
