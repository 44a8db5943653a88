"""Functions run by several processes that know of each other, without starting Python anew."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any


def run_processes(function: Callable[[int], Any], count: int = 2, timeout: float = 120) -> list:
    """What `function(rank)` gives in each process, as torchrun would have started them.

    Raises:
        AssertionError: a process failed; holds its traceback.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")
    ends = []
    for rank in range(count):
        ours, theirs = context.Pipe()
        process = context.Process(target=_run, args=(function, rank, count, port, theirs))
        process.start()
        # So that its end closes when the process does.
        theirs.close()
        ends.append((process, ours))
    results = []
    try:
        for process, ours in ends:
            assert ours.poll(timeout), "a process gave no answer"
            try:
                good, value = ours.recv()
            except EOFError:
                good, value = False, f"a process ended with status {process.exitcode}"
            results.append(value if good else AssertionError(value))
    finally:
        for process, _ in ends:
            process.join(5)
            process.kill()
    for result in results:
        if isinstance(result, AssertionError):
            raise result
    return results


def _run(function, rank: int, count: int, port: int, pipe) -> None:
    import torch

    # Threads of OpenMP do not survive a fork.
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )  # fmt: skip
    try:
        pipe.send((True, function(rank)))
    except BaseException:
        pipe.send((False, traceback.format_exc()))
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        pipe.close()
        os._exit(0)
