"""Random sparse scenes for tests; imports no production code."""

import numpy as np
import torch

GRIDS = [(1, 1, 1), (2, 3, 5), (5, 4, 7), (3, 9, 70), (4, 5, 130)]
"""Shapes (Z, Y, X): one cell, odd sizes, and lines of more than one 64-bit word."""


def random_coordinates(shape, batch_size, density, seed, empty_frames=(), corners=True):
    """Sorted distinct (b, z, y, x) int32; the grid's first and last cells among them."""
    rng = np.random.default_rng(seed)
    filled = rng.random((batch_size, *shape)) < density
    if corners:
        filled[:, 0, 0, 0] = filled[:, -1, -1, -1] = True
    for frame in empty_frames:
        filled[frame] = False
    return torch.from_numpy(np.ascontiguousarray(np.argwhere(filled), np.int32))


def random_features(rows, channels, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, channels, generator=generator, dtype=torch.float64).to(dtype)


def entries_of(table, run):
    """Of rows, -1 where there are none, as `runs.cuh` describes."""
    if run == 1:
        return table
    runs = table.view(len(table) // run, run, table.shape[1])
    seen = runs >= 0
    first = runs.masked_fill(~seen, 1 << 30).amin(1)
    bits = (seen.int() << torch.arange(run, dtype=torch.int32)[:, None]).sum(1, dtype=torch.int32)
    for row in range(run):  # rows of a run follow one another
        assert torch.equal(runs[:, row][seen[:, row]], (first + seen[:, :row].sum(1))[seen[:, row]])
    return torch.where(bits > 0, first << run | bits, 0)
