"""A result file's boxes straight from its bytes, in Numba: 20 times faster than through `json`.

It reads what is right and tells nothing about what is wrong: `scan_results` returns None for any
file that it does not understand to the end, and the slow reader finds the words for it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
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
    list_of_numbers,
    number,
    packed,
    skip_space,
    text_end,
    which,
)
from detector.metrics.nuscenes import ATTRIBUTES, CLASSES

RESULTS = re.compile(rb'"results"\s*:\s*\{')
# Columns of a box's numbers, then its texts; each is one bit of what was seen.
NUMBERS = {"translation": 3, "size": 3, "rotation": 4, "velocity": 2, "detection_score": 1}
BEGIN = np.cumsum([0, *NUMBERS.values()])
TEXTS = ("detection_name", "attribute_name", "sample_token")
POINTS = "num_pts"
ALL_SEEN = (1 << len(NUMBERS) + len(TEXTS)) - 1


@dataclass(frozen=True)
class ScannedResults:
    """What the file holds, in its order."""

    tokens: list[str]
    """Samples."""
    sample: np.ndarray
    """(N,) int64 row of `tokens`."""
    numbers: dict[str, np.ndarray]
    """(N, width) float64 by name."""
    label: np.ndarray
    attribute: np.ndarray
    point_count: np.ndarray
    meta: dict


def scan_results(path: Path) -> ScannedResults | None:
    """The content of a result file, or None if the slow reader should look at it."""
    text = _read_with_end(path)
    opening = None if text is None else RESULTS.search(text)
    if opening is None:
        return None
    boxes = int(np.count_nonzero(text == OPEN))
    samples = int(np.count_nonzero(text == OPEN_LIST))
    bits = np.empty((boxes, int(BEGIN[-1])), np.uint64)
    codes = np.empty((boxes, 4), np.int64)      # sample, class, attribute, points
    tokens = np.empty((samples, 2), np.int64)
    found, named, end = _scan(
        text, opening.end(), bits, codes, tokens, *packed([*NUMBERS, *TEXTS, POINTS]),
        *packed(CLASSES), *packed(ATTRIBUTES), BEGIN,
    )  # fmt: skip
    if end < 0:
        return None
    try:
        before, after = text[: opening.end()], text[end : -len(END)]
        rest = json.loads(before.tobytes() + b"}" + after.tobytes())
        names = [text[a:b].tobytes().decode("ascii") for a, b in tokens[:named].tolist()]
    except ValueError:
        return None
    if not (isinstance(rest, dict) and rest.get("results") == {} and len(set(names)) == named):
        return None
    if not isinstance(rest.get("meta"), dict):
        return None
    values = bits[:found].view(float)
    return ScannedResults(
        tokens=names,
        sample=codes[:found, 0],
        numbers={
            name: values[:, begin:end]
            for name, begin, end in zip(NUMBERS, BEGIN[:-1], BEGIN[1:], strict=True)
        },
        label=codes[:found, 1],
        attribute=codes[:found, 2],
        point_count=codes[:found, 3],
        meta=rest["meta"],
    )


def _read_with_end(path: Path) -> np.ndarray | None:
    """The file's bytes and `END`; None if it can't be read."""
    try:
        size = path.stat().st_size
        text = np.empty(size + len(END), np.uint8)
        with path.open("rb") as file:
            if file.readinto(text[:size]) != size:
                return None
    except OSError:
        return None
    text[size:] = np.frombuffer(END, np.uint8)
    return text


@numba.njit(cache=True, nogil=True)
def _same(text, a, a_end, b, b_end):
    if a_end - a != b_end - b:
        return False
    for i in range(a_end - a):
        if text[a + i] != text[b + i]:
            return False
    return True


@numba.njit(cache=True, nogil=True)
def _scan_box(
    text, position, bits, codes, token, keys, key_lengths, classes, class_lengths, attributes,
    attribute_lengths, begin,
):  # fmt: skip
    """One box that opens at `position`; the position after it, or -1."""
    if text[position] != OPEN:
        return -1
    seen, lists = 0, len(begin) - 2
    codes[3] = -1
    while True:
        position = skip_space(text, position + 1)
        if text[position] != QUOTE:
            return -1
        end = text_end(text, position)
        key = -1 if end < 0 else which(text, position + 1, end, keys, key_lengths)
        if key < 0 or seen >> key & 1:
            return -1
        seen |= 1 << key
        position = skip_space(text, end + 1)
        if text[position] != COLON:
            return -1
        position = skip_space(text, position + 1)
        if key < lists:
            position = list_of_numbers(text, position, bits[begin[key] : begin[key + 1]])
        elif key == lists:
            bits[begin[key]], position = number(text, position)
        elif key == len(keys) - 1:
            codes[3] = 0
            first = position
            while 48 <= text[position] <= 57:
                codes[3] = codes[3] * 10 + (text[position] - 48)
                position += 1
            if position == first or position > first + 9:
                return -1
        else:
            if text[position] != QUOTE:
                return -1
            end = text_end(text, position)
            if key == lists + 1:
                codes[1] = which(text, position + 1, end, classes, class_lengths)
                if codes[1] < 0:
                    return -1
            elif key == lists + 2:
                codes[2] = which(text, position + 1, end, attributes, attribute_lengths)
                if codes[2] < 0 and end != position + 1:
                    return -1
            elif not _same(text, position + 1, end, token[0], token[1]):
                return -1
            position = end + 1
        if position < 0:
            return -1
        position = skip_space(text, position)
        if text[position] == CLOSE:
            return position + 1 if seen & ALL_SEEN == ALL_SEEN else -1
        if text[position] != COMMA:
            return -1


@numba.njit(cache=True, nogil=True)
def _scan(
    text, position, bits, codes, tokens, keys, key_lengths, classes, class_lengths, attributes,
    attribute_lengths, begin,
):  # fmt: skip
    """Samples and boxes from the first byte inside of results on.

    Returns:
        (boxes, samples, end): end is the position after results' closing brace, or -1.
    """
    boxes, samples = 0, 0
    position = skip_space(text, position)
    if text[position] == CLOSE:
        return 0, 0, position + 1
    while True:
        position = skip_space(text, position)
        if text[position] != QUOTE:
            return 0, 0, -1
        end = text_end(text, position)
        if end < 0 or samples == len(tokens):
            return 0, 0, -1
        tokens[samples, 0], tokens[samples, 1] = position + 1, end
        position = skip_space(text, end + 1)
        if text[position] != COLON:
            return 0, 0, -1
        position = skip_space(text, position + 1)
        if text[position] != OPEN_LIST:
            return 0, 0, -1
        position = skip_space(text, position + 1)
        empty = text[position] == CLOSE_LIST
        while not empty:
            if boxes == len(bits):
                return 0, 0, -1
            codes[boxes, 0] = samples
            position = _scan_box(
                text, position, bits[boxes], codes[boxes], tokens[samples], keys, key_lengths,
                classes, class_lengths, attributes, attribute_lengths, begin,
            )  # fmt: skip
            if position < 0:
                return 0, 0, -1
            boxes += 1
            position = skip_space(text, position)
            if text[position] == CLOSE_LIST:
                break
            if text[position] != COMMA:
                return 0, 0, -1
            position = skip_space(text, position + 1)
        samples += 1
        position = skip_space(text, position + 1)
        if text[position] == CLOSE:
            return boxes, samples, position + 1
        if text[position] != COMMA:
            return 0, 0, -1
        position += 1
