"""Numba kernels of the sparse convolution. They release the GIL; `detector.ops.threads` runs them.

For every offset of the kernel, the pairs (input row, output row) of a tile of rows are listed and
then multiplied four rows at a time. The innermost loops are written in LLVM's vectors, because
what a compiler makes of plain loops checks in each of them whether rows overlap, and keeps sums in
memory: at 16 to 64 channels that takes two to three times as long. Here four rows by one or two
vectors of sums stay in registers. LLVM fits the vectors to the machine at hand.

Every sum is taken in the same order whatever the number of threads.

Numba's cache on disk looks at this file alone, so that all of it is here.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

VECTOR_BYTES = 64
"""Channels that are written must fill whole vectors."""
ROWS = 4
"""Rows that share a vector of weights, or of gradients, once it is loaded."""
TILE = 512
"""Output rows whose pairs are listed together."""
PAIRS = 64
"""Pairs that a block of the weight gradient takes in before its sums go back to memory."""


def _make_add_products(vectors: int):
    """The intrinsic below for sums of so many vectors."""

    @intrinsic
    def add_products(
        context, like, sources, targets, first, matrix, row_bytes, channels, shift
    ):  # fmt: skip
        """target[r][shift:] += source[r] @ matrix[:, shift:] for the four rows from `first`.

        `like` gives the dtype. `sources` and `targets` are addresses of lists of addresses of
        rows, `matrix` the address of `channels` rows of `row_bytes`; `shift` counts bytes. Four
        target rows must be apart.
        """
        signature = types.void(like, *[types.intp] * 7)

        def generate(ctx, builder, sig, arguments):
            lists, (first, matrix, row_bytes, channels, shift) = arguments[1:3], arguments[3:]
            scalar, vector = _kinds(ctx, sig.args[0].dtype)
            first = builder.mul(first, _number(8))
            source, target = (
                [
                    _load(builder, _number(0).type, builder.add(rows, first), 8 * r)
                    for r in range(ROWS)
                ]
                for rows in lists
            )
            target = [builder.add(row, shift) for row in target]
            sums = [_Sums(builder, vector, row, vectors) for row in target]
            with cgutils.for_range(builder, channels) as loop:
                place = builder.add(matrix, builder.mul(loop.index, row_bytes))
                weights = _load_vectors(builder, vector, builder.add(place, shift), vectors)
                column = builder.mul(loop.index, _number(_bytes(scalar)))
                for row, total in zip(source, sums, strict=True):
                    total.add(_load(builder, scalar, builder.add(row, column)), weights)
            for total in sums:
                total.store()
            return ctx.get_dummy_value()

        return signature, generate

    return add_products


def _make_add_outer_products(vectors: int):
    """The intrinsic below for sums of so many vectors."""

    @intrinsic
    def add_outer_products(
        context, like, sources, gradients, count, matrix, row_bytes, row, shift
    ):  # fmt: skip
        """matrix[row + r][shift:] += sum over pairs of source[row + r] * gradient[shift:], for the
        four rows from `row`.

        `sources` and `gradients` are addresses of lists of `count` addresses of rows.
        """
        signature = types.void(like, *[types.intp] * 7)

        def generate(ctx, builder, sig, arguments):
            sources, gradients, count, matrix, row_bytes, row, shift = arguments[1:]
            scalar, vector = _kinds(ctx, sig.args[0].dtype)
            column = builder.mul(row, _number(_bytes(scalar)))
            place = builder.add(builder.add(matrix, builder.mul(row, row_bytes)), shift)
            sums = []
            for _ in range(ROWS):
                sums.append(_Sums(builder, vector, place, vectors))
                place = builder.add(place, row_bytes)
            with cgutils.for_range(builder, count) as loop:
                entry = builder.mul(loop.index, _number(8))
                address = _number(0).type
                source = _load(builder, address, builder.add(sources, entry))
                source = builder.add(source, column)
                gradient = _load(builder, address, builder.add(gradients, entry))
                values = _load_vectors(builder, vector, builder.add(gradient, shift), vectors)
                for r, total in enumerate(sums):
                    total.add(_load(builder, scalar, source, r * _bytes(scalar)), values)
            for total in sums:
                total.store()
            return ctx.get_dummy_value()

        return signature, generate

    return add_outer_products


class _Sums:
    """A row of vectors that is loaded, added to, and stored again; LLVM keeps it in registers."""

    def __init__(self, builder, vector, address, vectors: int):
        self.builder, self.vector, self.address = builder, vector, address
        self.slots = [
            cgutils.alloca_once_value(builder, value)
            for value in _load_vectors(builder, vector, address, vectors)
        ]

    def add(self, factor, values) -> None:
        """Adds factor * values; a machine that can, rounds once."""
        builder, vector = self.builder, self.vector
        one = builder.insert_element(
            ir.Constant(vector, ir.Undefined), factor, ir.Constant(ir.IntType(32), 0)
        )
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
        factors = builder.shuffle_vector(one, one, everywhere)
        for slot, value in zip(self.slots, values, strict=True):
            product = builder.fmul(factors, value, flags=("contract",))
            total = builder.fadd(product, builder.load(slot), flags=("contract",))
            builder.store(total, slot)

    def store(self) -> None:
        for number, slot in enumerate(self.slots):
            place = _pointer(self.builder, self.vector, self.address, number * VECTOR_BYTES)
            stored = self.builder.store(self.builder.load(slot), place)
            stored.align = _bytes(self.vector.element)


def _kinds(context, dtype):
    """LLVM's types of one number and of a vector of them."""
    scalar = context.get_value_type(dtype)
    return scalar, ir.VectorType(scalar, VECTOR_BYTES // _bytes(scalar))


def _bytes(scalar) -> int:
    return 4 if isinstance(scalar, ir.FloatType) else 8


def _number(value: int):
    return ir.Constant(ir.IntType(64), value)


def _pointer(builder, kind, address, offset: int):
    return builder.inttoptr(builder.add(address, _number(offset)), kind.as_pointer())


def _load(builder, kind, address, offset: int = 0):
    """A value at an address that is a multiple of its numbers' size."""
    value = builder.load(_pointer(builder, kind, address, offset))
    value.align = _bytes(kind.element if isinstance(kind, ir.VectorType) else kind)
    return value


def _load_vectors(builder, vector, address, count: int):
    return [_load(builder, vector, address, number * VECTOR_BYTES) for number in range(count)]


_add_products_1, _add_products_2 = _make_add_products(1), _make_add_products(2)
_add_outer_products_1, _add_outer_products_2 = (
    _make_add_outer_products(1), _make_add_outer_products(2),
)  # fmt: skip


@njit(nogil=True, cache=True)
def convolve(start, stop, features, weight, table, out):
    """out[o] += sum over k of features[table[k, o]] @ weight[k], for o in [start, stop).

    Arrays are contiguous; output channels fill whole vectors.
    """
    in_channels = weight.shape[1]
    in_bytes, out_bytes = in_channels * out.itemsize, weight.shape[2] * out.itemsize
    first_feature, first_out = features.ctypes.data, out.ctypes.data
    sources = np.empty(TILE + ROWS, np.int64)
    targets = np.empty(TILE + ROWS, np.int64)
    unused = np.zeros(weight.shape[2], out.dtype)
    for tile in range(start, stop, TILE):
        for k in range(len(table)):
            count = 0
            for o in range(tile, min(stop, tile + TILE)):
                # Written in any case and kept if the row exists: no branch to guess wrong.
                row = np.int64(table[k, o])
                sources[count] = first_feature + row * in_bytes
                targets[count] = first_out + o * out_bytes
                count += row >= 0
            while count % ROWS:
                sources[count], targets[count] = sources[0], unused.ctypes.data
                count += 1
            matrix = weight.ctypes.data + k * in_channels * out_bytes
            for pair in range(0, count, ROWS):
                shift = 0
                while shift + 2 * VECTOR_BYTES <= out_bytes:
                    _add_products_2(
                        out, sources.ctypes.data, targets.ctypes.data, pair, matrix, out_bytes,
                        in_channels, shift,
                    )  # fmt: skip
                    shift += 2 * VECTOR_BYTES
                if shift < out_bytes:
                    _add_products_1(
                        out, sources.ctypes.data, targets.ctypes.data, pair, matrix, out_bytes,
                        in_channels, shift,
                    )  # fmt: skip


@njit(nogil=True, cache=True)
def weight_gradient(start, stop, features, out_gradient, table, gradient):
    """gradient[k] += sum over o of features[table[k, o]] (outer) out_gradient[o], k by k.

    Arrays are contiguous; output channels fill whole vectors, input channels come in fours.
    """
    in_channels = gradient.shape[1]
    in_bytes, out_bytes = in_channels * gradient.itemsize, gradient.shape[2] * gradient.itemsize
    sources = np.empty(PAIRS + 1, np.int64)
    gradients = np.empty(PAIRS + 1, np.int64)
    for k in range(start, stop):
        matrix = gradient.ctypes.data + k * in_channels * out_bytes
        count = 0
        for o in range(table.shape[1]):
            row = np.int64(table[k, o])
            sources[count] = features.ctypes.data + row * in_bytes
            gradients[count] = out_gradient.ctypes.data + o * out_bytes
            count += row >= 0
            if count < PAIRS and o < table.shape[1] - 1:
                continue
            for c in range(0, in_channels, ROWS):
                shift = 0
                while shift + 2 * VECTOR_BYTES <= out_bytes:
                    _add_outer_products_2(
                        gradient, sources.ctypes.data, gradients.ctypes.data, count, matrix,
                        out_bytes, c, shift,
                    )  # fmt: skip
                    shift += 2 * VECTOR_BYTES
                if shift < out_bytes:
                    _add_outer_products_1(
                        gradient, sources.ctypes.data, gradients.ctypes.data, count, matrix,
                        out_bytes, c, shift,
                    )  # fmt: skip
            count = 0
