"""The few things read from protobuf's wire format directly: large matrices, which would otherwise
pass through a Python object a number, and the head of a record, without the rest of it."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator
from mmap import mmap

import numpy as np
from numba import njit

VARINT, FIXED_64, LENGTH, FIXED_32 = 0, 1, 2, 5
# More than any image of the data set takes; stops damaged data from filling the memory.
LARGEST_MATRIX_BYTES = 256 << 20


class WireError(ValueError):
    """The bytes are no message of the expected kind; says what is wrong, not in which file."""


def wire_fields(
    content: bytes | mmap,
    start: int = 0,
    stop: int | None = None,
    *,
    wanted: Collection[int] | None = None,
) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field in [start, stop): a varint's number, or the bytes of
    anything else. Fields not wanted are stepped over without a look inside.

    Raises:
        WireError: damaged or cut short; fields before that have been given out.
    """
    place, stop = start, len(content) if stop is None else stop
    while place < stop:
        key, place = read_varint(content, place)
        kind = key & 7
        if kind == VARINT:
            value, place = read_varint(content, place)
            if wanted is None or key >> 3 in wanted:
                yield key >> 3, value
            continue
        if kind == LENGTH:
            size, place = read_varint(content, place)
        elif kind in (FIXED_32, FIXED_64):
            size = 4 if kind == FIXED_32 else 8
        else:
            raise WireError(f"wire type {kind} at byte {place}")
        if place + size > stop:
            raise WireError(f"cut short at byte {place}")
        if wanted is None or key >> 3 in wanted:
            yield key >> 3, content[place : place + size]
        place += size


def wire_field(number: int, value: int | bytes) -> bytes:
    """One field as `wire_fields` gives it, for a number or bytes of any length."""
    if isinstance(value, int):
        return varint(number << 3 | VARINT) + varint(value)
    return varint(number << 3 | LENGTH) + varint(len(value)) + value


def read_varint(content: bytes | mmap, place: int) -> tuple[int, int]:
    """The number at `place` and where it ends."""
    value = shift = 0
    while place < len(content) and shift < 64:
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise WireError(f"cut short at byte {place}")


def varint(number: int) -> bytes:
    """A number >= 0 as a varint."""
    parts = bytearray()
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def read_matrix(compressed: bytes, dtype: type) -> np.ndarray:
    """A zlib-compressed MatrixFloat (dtype float32) or MatrixInt32 (int32) in its own shape.

    Raises:
        WireError: damaged, or its shape isn't its number of values.
    """
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(compressed, LARGEST_MATRIX_BYTES)
    except zlib.error as error:
        raise WireError(f"can't be decompressed ({error})") from error
    if not unpacker.eof:
        raise WireError("its compressed data is cut short")
    parts, shape = [np.zeros(0, dtype)], []
    for number, value in wire_fields(content):
        if number == 1 and isinstance(value, bytes):
            parts.append(_numbers(value, dtype))
        elif number == 2 and isinstance(value, bytes):
            for inner, dimension in wire_fields(value):
                if inner == 1:
                    shape.extend(
                        [dimension] if isinstance(dimension, int) else _varints(dimension)
                    )
    values = np.concatenate(parts)
    if len(values) != np.prod(shape, dtype=float) or not shape:
        raise WireError(f"{len(values)} values for a shape of {shape}")
    return values.reshape(shape)


def _numbers(value: bytes, dtype: type) -> np.ndarray:
    if np.issubdtype(dtype, np.floating):
        if len(value) % 4:
            raise WireError(f"{len(value)} bytes of single precision")
        return np.frombuffer(value, "<f4").astype(dtype, copy=False)
    return np.array(_varints(value), dtype)


def _varints(value: bytes) -> np.ndarray:
    """Packed int32s."""
    content = np.frombuffer(value, np.uint8)
    numbers = np.empty(np.count_nonzero(content < 0x80), np.int32)
    if len(content) and content[-1] >= 0x80:
        raise WireError("cut short within a number")
    _unpack_varints(content, numbers)
    return numbers


@njit(cache=True, nogil=True)
def _unpack_varints(content, numbers):
    count, value, shift = 0, np.uint64(0), np.uint64(0)
    for byte in content:
        if shift < 64:
            value |= np.uint64(byte & 0x7F) << shift
        shift += np.uint64(7)
        if byte < 0x80:
            numbers[count] = np.int32(np.int64(value & np.uint64(0xFFFFFFFF)))
            count, value, shift = count + 1, np.uint64(0), np.uint64(0)
