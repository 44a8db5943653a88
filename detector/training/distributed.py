"""Several processes that train or evaluate one model together."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed, nn

from detector.errors import InputError

TIMEOUT = timedelta(minutes=30)
"""Longest wait of a process for the others: for the slowest evaluation of one of them."""


def join() -> tuple[int, int]:
    """Joins the processes that torchrun, or srun with several tasks, started; (rank, number of
    processes), (0, 1) for one by itself.

    Raises:
        InputError: srun's processes can't tell where the first of them is; more processes than
            GPUs.
    """
    if distributed.is_initialized():
        return position()
    if "RANK" not in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        _take_from_slurm()
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return 0, 1
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    if torch.cuda.is_available():
        place, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if place >= gpus:
            raise InputError(
                f"process {place + 1} of this node has no GPU, there are {gpus}; lower torchrun's "
                f"--nproc_per_node or srun's --ntasks-per-node to {gpus}"
            )
        torch.cuda.set_device(place)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=TIMEOUT)
    return position()


def leave() -> None:
    """Ends what `join` began, once all processes are done."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def position() -> tuple[int, int]:
    """(rank, number of processes)."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def device_of_process() -> torch.device:
    """The GPU of this process, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def gathered(value: Any) -> list[Any] | None:
    """The values of all processes by rank, on the first; None on the others."""
    rank, processes = position()
    if processes == 1:
        return [value]
    values: list[Any] | None = [None] * processes if rank == 0 else None
    distributed.gather_object(value, values)
    return values


def from_first(value: Any) -> Any:
    """The first process's value, on all."""
    if position()[1] == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


def share_buffers(module: nn.Module) -> None:
    """Gives all processes the first one's buffers: the running statistics of norms, of which each
    process gathers its own."""
    if position()[1] > 1:
        for buffer in module.buffers():
            distributed.broadcast(buffer, 0)


@contextmanager
def lost_process_named(rank: int, processes: int) -> Iterator[None]:
    """Turns the error of a process that others no longer answer into a sentence.

    Raises:
        InputError: in place of the backend's error.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        signs = ("Connection closed", "Connection reset", "Timed out", "timeout", "NCCL")
        if processes == 1 or not any(sign in text for sign in signs):
            raise
        raise InputError(
            f"process {rank} of {processes} waits for another one that has ended "
            f"({text.strip().splitlines()[0][:160]}); its own error stands elsewhere in this "
            f"output; go on with --resume"
        ) from error


def _take_from_slurm() -> None:
    """Says in torchrun's variables what srun's say."""
    if "MASTER_ADDR" not in os.environ:
        nodes = os.environ.get("SLURM_JOB_NODELIST", "")
        try:
            names = subprocess.run(
                ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
            ).stdout.split()
        except (OSError, subprocess.CalledProcessError) as error:
            raise InputError(
                f"MASTER_ADDR is not set and scontrol can't name the nodes {nodes!r} ({error}); "
                f"set MASTER_ADDR to the first node's name"
            ) from None
        os.environ["MASTER_ADDR"] = names[0]
    job = int(os.environ.get("SLURM_JOB_ID", 0))
    os.environ.setdefault("MASTER_PORT", str(20000 + job % 20000))
    os.environ["RANK"] = os.environ["SLURM_PROCID"]
    os.environ["WORLD_SIZE"] = os.environ["SLURM_STEP_NUM_TASKS"]
    os.environ["LOCAL_RANK"] = os.environ.get("SLURM_LOCALID", "0")
