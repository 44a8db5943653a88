"""Numba kernels of voxelization. They release the GIL; `detector.ops.threads` runs them."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def cells(start, stop, points, frame_of_point, minimum, size, shape, coordinates):
    """(frame, z, y, x) of each point, -1 throughout where it lies outside.

    The arithmetic is that of `VoxelGrid.coordinates`, in float32 to the bit.
    """
    for p in range(start, stop):
        x = np.floor((np.float32(points[p, 0]) - minimum[0]) / size[0])
        y = np.floor((np.float32(points[p, 1]) - minimum[1]) / size[1])
        z = np.floor((np.float32(points[p, 2]) - minimum[2]) / size[2])
        # A point that is not a number compares false.
        if 0 <= x < shape[2] and 0 <= y < shape[1] and 0 <= z < shape[0]:
            coordinates[p, 0] = frame_of_point[p]
            coordinates[p, 1] = np.int32(z)
            coordinates[p, 2] = np.int32(y)
            coordinates[p, 3] = np.int32(x)
        else:
            coordinates[p] = -1


@njit(nogil=True, cache=True)
def first_points(voxel_of_point, first):
    """first[v] = the lowest point of voxel v."""
    for p in range(len(voxel_of_point) - 1, -1, -1):
        if voxel_of_point[p] >= 0:
            first[voxel_of_point[p]] = p


@njit(nogil=True, cache=True)
def average(points, voxel_of_point, limit, counts, means):
    """Counts and means of each voxel's first `limit` points; the others leave their voxel."""
    channels = points.shape[1]
    sums = np.zeros((len(counts), channels), np.float64)
    for p in range(len(points)):
        voxel = voxel_of_point[p]
        if voxel < 0:
            continue
        if counts[voxel] == limit:
            voxel_of_point[p] = -1
            continue
        counts[voxel] += 1
        for c in range(channels):
            sums[voxel, c] += points[p, c]
    for voxel in range(len(counts)):
        for c in range(channels):
            means[voxel, c] = sums[voxel, c] / counts[voxel]


@njit(nogil=True, cache=True)
def place(points, voxel_of_point, filled, slots):
    """slots[v, i] = the i-th kept point of voxel v."""
    for p in range(len(points)):
        voxel = voxel_of_point[p]
        if voxel >= 0:
            slots[voxel, filled[voxel]] = points[p]
            filled[voxel] += 1
