"""The height of the ground anywhere in a frame, from its points alone."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numba import njit

CELL = 1.0
"""Side of a cell, metres."""
REACH = 100.0
"""Farther points, along x or y, are left out, metres."""
RADII = (3.0, 6.0, 12.0)
"""Around a place, the first radius with enough cells counts, metres."""
LEAST_CELLS = 6
QUANTILE = 0.25
"""Of the cells' lowest points: some cells hold only points on objects, which lie higher, and a
few hold reflections from below the road."""


class GroundMap:
    """Heights of the ground in a frame.

    Args:
        points: x, y, z and other columns, metres.
    """

    def __init__(self, points: Float[np.ndarray, "P 3+"]):
        self.lowest = _lowest(np.ascontiguousarray(points, np.float32), int(2 * REACH / CELL))

    def heights(self, places: Float[np.ndarray, "N 2+"]) -> Float[np.ndarray, " N"]:
        """z of the ground at x and y of each place; NaN where no points are near."""
        return _heights(self.lowest, np.ascontiguousarray(places[:, :2], np.float64))


@njit(cache=True, nogil=True)
def _lowest(points, side):
    lowest = np.full((side, side), np.inf, np.float32)
    for p in range(len(points)):
        row = int(np.floor((points[p, 0] + REACH) / CELL))
        column = int(np.floor((points[p, 1] + REACH) / CELL))
        if 0 <= row < side and 0 <= column < side and points[p, 2] < lowest[row, column]:
            lowest[row, column] = points[p, 2]
    return lowest


@njit(cache=True, nogil=True)
def _heights(lowest, places):
    out = np.full(len(places), np.nan)
    widest = int(RADII[-1] / CELL) + 1
    found = np.empty((2 * widest + 1) ** 2)
    for n in range(len(places)):
        x, y = (places[n, 0] + REACH) / CELL, (places[n, 1] + REACH) / CELL
        for radius in RADII:
            count, reach = 0, radius / CELL
            for row in range(max(int(x - reach), 0), min(int(x + reach) + 1, len(lowest))):
                for column in range(max(int(y - reach), 0), min(int(y + reach) + 1, len(lowest))):
                    away = (row + 0.5 - x) ** 2 + (column + 0.5 - y) ** 2
                    if away <= reach * reach and lowest[row, column] < np.inf:
                        found[count] = lowest[row, column]
                        count += 1
            if count >= LEAST_CELLS:
                out[n] = np.quantile(found[:count], QUANTILE)
                break
    return out
