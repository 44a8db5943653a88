"""The occupancy index in plain NumPy: sets of cells and dictionaries of rows."""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Int32

Triple = tuple[int, int, int]


def table(
    cells: Int32[np.ndarray, "V 4"],
    sites: Int32[np.ndarray, "N 4"],
    kernel_size: Triple,
    stride: Triple,
    padding: Triple,
    dilation: Triple,
) -> Int32[np.ndarray, "K N"]:
    """Row in `cells` of cell `site * stride - padding + offset * dilation`, or -1."""
    row_of = {tuple(cell): row for row, cell in enumerate(cells.tolist())}
    offsets = list(itertools.product(*map(range, kernel_size)))
    result = np.full((len(offsets), len(sites)), -1, np.int32)
    for n, (b, *site) in enumerate(sites.tolist()):
        for k, offset in enumerate(offsets):
            cell = [
                s * step - pad + o * dil
                for s, step, pad, o, dil in zip(
                    site, stride, padding, offset, dilation, strict=True
                )
            ]
            result[k, n] = row_of.get((b, *cell), -1)
    return result


def windows(
    cells: Int32[np.ndarray, "V 4"],
    out_shape: Triple,
    kernel_size: Triple,
    stride: Triple,
    padding: Triple,
    dilation: Triple,
) -> Int32[np.ndarray, "W 4"]:
    """Sorted output cells whose window holds one of the cells."""
    found = set()
    for b, *cell in cells.tolist():
        for offset in itertools.product(*map(range, kernel_size)):
            moved = [
                c + pad - o * dil
                for c, pad, o, dil in zip(cell, padding, offset, dilation, strict=True)
            ]
            if all(
                m % step == 0 and 0 <= m // step < size
                for m, step, size in zip(moved, stride, out_shape, strict=True)
            ):
                found.add((b, *(m // step for m, step in zip(moved, stride, strict=True))))
    return np.array(sorted(found), np.int32).reshape(-1, 4)
