"""Simulates with several processes that end when they should."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from detector.errors import InputError

Result = TypeVar("Result")


def in_processes(
    work: Callable[..., Result], jobs: Sequence[tuple], workers: int, remedy: str
) -> Iterator[tuple[int, Result]]:
    """Calls `work(*job)` for each job in `workers` processes (1: in this one, in order) and yields
    the job's number and its result when it is done.

    The processes leave Ctrl-C to the caller, ending with the job that they are at, and they end at
    once where the caller is gone.

    Args:
        remedy: what to do after a process was killed, for the error.

    Raises:
        InputError: a process was killed.
    """
    if workers == 1 or len(jobs) <= 1:
        for number, job in enumerate(jobs):
            yield number, work(*job)
        return
    # Open3D's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)), mp_context=context, initializer=_end_with_parent
    )
    try:
        with _interrupts_ignored():
            futures = {pool.submit(work, *job): number for number, job in enumerate(jobs)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        raise InputError(
            f"--workers {workers}: a worker was killed, perhaps for want of memory; start again "
            f"with fewer workers{remedy}"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Lets a process end when the one that started it has, however that was."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started within stay deaf to Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
