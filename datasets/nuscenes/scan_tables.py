"""nuScenes' tables straight from their bytes, in Numba: many times faster than through `json`.

It reads what is right and tells nothing about what is wrong: `scan_parts` raises `NotPlain` where
it does not understand a table, and `datasets.nuscenes.columns` reads on through `json`. Fields that
nobody asks for are passed over and not checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numba
import numpy as np

from datasets.nuscenes.json_bytes import (
    CLOSE,
    CLOSE_LIST,
    COLON,
    COMMA,
    END,
    OPEN,
    OPEN_LIST,
    QUOTE,
    flag,
    integer,
    list_of_numbers,
    packed,
    skip_space,
    skip_value,
    text_end,
)

CHUNK_BYTES = 1 << 24
# Kinds of fields; NUMBERS + n stands for a list of n numbers.
TOKEN, TOKENS, INTEGER, FLAG, FILE, NUMBERS = range(6)
# A token of 32 hexadecimal digits is its number, in two words; a text of up to eight bytes is
# SHORT + its length, and the bytes. So "", no token at all, is (SHORT, 0).
SHORT = 0xFFFFFFFFFFFFFF00
# The second word, after SHORT, of a list of several tokens.
MANY = 1
# Different paths without their times: at most so many, of so many bytes.
MAX_PATTERNS, PATTERN_BYTES = 1 << 14, 256


class NotPlain(Exception):
    """A table that `scan_parts` leaves to the slow reader."""


class Patterns:
    """Paths of files with {} in place of their time, each stored once."""

    def __init__(self):
        self.texts = np.zeros((MAX_PATTERNS, PATTERN_BYTES), np.uint8)
        self.lengths = np.zeros(MAX_PATTERNS, np.int64)
        self.slots = np.full(2 * MAX_PATTERNS, -1)
        self.count = np.zeros(1, np.int64)

    def add(self, path: str, time: int) -> int:
        """Row of a path, for readers of text.

        Raises:
            NotPlain: there is no more room.
        """
        text = path.encode() + END
        array = np.frombuffer(text, np.uint8)
        scratch = np.zeros(PATTERN_BYTES, np.uint8)
        row = _pattern(
            array, 0, len(text) - len(END), time, scratch, self.texts, self.lengths, self.slots,
            self.count,
        )  # fmt: skip
        if row < 0:
            raise NotPlain
        return row

    def names(self) -> list[str]:
        """All of them, by row."""
        count = int(self.count[0])
        return [
            text[:length].tobytes().decode()
            for text, length in zip(self.texts[:count], self.lengths[:count], strict=True)
        ]


def scan_parts(
    path: Path, fields: Mapping[str, int], patterns: Patterns | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """Some fields of a table, some ten thousand rows at a time.

    Args:
        fields: the kind of each. A table with a FILE needs an INTEGER `timestamp`, too.
        patterns: where the paths of a FILE go.

    Yields:
        by field: (R, 2) uint64 of a token, or of the only one of a list of TOKENS; (R,) int64 of
        integers, flags and files (their row in `patterns`); (R, n) float64 of numbers.

    Raises:
        NotPlain: the rest of the table is not understood.
    """
    names, patterns = list(fields), patterns or Patterns()
    kinds = np.array(list(fields.values()))
    begin = np.concatenate([[0], np.cumsum(np.maximum(kinds - NUMBERS, 0))])
    time_field = names.index("timestamp") if FILE in kinds else -1
    words, lengths = packed(names)
    size = path.stat().st_size
    text = np.empty(min(size, CHUNK_BYTES) + len(END), np.uint8)
    with path.open("rb") as file:
        held, closed, opened = 0, False, False
        while not closed:
            got = file.readinto(memoryview(text)[held : len(text) - len(END)])
            filled = held + got
            text[filled : filled + len(END)] = np.frombuffer(END, np.uint8)
            rows = int(np.count_nonzero(text[:filled] == OPEN))
            keys = np.zeros((rows, len(names), 2), np.uint64)
            integers = np.zeros((rows, len(names)), np.int64)
            bits = np.zeros((rows, int(begin[-1])), np.uint64)
            position = 0
            if not opened:
                position = skip_space(text, 0) + 1
                opened = text[position - 1] == OPEN_LIST
                closed = opened and text[skip_space(text, position)] == CLOSE_LIST
            found, position, ended = _scan(
                text, position, filled, words, lengths, kinds, begin, time_field, keys, integers,
                bits, np.zeros(PATTERN_BYTES, np.uint8), patterns.texts, patterns.lengths,
                patterns.slots, patterns.count,
            )  # fmt: skip
            closed = closed or ended
            if closed and not ended:
                position = skip_space(text, position) + 1
            rest = (text[position:filled].tobytes() + file.read(1024)).strip() if closed else b""
            if not opened or (found == 0 and not closed) or rest:
                raise NotPlain
            values = bits[:found].view(float)
            yield {
                name: keys[:found, i] if kind in (TOKEN, TOKENS)
                else values[:, begin[i] : begin[i + 1]] if kind > NUMBERS
                else integers[:found, i]
                for i, (name, kind) in enumerate(zip(names, kinds.tolist(), strict=True))
            }  # fmt: skip
            held = filled - position
            text[:held] = text[position:filled].copy()


@numba.njit(cache=True, nogil=True)
def _scan(
    text, position, last, words, lengths, kinds, begin, time_field, keys, integers, bits, scratch,
    patterns, pattern_lengths, slots, count,
):  # fmt: skip
    """Rows from `position` on: (how many, where the next one starts, whether the list ended)."""
    found = 0
    while True:
        start = position
        position = _scan_row(
            text, skip_space(text, position), last, words, lengths, kinds, begin, time_field,
            keys[min(found, len(keys) - 1)], integers[min(found, len(keys) - 1)],
            bits[min(found, len(keys) - 1)], scratch, patterns, pattern_lengths, slots, count,
        ) if len(keys) else -1  # fmt: skip
        if position < 0:
            return found, start, False
        position = skip_space(text, position)
        if text[position] == CLOSE_LIST:
            return found + 1, position + 1, True
        if text[position] != COMMA:
            return found, start, False
        found += 1
        position += 1


@numba.njit(cache=True, nogil=True)
def _scan_row(
    text, position, last, words, lengths, kinds, begin, time_field, keys, integers, bits, scratch,
    patterns, pattern_lengths, slots, count,
):  # fmt: skip
    """One row that opens at `position`; the position after it, or -1."""
    if text[position] != OPEN:
        return -1
    seen, file_begin, file_end, file_field = 0, 0, 0, -1
    while True:
        position = skip_space(text, position + 1)
        if text[position] != QUOTE:
            return -1
        end = text_end(text, position)
        if end < 0:
            return -1
        field = -1
        for row in range(len(lengths)):
            if lengths[row] == end - position - 1 and words[row, 0] == text[position + 1]:
                same = True
                for i in range(1, lengths[row]):
                    same &= words[row, i] == text[position + 1 + i]
                if same:
                    field = row
        position = skip_space(text, end + 1)
        if text[position] != COLON:
            return -1
        position = skip_space(text, position + 1)
        if field < 0:
            position = skip_value(text, position, last)
        else:
            if seen >> field & 1:
                return -1
            seen |= 1 << field
            kind = kinds[field]
            if kind == TOKEN:
                position = _token(text, position, keys[field])
            elif kind == TOKENS:
                position = _tokens(text, position, keys[field])
            elif kind == INTEGER:
                integers[field], position = integer(text, position)
            elif kind == FLAG:
                integers[field], position = flag(text, position)
            elif kind == FILE:
                file_begin, file_end, file_field = position + 1, text_end(text, position), field
                position = -1 if text[position] != QUOTE or file_end < 0 else file_end + 1
            else:
                position = list_of_numbers(text, position, bits[begin[field] : begin[field + 1]])
        if position < 0:
            return -1
        position = skip_space(text, position)
        if text[position] == CLOSE:
            break
        if text[position] != COMMA:
            return -1
    if seen != (1 << len(kinds)) - 1:
        return -1
    if file_field >= 0:
        integers[file_field] = _pattern(
            text, file_begin, file_end, integers[time_field], scratch, patterns, pattern_lengths,
            slots, count,
        )  # fmt: skip
        if integers[file_field] < 0:
            return -1
    return position + 1


@numba.njit(cache=True, nogil=True)
def _token(text, position, key):
    """Reads a token's two words; the position after it, or -1."""
    if text[position] != QUOTE:
        return -1
    end = text_end(text, position)
    if end < 0:
        return -1
    size = end - position - 1
    key[0], key[1] = np.uint64(0), np.uint64(0)
    if size <= 8:
        for i in range(size):
            key[1] = key[1] << np.uint64(8) | np.uint64(text[position + 1 + i])
        key[0] = np.uint64(SHORT) | np.uint64(size)
        return end + 1
    if size != 32:
        return -1
    for i in range(32):
        byte = text[position + 1 + i]
        if 48 <= byte <= 57:
            digit = byte - 48
        elif 97 <= byte <= 102:
            digit = byte - 87
        else:
            return -1
        key[i // 16] = key[i // 16] << np.uint64(4) | np.uint64(digit)
    if key[0] >= np.uint64(SHORT - 1):
        return -1
    return end + 1


@numba.njit(cache=True, nogil=True)
def _tokens(text, position, key):
    """The only token of a list; see MANY."""
    if text[position] != OPEN_LIST:
        return -1
    position = skip_space(text, position + 1)
    key[0], key[1] = np.uint64(SHORT), np.uint64(0)
    if text[position] == CLOSE_LIST:
        return position + 1
    count = 0
    while True:
        position = _token(text, position, key)
        if position < 0:
            return -1
        count += 1
        position = skip_space(text, position)
        if text[position] == CLOSE_LIST:
            break
        if text[position] != COMMA:
            return -1
        position = skip_space(text, position + 1)
    if count > 1:
        key[0], key[1] = np.uint64(SHORT), np.uint64(MANY)
    return position + 1


@numba.njit(cache=True, nogil=True)
def _pattern(text, begin, end, time, scratch, patterns, pattern_lengths, slots, count):
    """Row of the path text[begin:end] with {} for each place where the time stands; -1 where
    there is no room."""
    digits = np.zeros(20, np.uint8)
    size, rest = 0, time
    while rest > 0 or size == 0:
        digits[size] = 48 + rest % 10
        rest //= 10
        size += 1
    length, position = 0, begin
    hashed = np.uint64(0xCBF29CE484222325)
    while position < end:
        if length + 2 > len(scratch):
            return -1
        same = position + size <= end
        for i in range(size):
            if not same:
                break
            same = text[position + i] == digits[size - 1 - i]
        if same:
            scratch[length], scratch[length + 1] = OPEN, CLOSE
            length += 2
            position += size
        else:
            scratch[length] = text[position]
            length += 1
            position += 1
    for i in range(length):
        hashed = (hashed ^ np.uint64(scratch[i])) * np.uint64(0x100000001B3)
    slot = np.int64(hashed & np.uint64(len(slots) - 1))
    while slots[slot] >= 0:
        row = slots[slot]
        if pattern_lengths[row] == length and (patterns[row, :length] == scratch[:length]).all():
            return row
        slot = (slot + 1) & (len(slots) - 1)
    row = count[0]
    if row == len(patterns):
        return -1
    patterns[row, :length] = scratch[:length]
    pattern_lengths[row] = length
    slots[slot] = row
    count[0] += 1
    return row
