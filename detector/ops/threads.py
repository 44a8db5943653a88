"""Splits the work of a compiled loop over threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for

import torch

LEAST_WORK = 10_000
"""Least work of a piece, in units of 10 ns: waking a thread costs about half of it."""
PIECES_PER_THREAD = 8
"""A few pieces a thread even out work that is spread unevenly."""

_pool: ThreadPoolExecutor | None = None
_pool_of: tuple[int, int] | None = None


def in_threads(
    kernel: Callable[..., None], count: int, *arguments, work_per_item: int = 1, grain: int = 1
) -> None:
    """Calls `kernel(start, stop, *arguments)` for pieces that together cover [0, count).

    The kernel must release the GIL (`numba.njit(nogil=True)`) and write to its own items only.
    As many threads run as torch is set to use, which is one inside a DataLoader's workers. They
    wait for work between calls; a process that was forked makes its own. Numba's own `prange`
    won't do: its OpenMP layer aborts a worker that was forked after first use.

    Args:
        work_per_item: rough cost of one item in units of 10 ns; work worth less than about 0.2 ms
            isn't split.
        grain: pieces begin at multiples of it.
    """
    blocks = -(-count // grain)
    threads = torch.get_num_threads()
    pieces = max(1, min(
        blocks, PIECES_PER_THREAD * threads, count * work_per_item // LEAST_WORK
    ))  # fmt: skip
    if threads == 1 or pieces == 1:
        kernel(0, count, *arguments)
        return
    edges = [min(count, grain * (blocks * piece // pieces)) for piece in range(pieces + 1)]
    waiting = iter(list(zip(edges[:-1], edges[1:], strict=True)))

    def work():
        for start, stop in waiting:  # the step of a list's iterator is atomic
            kernel(start, stop, *arguments)

    helpers = [_threads(threads - 1).submit(work) for _ in range(min(threads, pieces) - 1)]
    try:
        work()
    finally:
        wait_for(helpers)
    for helper in helpers:
        helper.result()


def _threads(count: int) -> ThreadPoolExecutor:
    global _pool, _pool_of
    if _pool_of != (os.getpid(), count):
        _pool = ThreadPoolExecutor(count, thread_name_prefix="focal3d-kernel")
        _pool_of = os.getpid(), count
    return _pool
