"""Sparse convolutions by way of dense ones; imports no production code.

Weights are (kz, ky, kx, in, out), coordinates (b, z, y, x), strides and the like triples (z, y, x).
All is differentiable, and as exact as the dtype given.
"""

import torch
from torch.nn import functional


def to_dense(features, coordinates, shape, batch_size):
    """(B, C, Z, Y, X)."""
    grid = torch.zeros(batch_size, *shape, features.shape[1], dtype=features.dtype)
    cells = tuple(coordinates.long().unbind(1))
    return grid.index_put(cells, features).permute(0, 4, 1, 2, 3)


def at(grid, coordinates):
    """(V, C) of a (B, C, Z, Y, X) grid."""
    return grid.permute(0, 2, 3, 4, 1)[tuple(coordinates.long().unbind(1))]


def submanifold(features, coordinates, shape, batch_size, weight, dilation=(1, 1, 1), bias=None):
    """Features on the same coordinates. An even kernel of size k reaches k // 2 cells down."""
    grid = to_dense(features, coordinates, shape, batch_size)
    margins = []
    for size, step in zip(weight.shape[2::-1], dilation[::-1], strict=True):
        margins += [step * (size // 2), step * (size - 1 - size // 2)]
    out = functional.conv3d(
        functional.pad(grid, margins), weight.permute(4, 3, 0, 1, 2), bias, dilation=dilation
    )
    return at(out, coordinates)


def strided(
    features, coordinates, shape, batch_size, weight, stride, padding, dilation=(1, 1, 1), bias=None
):
    """(features, sorted coordinates, shape) of the output."""
    ones = torch.ones(len(coordinates), 1, dtype=features.dtype)
    touched = functional.conv3d(
        to_dense(ones, coordinates, shape, batch_size),
        torch.ones(1, 1, *weight.shape[:3], dtype=features.dtype),
        None, stride, padding, dilation,
    )  # fmt: skip
    out_coordinates = (touched[:, 0] > 0.5).nonzero().int()
    out = functional.conv3d(
        to_dense(features, coordinates, shape, batch_size), weight.permute(4, 3, 0, 1, 2), bias,
        stride, padding, dilation,
    )  # fmt: skip
    return at(out, out_coordinates), out_coordinates, tuple(out.shape[2:])


def inverse(features, coordinates, fine_coordinates, fine_shape, weight, stride, padding,
            dilation=(1, 1, 1)):  # fmt: skip
    """Features on the fine coordinates: out[o * stride - padding + k * dilation] += in[o] @ w[k],
    one voxel after another."""
    row_of = {tuple(cell): row for row, cell in enumerate(fine_coordinates.tolist())}
    out = [torch.zeros(weight.shape[4], dtype=features.dtype) for _ in row_of]
    for row, (b, *cell) in enumerate(coordinates.tolist()):
        for i in range(weight.shape[0]):
            for j in range(weight.shape[1]):
                for k in range(weight.shape[2]):
                    fine = tuple(
                        c * s - p + o * d
                        for c, s, p, o, d in zip(
                            cell, stride, padding, (i, j, k), dilation, strict=True
                        )
                    )
                    if (b, *fine) in row_of:
                        target = row_of[(b, *fine)]
                        out[target] = out[target] + features[row] @ weight[i, j, k]
    return torch.stack(out) if out else features.new_zeros(0, weight.shape[4])
