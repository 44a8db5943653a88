"""Planned inference on a CPU.

The index and focal stages run from their own CUDA sources by the host's compiler, products in
NumPy. What the order of arguments, masks and counts do to a result is then seen without a GPU; what
streams do is not.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from types import SimpleNamespace

import numpy as np
import torch

import detector.sparse.planned.convolution
from detector.ops import cuda_runtime
from detector.ops.occupancy import gpu_bitmap
from detector.ops.sparse_conv import tensor_cores
from tests.oracles.cuda_on_cpu import OPS, CpuKernels
from tests.oracles.launches_on_cpu import at, rows_of

SOURCES = {
    "index.cu": ("mark", "scan", "emit", "mark_windows", "clear"),
    "tables.cu": ("fill_table", "fill_scanned"),
    "foreground.cu": ("list_keys", "find_cuts"),
    "choice.cu": ("mark_chosen", "gate"),
    "grown.cu": ("number_added", "fill_grown"),
}


class Stream:
    """Work is done in the order in which it is started."""

    def __init__(self, *_, **__):
        pass

    def wait_stream(self, _):
        pass

    def wait_event(self, _):
        pass

    def record_event(self):
        return None


def stand_in(monkeypatch, folder) -> None:
    """Puts the CPU in the GPU's place."""
    compiled: dict[tuple, CpuKernels] = {}
    weights: dict[int, np.ndarray] = {}

    def start(kernel, grid, threads, *arguments, device, overlap=False):
        if kernel.name in ("pack", "convolve"):
            own = pack if kernel.name == "pack" else convolve
            own(weights, kernel.defines, *arguments)
        elif kernel.name in KERNELS:
            KERNELS[kernel.name](*arguments)
        else:
            key = kernel.path, tuple(sorted(kernel.defines.items()))
            if key not in compiled:
                place = folder / str(len(compiled))
                place.mkdir()
                compiled[key] = CpuKernels(
                    os.path.relpath(kernel.path, OPS), SOURCES[kernel.path.name], place,
                    kernel.defines,
                )  # fmt: skip
            if kernel.name == "find_cuts":  # takes a double
                arguments = [ctypes.c_double(a) if isinstance(a, float) else a for a in arguments]
            getattr(compiled[key], kernel.name)(grid[0], threads, *arguments)

    monkeypatch.setattr(cuda_runtime.Kernel, "__call__", start)
    monkeypatch.setattr(tensor_cores, "multiprocessors", lambda _: 132)
    monkeypatch.setattr(tensor_cores, "shared_memory_limit", lambda _: 227 << 10)
    monkeypatch.setattr(tensor_cores, "_is_hopper", lambda _: False)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.Tensor, "get_device", lambda _: 0)
    # Modules that name the GPU get the CPU, whose index they ask for.
    on_cpu = dict(vars(torch), device=lambda *_: torch.device("cpu"))
    monkeypatch.setattr(
        detector.sparse.planned.convolution, "torch", SimpleNamespace(**on_cpu)
    )
    on_first = dict(vars(torch), device=lambda *_: SimpleNamespace(index=0))
    monkeypatch.setattr(gpu_bitmap, "torch", SimpleNamespace(**on_first))
    factories = ("zeros", "ones", "empty")
    for name in factories:
        real = getattr(torch, name)

        def make(*sizes, real=real, device=None, **others):
            return real(*sizes, **others)

        monkeypatch.setattr(torch, name, make)
        for module in (detector.sparse.planned.convolution, gpu_bitmap):
            setattr(module.torch, name, make)


def pack(weights, defines, given, is_float32, turned, flipped, scale, source, target, packed):
    offsets, wide = defines["OFFSETS"], (defines["CIN"], defines["COUT"])
    made = np.zeros((offsets, *wide), np.float32)
    made[:, :source, :target] = at(given, np.float32, offsets, source, target)
    made[:, :, :target] *= at(scale, np.float32, target)
    weights[packed.data_ptr()] = made.astype(np.float16).astype(np.float32)


def convolve(weights, defines, features, packed, table, pitch, masks, order, tiles, count,
             capacity, bias, residual, relu, out, follows):  # fmt: skip
    assert order is None
    offsets, source, target = (defines[name] for name in ("OFFSETS", "CIN", "COUT"))
    rows = rows_of(capacity, count)
    columns = at(table, np.int32, (offsets - 1) * pitch + rows)
    of_tile = at(masks, np.uint32, -(-rows // 32), -(-offsets // 32))[np.arange(rows) // 32]
    total = np.zeros((rows, target), np.float32) + at(bias, np.float32, target)
    for k, weight in enumerate(weights[packed.data_ptr()]):
        row = columns[k * pitch : k * pitch + rows]
        # The kernel skips offsets that a tile's mask leaves out.
        seen = (row >= 0) & (of_tile[:, k // 32] >> k % 32 & 1 == 1)
        given = at(features, np.float16, int(row.max(initial=-1)) + 1, source)
        total[seen] += given[row[seen]].astype(np.float32) @ weight
    if residual is not None:
        total += at(residual, np.float16, rows, target)
    at(out, np.float16, rows, target)[:] = np.maximum(total, 0) if relu else total


def place_rows(coordinates, features, channels, count, capacity, words, rank, z, y, w, rows, out,
               pitch):  # fmt: skip
    cells = coordinates[: int(count)].numpy().astype(np.int64)
    word = ((cells[:, 0] * z + cells[:, 1]) * y + cells[:, 2]) * w + cells[:, 3] // 32
    before = words.numpy().view(np.uint32)[word] & ((1 << cells[:, 3] % 32) - 1)
    row = rank.numpy()[word] + np.array([int(bits).bit_count() for bits in before])
    out[torch.from_numpy(row), :channels] = features[: int(count)].to(out.dtype)


def remember(counts, most, n):
    torch.maximum(most, counts, out=most)


KERNELS = dict(place_rows=place_rows, remember=remember)
