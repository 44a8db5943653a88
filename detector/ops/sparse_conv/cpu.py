"""Numba kernels of the sparse convolution. They release the GIL; `detector.ops.threads` runs them.

Rows are handled in tiles: for every offset the tile's pairs (input row, output row) are listed,
then multiplied two pairs by four input channels at a time, so that a weight row is loaded once
for two pairs and an output row once for four channels, and stays in the nearest cache. Every
output is summed in the same order whatever the number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import njit

TILE = 256
# Fusing a multiplication with an addition is the only freedom the compiler gets.
FUSED = {"contract"}


@njit(nogil=True, cache=True, fastmath=FUSED)
def convolve(start, stop, features, weight, table, out):
    """out[o] += sum over k of features[table[k, o]] @ weight[k], for o in [start, stop)."""
    in_channels, out_channels = weight.shape[1:]
    blocked = in_channels // 4 * 4
    sources = np.empty(TILE, np.int64)
    targets = np.empty(TILE, np.int64)
    for tile in range(start, stop, TILE):
        tile_end = min(stop, tile + TILE)
        for k in range(len(table)):
            count = 0
            for o in range(tile, tile_end):
                if table[k, o] >= 0:
                    sources[count] = table[k, o]
                    targets[count] = o
                    count += 1
            w = weight[k]
            for pair in range(0, count - 1, 2):
                f, g = features[sources[pair]], features[sources[pair + 1]]
                p, q = out[targets[pair]], out[targets[pair + 1]]
                for c in range(0, blocked, 4):
                    f0, f1, f2, f3 = f[c], f[c + 1], f[c + 2], f[c + 3]
                    g0, g1, g2, g3 = g[c], g[c + 1], g[c + 2], g[c + 3]
                    for d in range(out_channels):
                        w0, w1, w2, w3 = w[c, d], w[c + 1, d], w[c + 2, d], w[c + 3, d]
                        p[d] = p[d] + f0 * w0 + f1 * w1 + f2 * w2 + f3 * w3
                        q[d] = q[d] + g0 * w0 + g1 * w1 + g2 * w2 + g3 * w3
                for c in range(blocked, in_channels):
                    for d in range(out_channels):
                        p[d] += f[c] * w[c, d]
                        q[d] += g[c] * w[c, d]
            if count % 2:
                f, p = features[sources[count - 1]], out[targets[count - 1]]
                for c in range(0, blocked, 4):
                    f0, f1, f2, f3 = f[c], f[c + 1], f[c + 2], f[c + 3]
                    for d in range(out_channels):
                        w0, w1, w2, w3 = w[c, d], w[c + 1, d], w[c + 2, d], w[c + 3, d]
                        p[d] = p[d] + f0 * w0 + f1 * w1 + f2 * w2 + f3 * w3
                for c in range(blocked, in_channels):
                    for d in range(out_channels):
                        p[d] += f[c] * w[c, d]


@njit(nogil=True, cache=True, fastmath=FUSED)
def weight_gradient(start, stop, features, out_gradient, table, gradient):
    """gradient[k] += sum over o of features[table[k, o]] (outer) out_gradient[o], for each k."""
    in_channels, out_channels = gradient.shape[1:]
    sources = np.empty(table.shape[1], np.int64)
    targets = np.empty(table.shape[1], np.int64)
    for k in range(start, stop):
        count = 0
        for o in range(table.shape[1]):
            if table[k, o] >= 0:
                sources[count] = table[k, o]
                targets[count] = o
                count += 1
        total = gradient[k]
        blocked = count // 4 * 4
        for pair in range(0, blocked, 4):
            f0, f1 = features[sources[pair]], features[sources[pair + 1]]
            f2, f3 = features[sources[pair + 2]], features[sources[pair + 3]]
            g0, g1 = out_gradient[targets[pair]], out_gradient[targets[pair + 1]]
            g2, g3 = out_gradient[targets[pair + 2]], out_gradient[targets[pair + 3]]
            for c in range(in_channels):
                row = total[c]
                a0, a1, a2, a3 = f0[c], f1[c], f2[c], f3[c]
                for d in range(out_channels):
                    row[d] = row[d] + a0 * g0[d] + a1 * g1[d] + a2 * g2[d] + a3 * g3[d]
        for pair in range(blocked, count):
            f, g = features[sources[pair]], out_gradient[targets[pair]]
            for c in range(in_channels):
                for d in range(out_channels):
                    total[c, d] += f[c] * g[d]
