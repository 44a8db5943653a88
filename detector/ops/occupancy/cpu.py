"""Numba kernels of the bitmap index. All release the GIL; `detector.ops.threads` runs them.

A bitmap has one bit a cell in 64-bit words along x: cell (b, z, y, x) is bit x % 64 of word
((b * Z + z) * Y + y) * W + x // 64, W = ceil(X / 64). `rank[word]` is the row of the word's first
set bit, and means nothing where the word is 0. `lines[(b * Z + z) * Y + y]` is 1 where a line
along x holds any bit, so that empty lines, most of a LiDAR grid, are passed over unread.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

ONE = np.uint64(1)
BITS = np.int64(63)
IN_ORDER, OUT_OF_ORDER, REPEATED = -1, -2, -3


@intrinsic
def count_bits(context, word):
    """Number of set bits of an unsigned 64-bit word."""
    return types.int64(types.uint64), lambda ctx, builder, sig, args: builder.ctpop(args[0])


@intrinsic
def lowest_bit(context, word):
    """Position of the lowest set bit of an unsigned 64-bit word that is not 0."""

    def generate(ctx, builder, sig, args):
        return builder.cttz(args[0], ctx.get_constant(types.boolean, True))

    return types.int64(types.uint64), generate


@njit(nogil=True, cache=True)
def check_coordinates(coordinates, batch_size, z_size, y_size, x_size):
    """IN_ORDER, OUT_OF_ORDER, REPEATED, or the first row that lies outside the grid.

    Repetitions are noticed where the rows are in order.
    """
    state = IN_ORDER
    last = np.int64(-1)
    for row in range(len(coordinates)):
        b, z, y, x = coordinates[row]
        if not (0 <= b < batch_size and 0 <= z < z_size and 0 <= y < y_size and 0 <= x < x_size):
            return row
        key = ((np.int64(b) * z_size + z) * y_size + y) * x_size + x
        if key < last:
            state = OUT_OF_ORDER
        elif key == last and state == IN_ORDER:
            state = REPEATED
        last = key
    return state


@njit(nogil=True, cache=True)
def mark(coordinates, words, lines, z_size, y_size, line_words):
    """Sets the bits of coordinates; rows with b < 0 are passed over."""
    for row in range(len(coordinates)):
        b, z, y, x = coordinates[row]
        if b < 0:
            continue
        line = (np.int64(b) * z_size + z) * y_size + y
        lines[line] = 1
        words[line * line_words + (x >> 6)] |= ONE << np.uint64(x & BITS)


@njit(nogil=True, cache=True)
def mark_sorted(coordinates, words, rank, lines, z_size, y_size, line_words):
    """Sets bits and ranks of coordinates that are sorted and distinct."""
    for row in range(len(coordinates)):
        b, z, y, x = coordinates[row]
        line = (np.int64(b) * z_size + z) * y_size + y
        lines[line] = 1
        word = line * line_words + (x >> 6)
        if words[word] == 0:
            rank[word] = row
        words[word] |= ONE << np.uint64(x & BITS)


@njit(nogil=True, cache=True)
def mark_windows(
    coordinates, words, lines, z_size, y_size, x_size, line_words,
    kernel_size, stride, padding, dilation,
):  # fmt: skip
    """Sets the bits of every output cell whose window holds one of the coordinates."""
    for row in range(len(coordinates)):
        b, z, y, x = coordinates[row]
        for i in range(kernel_size[0]):
            out_z = z + padding[0] - i * dilation[0]
            if out_z < 0 or out_z % stride[0]:
                continue
            out_z //= stride[0]
            if out_z >= z_size:
                continue
            for j in range(kernel_size[1]):
                out_y = y + padding[1] - j * dilation[1]
                if out_y < 0 or out_y % stride[1]:
                    continue
                out_y //= stride[1]
                if out_y >= y_size:
                    continue
                line = (np.int64(b) * z_size + out_z) * y_size + out_y
                for k in range(kernel_size[2]):
                    out_x = x + padding[2] - k * dilation[2]
                    if out_x < 0 or out_x % stride[2]:
                        continue
                    out_x //= stride[2]
                    if out_x < x_size:
                        lines[line] = 1
                        words[line * line_words + (out_x >> 6)] |= ONE << np.uint64(out_x & BITS)


@njit(nogil=True, cache=True)
def mark_chosen(
    coordinates, chosen, words, lines, z_size, y_size, x_size, line_words, kernel_size
):  # fmt: skip
    """Sets the bits of the neighbours inside the grid that each row chose, by kernel offset."""
    for row in range(len(coordinates)):
        b, z, y, x = coordinates[row]
        for k in range(chosen.shape[1]):
            if not chosen[row, k]:
                continue
            to_z = z + k // (kernel_size[1] * kernel_size[2]) - kernel_size[0] // 2
            to_y = y + k // kernel_size[2] % kernel_size[1] - kernel_size[1] // 2
            to_x = x + k % kernel_size[2] - kernel_size[2] // 2
            if 0 <= to_z < z_size and 0 <= to_y < y_size and 0 <= to_x < x_size:
                line = (np.int64(b) * z_size + to_z) * y_size + to_y
                lines[line] = 1
                words[line * line_words + (to_x >> 6)] |= ONE << np.uint64(to_x & BITS)


@njit(nogil=True, cache=True)
def count_lines(start, stop, words, lines, line_words, counts):
    """counts[line] = number of set bits."""
    for line in range(start, stop):
        total = 0
        if lines[line]:
            for word in range(line * line_words, (line + 1) * line_words):
                total += count_bits(words[word])
        counts[line] = total


@njit(nogil=True, cache=True)
def emit_lines(start, stop, words, rank, lines, z_size, y_size, line_words, ends, coordinates):
    """Writes ranks and coordinates of all set bits; ends[line] = rows up to and with the line."""
    for line in range(start, stop):
        if not lines[line]:
            continue
        row = ends[line - 1] if line else 0
        y = line % y_size
        z = line // y_size % z_size
        b = line // y_size // z_size
        for offset in range(line_words):
            word = words[line * line_words + offset]
            rank[line * line_words + offset] = row
            while word:
                coordinates[row, 0] = b
                coordinates[row, 1] = z
                coordinates[row, 2] = y
                coordinates[row, 3] = (offset << 6) + lowest_bit(word)
                word &= word - ONE
                row += 1


@njit(inline="always")
def _row_of(words, rank, base, x):
    word = words[base + (x >> 6)]
    position = np.uint64(x & BITS)
    if (word >> position) & ONE:
        return rank[base + (x >> 6)] + count_bits(word & ((ONE << position) - ONE))
    return np.int64(-1)


@njit(nogil=True, cache=True)
def find_rows(
    start, stop, coordinates, words, rank, lines, batch_size, z_size, y_size, x_size, line_words,
    rows,
):  # fmt: skip
    """rows[n] = row of coordinates[n], or -1 where the cell is empty or outside the grid."""
    for n in range(start, stop):
        b, z, y, x = coordinates[n]
        rows[n] = -1
        if 0 <= b < batch_size and 0 <= z < z_size and 0 <= y < y_size and 0 <= x < x_size:
            line = (np.int64(b) * z_size + z) * y_size + y
            if lines[line]:
                rows[n] = _row_of(words, rank, line * line_words, x)


@njit(nogil=True, cache=True)
def fill_table(
    start, stop, sites, words, rank, lines, z_size, y_size, x_size, line_words,
    kernel_size, stride, padding, dilation, table,
):  # fmt: skip
    """table[k, n] = row of cell sites[n] * stride - padding + offset_k * dilation, or -1."""
    for n in range(start, stop):
        b, z, y, x = sites[n]
        offset = 0
        left = x * stride[2] - padding[2]
        for i in range(kernel_size[0]):
            in_z = z * stride[0] - padding[0] + i * dilation[0]
            for j in range(kernel_size[1]):
                in_y = y * stride[1] - padding[1] + j * dilation[1]
                line = (np.int64(b) * z_size + in_z) * y_size + in_y
                if 0 <= in_z < z_size and 0 <= in_y < y_size and lines[line]:
                    for k in range(kernel_size[2]):
                        in_x = left + k * dilation[2]
                        if 0 <= in_x < x_size:
                            table[offset + k, n] = _row_of(words, rank, line * line_words, in_x)
                        else:
                            table[offset + k, n] = -1
                else:
                    for k in range(kernel_size[2]):
                        table[offset + k, n] = -1
                offset += kernel_size[2]


@njit(nogil=True, cache=True)
def transpose_table(start, stop, table, transposed):
    """transposed[k, table[k, n]] = n; each offset on its own."""
    for offset in range(start, stop):
        for n in range(table.shape[1]):
            row = table[offset, n]
            if row >= 0:
                transposed[offset, row] = n
