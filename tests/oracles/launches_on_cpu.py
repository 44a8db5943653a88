"""The kernels that train a chain of sparse convolutions, in NumPy on a CPU's memory.

They stand in for `Kernel` where there is no GPU, with the same arguments: addresses and sizes. What
order, places and lifetimes of buffers do to a result is then seen without one.
"""

from __future__ import annotations

import ctypes

import numpy as np

from detector.ops import cuda_runtime
from detector.ops.sparse_conv import tensor_cores
from detector.ops.sparse_conv import weight_gradient as of_weights


def stand_in(monkeypatch) -> list[str]:
    """Puts these kernels in the GPU's place; the names of those that are started, in order."""
    started: list[str] = []

    def start(kernel, grid, threads, *arguments, device, overlap=False):
        started.append(kernel.name)
        KERNELS[kernel.name](kernel.defines, *arguments)

    monkeypatch.setattr(cuda_runtime.Kernel, "__call__", start)
    for module in (tensor_cores, of_weights):
        monkeypatch.setattr(module, "shared_memory_limit", lambda device: 227 << 10)
        monkeypatch.setattr(module, "multiprocessors", lambda device: 132)
    monkeypatch.setattr(tensor_cores, "_is_hopper", lambda device: True)
    return started


def at(memory, dtype, *shape):
    """What is at an address or in a tensor, to read and write."""
    address = memory if isinstance(memory, int) else memory.data_ptr()
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * count).from_address(address), dtype).reshape(shape)


def rows_of(rows, count):
    """How many hold anything."""
    return rows if count is None else min(int(at(count, np.int32, 1)[0]), rows)


def pack(defines, given, is_float32, turned, flipped, scale, source, target, packed):
    offsets, wide = defines["OFFSETS"], (defines["CIN"], defines["COUT"])
    shape = (offsets, target, source) if turned else (offsets, source, target)
    weight = at(given, np.float32 if is_float32 else np.float16, *shape)
    weight = weight.swapaxes(1, 2) if turned else weight
    weight = weight[::-1] if flipped else weight
    filled = np.zeros((offsets, *wide), np.float16)
    filled[:, :source, :target] = weight
    at(packed, np.float16, *filled.shape)[:] = filled


def convolve(defines, features, packed, table, pitch, masks, order, tiles, count, capacity, bias,
             residual, relu, out, follows):  # fmt: skip
    assert order is None
    offsets, source, target = (defines[name] for name in ("OFFSETS", "CIN", "COUT"))
    rows = rows_of(capacity, count)
    tables = at(table, np.int32, (offsets - 1) * pitch + rows)
    tables = [tables[k * pitch : k * pitch + rows] for k in range(offsets)]
    most = max(int(t.max(initial=-1)) for t in tables) + 1
    given = at(features, np.float16, most, source).astype(np.float32)
    weights = at(packed, np.float16, offsets, source, target).astype(np.float32)
    total = np.zeros((rows, target), np.float32)
    for seen, weight in zip(tables, weights, strict=True):
        total[seen >= 0] += given[seen[seen >= 0]] @ weight
    if residual is not None:
        total += at(residual, np.float16, rows, target)
    at(out, np.float16, rows, target)[:] = np.maximum(total, 0) if relu else total


def weight_gradient(defines, features, out_gradient, table, pitch, count, capacity, offsets,
                    slices, heavy, heavy_slices, partial):  # fmt: skip
    source, target = defines["CIN"], defines["COUT"]
    rows = rows_of(capacity, count)
    tables = at(table, np.int32, (offsets - 1) * pitch + rows)
    gradient = at(out_gradient, np.float16, rows, target).astype(np.float32)
    total = at(partial, np.float32, max(slices, heavy_slices), offsets, source, target)
    total[:] = np.nan
    for k in range(offsets):
        seen = tables[k * pitch : k * pitch + rows]
        given = at(features, np.float16, int(seen.max(initial=-1)) + 1, source)
        total[0, k] = given[seen[seen >= 0]].astype(np.float32).T @ gradient[seen >= 0]


def reduce(defines, partial, slices, heavy, heavy_slices, offsets, source, gradient):
    target = defines["COUT"]
    total = at(partial, np.float32, offsets, defines["CIN"], target)
    at(gradient, np.float32, offsets, source, target)[:] = total[:, :source]


def sum_rows(defines, x, rows, count, partial):
    at(partial, np.float32, 2 * defines["CHANNELS"])[:] = 1


def normalize(defines, x, partial, parts, rows, count, weight, bias, eps, momentum,
              running_mean, running_variance, batches, residual, statistics, y):  # fmt: skip
    channels, rows = defines["CHANNELS"], rows_of(rows, count)
    values = at(x, np.float16, rows, channels).astype(np.float64)
    mean, variance = values.mean(0), values.var(0)
    inverse = 1 / np.sqrt(variance + eps)
    scale = (inverse * at(weight, np.float32, channels)).astype(np.float32)
    shift = (at(bias, np.float32, channels) - mean * scale).astype(np.float32)
    at(statistics, np.float32, 4, channels)[:] = np.stack([mean, inverse, scale, shift])
    for running, now in ((running_mean, mean), (running_variance, variance * rows / (rows - 1))):
        kept = at(running, np.float32, channels)
        kept += momentum * (now - kept)
    at(batches, np.int64, 1)[:] += 1
    made = values * scale.astype(np.float64) + shift
    if defines["RESIDUAL"]:
        made = made + at(residual, np.float16, rows, channels)
    at(y, np.float16, rows, channels)[:] = np.maximum(made, 0) if defines["RELU"] else made


def normalize_again(defines, x, rows, count, statistics, y):
    channels, rows = defines["CHANNELS"], rows_of(rows, count)
    _, _, scale, shift = at(statistics, np.float32, 4, channels).astype(np.float64)
    made = at(x, np.float16, rows, channels).astype(np.float64) * scale + shift
    at(y, np.float16, rows, channels)[:] = np.maximum(made, 0) if defines["RELU"] else made


def sum_gradients(defines, gradient, x, y, rows, count, statistics, partial):
    at(partial, np.float32, 2 * defines["CHANNELS"])[:] = 1


def input_gradient(defines, gradient, x, y, partial, parts, rows, count, weight, statistics,
                   parameters, residual_gradient, x_gradient):  # fmt: skip
    channels, rows = defines["CHANNELS"], rows_of(rows, count)
    mean, inverse, scale, shift = at(statistics, np.float32, 4, channels).astype(np.float64)
    values = at(x, np.float16, rows, channels).astype(np.float64)
    arriving = at(gradient, np.float16, rows, channels).astype(np.float64)
    if defines["RELU"]:
        made = at(y, np.float16, rows, channels) if defines["RESIDUAL"] else values * scale + shift
        arriving = np.where(made > 0, arriving, 0)
    normal = (values - mean) * inverse
    of_weight, of_bias = (arriving * normal).sum(0), arriving.sum(0)
    at(parameters, np.float32, 2, channels)[:] = np.stack([of_weight, of_bias])
    if defines["RESIDUAL"]:
        at(residual_gradient, np.float16, rows, channels)[:] = arriving
    at(x_gradient, np.float16, rows, channels)[:] = (
        at(weight, np.float32, channels) * inverse
        * (arriving - of_bias / rows - normal * of_weight / rows)
    )  # fmt: skip


def transpose_table(defines, table, pitch, columns, count, turned, turned_pitch):
    offsets = len(table)
    columns = rows_of(columns, count)
    tables = at(table, np.int32, (offsets - 1) * pitch + columns)
    to = at(turned, np.int32, (offsets - 1) * turned_pitch + turned.shape[1])
    for k in range(offsets):
        seen = tables[k * pitch : k * pitch + columns]
        to[k * turned_pitch + seen[seen >= 0]] = np.flatnonzero(seen >= 0)


def mask_table(defines, *arguments):
    """Which offsets a tile uses: a shortcut that these kernels don't take."""


KERNELS = {
    one.__name__: one
    for one in (
        pack, convolve, weight_gradient, reduce, sum_rows, normalize, normalize_again,
        sum_gradients, input_gradient, transpose_table, mask_table,
    )
}  # fmt: skip
