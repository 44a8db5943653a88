"""The large tables as arrays, whatever their tokens look like, and tokens found in them.

A table is scanned (`scan_tables`); from where it is not understood, `json` reads it, with words for
what is wrong. Both give the same arrays: a token is two words of 64 bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numba
import numpy as np

from datasets.nuscenes.scan_tables import (
    FILE,
    FLAG,
    INTEGER,
    MANY,
    NUMBERS,
    SHORT,
    TOKEN,
    TOKENS,
    NotPlain,
    Patterns,
    scan_parts,
)
from datasets.nuscenes.tables import read_rows
from detector.errors import InputError

_HEXADECIMAL = frozenset("0123456789abcdef")
_ROWS_AT_ONCE = 20_000


class Tables:
    """Reads the tables of one version folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.patterns = Patterns()
        # Tokens that are neither 32 digits nor short: the second word is their number.
        self._odd: dict[str, int] = {}

    def parts(self, table: str, fields: Mapping[str, int]) -> Iterator[dict[str, np.ndarray]]:
        """The table's rows, some at a time, as `scan_parts` gives them.

        Raises:
            InputError: the table is missing, is not JSON, a row lacks a field or has another kind
                of value there.
        """
        path, done = self.folder / f"{table}.json", 0
        if path.is_file() and path.stat().st_size:
            try:
                for part in scan_parts(path, fields, self.patterns):
                    yield part
                    done += len(next(iter(part.values())))
                return
            except NotPlain:
                pass
        rows = islice(read_rows(self.folder, table, list(fields)), done, None)
        while chunk := list(islice(rows, _ROWS_AT_ONCE)):
            yield self._arrays(path, chunk, fields)

    def read(self, table: str, fields: Mapping[str, int]) -> dict[str, np.ndarray]:
        """The whole table at once; raises as `parts`."""
        parts = list(self.parts(table, fields))
        if not parts:
            parts = [self._arrays(self.folder / f"{table}.json", [], fields)]
        return {name: np.concatenate([part[name] for part in parts]) for name in fields}

    def keys(self, tokens: Sequence[str]) -> np.ndarray:
        """(R, 2) uint64 of tokens."""
        return np.array([self._key(t) for t in tokens], np.uint64).reshape(-1, 2)

    def text(self, key: np.ndarray) -> str:
        """The token of a key."""
        high, low = map(int, key)
        if high == SHORT - 1:
            return next(text for text, number in self._odd.items() if number == low)
        if high >= SHORT:
            return low.to_bytes(high - SHORT, "big").decode()
        return f"{high:016x}{low:016x}"

    def _key(self, token: str) -> tuple[int, int]:
        if not isinstance(token, str):
            raise TypeError(token)
        if len(token) == 32 and _HEXADECIMAL.issuperset(token):
            high, low = int(token[:16], 16), int(token[16:], 16)
            if high < SHORT - 1:
                return high, low
        short = token.encode()
        if len(short) <= 8:
            return SHORT + len(short), int.from_bytes(short, "big")
        return SHORT - 1, self._odd.setdefault(token, len(self._odd))

    def _arrays(self, path: Path, rows: list[tuple], fields: Mapping[str, int]) -> dict:
        columns = zip(*rows, strict=True) if rows else ([] for _ in fields)
        arrays, times = {}, None
        for (name, kind), column in zip(fields.items(), columns, strict=True):
            column = list(column)
            try:
                arrays[name] = self._array(kind, column, times)
            except (TypeError, ValueError, AttributeError, OverflowError):
                row = next(i for i, v in enumerate(column) if not self._fits(kind, [v], times))
                raise InputError(
                    f"{path}: {name} is {str(column[row])[:60]!r} in a row; is it the table of "
                    f"nuScenes v1.0?"
                ) from None
            if name == "timestamp":
                times = column
        return arrays

    def _array(self, kind: int, column: list, times: list | None) -> np.ndarray:
        if kind == TOKEN:
            return self.keys(column)
        if kind == TOKENS:
            several = [(SHORT, MANY) if len(t) > 1 else self._key("".join(t)) for t in column]
            return np.array(several, np.uint64).reshape(-1, 2)
        if kind == FILE:
            pairs = zip(column, times, strict=True)
            return np.array([self.patterns.add(f, t) for f, t in pairs], np.int64)
        if kind in (INTEGER, FLAG):
            return np.array([int(value) for value in column], np.int64)
        return np.array(column, float).reshape(len(column), kind - NUMBERS)

    def _fits(self, kind: int, column: list, times: list | None) -> bool:
        try:
            self._array(kind, column, times and times[:1])
        except (TypeError, ValueError, AttributeError, OverflowError):
            return False
        return True


class Rows:
    """Row numbers of a table by token; of tokens that are there twice, the last."""

    def __init__(self, tables: Tables, table: str, keys: np.ndarray):
        self.tables, self.table, self.keys = tables, table, np.ascontiguousarray(keys)
        size = 1 << max(4, int(2 * len(keys)).bit_length())
        self._slots = np.full(size, -1, np.int32)
        _insert(self.keys, self._slots)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """(R,) int32 rows; -1 for no token, -2 for one that the table lacks."""
        return _find(self.keys, self._slots, np.ascontiguousarray(keys))

    def rows(self, keys: np.ndarray, of: str) -> np.ndarray:
        """(R,) int32 rows; -1 for no token (the end of a chain).

        Raises:
            InputError: a token that the table lacks. `of` says where it was found.
        """
        rows = self.find(keys)
        missing = np.flatnonzero(rows == -2)
        if len(missing):
            raise InputError(
                f"{self.tables.folder / self.table}.json lacks token "
                f"{self.tables.text(keys[missing[0]])}, which {of}.json refers to "
                f"({len(missing)} such tokens); are all tables of the same version and complete?"
            )
        return rows


@numba.njit(cache=True, nogil=True, inline="always")
def _slot(high, low, mask):
    mixed = (high ^ low * np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xD6E8FEB86659FD93)
    return np.int64((mixed ^ mixed >> np.uint64(32)) & np.uint64(mask))


@numba.njit(cache=True, nogil=True)
def _insert(keys, slots):
    mask = len(slots) - 1
    for row in range(len(keys)):
        high, low = keys[row, 0], keys[row, 1]
        slot = _slot(high, low, mask)
        while slots[slot] >= 0:
            there = slots[slot]
            if keys[there, 0] == high and keys[there, 1] == low:
                break
            slot = (slot + 1) & mask
        slots[slot] = row


@numba.njit(cache=True, nogil=True)
def _find(table, slots, keys):
    mask = len(slots) - 1
    rows = np.empty(len(keys), np.int32)
    for i in range(len(keys)):
        high, low = keys[i, 0], keys[i, 1]
        rows[i] = -1
        if high == np.uint64(SHORT) and low == np.uint64(0):
            continue
        rows[i] = -2
        slot = _slot(high, low, mask)
        while slots[slot] >= 0:
            there = slots[slot]
            if table[there, 0] == high and table[there, 1] == low:
                rows[i] = there
                break
            slot = (slot + 1) & mask
    return rows
