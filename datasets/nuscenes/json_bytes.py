"""JSON from bytes, in Numba: the steps of `scan_results` and `scan_tables`.

All take the bytes, followed by `END`, and a position; they give the position behind what they read,
or -1 where it is something else.
"""

from __future__ import annotations

import numba
import numpy as np

from datasets.nuscenes.decimal import parse_number

QUOTE, BACKSLASH, COMMA, COLON, MINUS = (np.uint8(ord(c)) for c in '"\\,:-')
OPEN, CLOSE, OPEN_LIST, CLOSE_LIST = (np.uint8(ord(c)) for c in "{}[]")
# Follows the file's bytes, so that no loop runs past them: it ends any text, opens none that is
# understood, and fits nowhere.
END = b'"\\' + b"x" * 30
NAN_BITS = np.array([np.nan]).view(np.uint64)[0]


def packed(names) -> tuple[np.ndarray, np.ndarray]:
    """Words as rows of bytes, and their lengths."""
    words = [name.encode() for name in names]
    rows = np.zeros((len(words), max(map(len, words))), np.uint8)
    for row, word in zip(rows, words, strict=True):
        row[: len(word)] = np.frombuffer(word, np.uint8)
    return rows, np.array([len(word) for word in words])


@numba.njit(cache=True, nogil=True)
def skip_space(text, position):
    """The next position with something else than space."""
    # Space, line feed, carriage return and tabulator; JSON knows no others.
    while text[position] <= 32 and text[position] in (32, 10, 13, 9):
        position += 1
    return position


@numba.njit(cache=True, nogil=True)
def text_end(text, position):
    """The closing quote of the text that opens at `position`; -1 if there is an escape."""
    position += 1
    while text[position] != QUOTE:
        if text[position] == BACKSLASH:
            return -1
        position += 1
    return position


@numba.njit(cache=True, nogil=True)
def which(text, begin, end, words, lengths):
    """Row of the word text[begin:end], or -1."""
    for row in range(len(words)):
        if lengths[row] == end - begin:
            same = True
            for i in range(end - begin):
                if words[row, i] != text[begin + i]:
                    same = False
                    break
            if same:
                return row
    return -1


@numba.njit(cache=True, nogil=True)
def number(text, position):
    """A number or NaN: (bits, end); end is -1 where it is neither."""
    if text[position] == 78 and text[position + 1] == 97 and text[position + 2] == 78:
        return NAN_BITS, position + 3
    return parse_number(text, position)


@numba.njit(cache=True, nogil=True)
def list_of_numbers(text, position, row):
    """Fills `row` from a list of exactly as many numbers; the position after it, or -1."""
    if text[position] != OPEN_LIST:
        return -1
    position += 1
    for i in range(len(row)):
        row[i], position = number(text, skip_space(text, position))
        if position < 0:
            return -1
        position = skip_space(text, position)
        if text[position] != (CLOSE_LIST if i + 1 == len(row) else COMMA):
            return -1
        position += 1
    return position


@numba.njit(cache=True, nogil=True)
def integer(text, position):
    """A whole number of up to 18 digits: (value, end)."""
    negative = text[position] == MINUS
    if negative:
        position += 1
    value, start = 0, position
    while 48 <= text[position] <= 57:
        value = value * 10 + np.int64(text[position] - 48)
        position += 1
    if position == start or position > start + 18:
        return 0, -1
    return (-value if negative else value), position


@numba.njit(cache=True, nogil=True)
def flag(text, position):
    """true or false: (1 or 0, end)."""
    if text[position] == 116 and text[position + 1] == 114:
        if text[position + 2] == 117 and text[position + 3] == 101:
            return 1, position + 4
    elif text[position] == 102 and text[position + 1] == 97 and text[position + 2] == 108:
        if text[position + 3] == 115 and text[position + 4] == 101:
            return 0, position + 5
    return 0, -1


@numba.njit(cache=True, nogil=True)
def skip_value(text, position, last):
    """The position after a value that is not wanted, of any kind, or -1."""
    # One bit for each list (0) or object (1) that is open, the innermost lowest.
    nested, depth = np.uint64(0), 0
    while True:
        byte = text[position]
        if byte == QUOTE:
            position = skip_text(text, position, last)
        elif byte == OPEN or byte == OPEN_LIST:
            if depth == 60:
                return -1
            nested, depth = nested << np.uint64(1) | np.uint64(byte == OPEN), depth + 1
            position = skip_space(text, position + 1)
            if text[position] != CLOSE and text[position] != CLOSE_LIST:
                if byte == OPEN:
                    position = skip_key(text, position, last)
                if position < 0:
                    return -1
                continue
        elif byte == 116 or byte == 102:
            position = flag(text, position)[1]
        elif byte == 110:
            null = text[position + 1] == 117 and text[position + 2] == text[position + 3] == 108
            position = position + 4 if null else -1
        else:
            position = parse_number(text, position)[1]
        # Behind a value: what is closed here, and whether another one follows.
        while True:
            if position < 0:
                return -1
            if depth == 0:
                return position
            position = skip_space(text, position)
            is_object = nested & np.uint64(1) == np.uint64(1)
            if text[position] == COMMA:
                position = skip_space(text, position + 1)
                if is_object:
                    position = skip_key(text, position, last)
                if position < 0:
                    return -1
                break
            if text[position] != (CLOSE if is_object else CLOSE_LIST):
                return -1
            nested, depth = nested >> np.uint64(1), depth - 1
            position += 1


@numba.njit(cache=True, nogil=True)
def skip_text(text, position, last):
    """The position after a text, escapes or not; -1 where it has no end."""
    if text[position] != QUOTE:
        return -1
    position += 1
    while position < last:
        if text[position] == QUOTE:
            return position + 1
        position += 2 if text[position] == BACKSLASH else 1
    return -1


@numba.njit(cache=True, nogil=True)
def skip_key(text, position, last):
    """The position of the value behind a key, or -1."""
    position = skip_text(text, position, last)
    if position < 0:
        return -1
    position = skip_space(text, position)
    return skip_space(text, position + 1) if text[position] == COLON else -1
