"""Parquet tables of format 2, read by row group and column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from detector.errors import InputError

REMEDY = "download or write it again"
# Row groups up to this size are read whole; of larger ones, so many rows at a time.
LARGEST_GROUP_BYTES = 256 << 20
BATCH_ROWS = 10


@dataclass(frozen=True)
class _Piece:
    """Some rows of a row group."""

    key: tuple[int, tuple[str, ...]]
    """The group and the columns."""
    first: int
    """Row of the group that comes first."""
    table: Any
    """Arrow table or record batch."""
    rest: Iterator[Any]
    """The record batches that follow."""


class Component:
    """One table of a segment.

    Args:
        path: `.../FOLDER/SEGMENT.parquet`.
        prefix: name of the component in its columns, such as `LiDARComponent`.

    Raises:
        InputError: the file is missing or no Parquet table.
    """

    def __init__(self, path: Path, prefix: str):
        self.path = path
        self.prefix = prefix
        pyarrow = import_pyarrow()
        try:
            self._file = pyarrow.parquet.ParquetFile(
                path, memory_map=True, page_checksum_verification=True
            )
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise self._wrong(error) from error
        self._names = set(self._file.schema_arrow.names)
        self._kept: _Piece | None = None

    def keys(self, *columns: str) -> list[tuple]:
        """The key columns of all rows."""
        pyarrow = import_pyarrow()
        self._require(columns)
        try:
            table = self._file.read(columns=list(columns), use_threads=False)
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise self._wrong(error) from error
        for name in columns:
            if table[name].null_count:
                raise InputError(f"{self.path}: column {name} has gaps; {REMEDY}")
        return list(zip(*(table[name].to_pylist() for name in columns), strict=True))

    def rows(self, rows: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Some rows as Arrow scalars by column, the component's prefix left out.

        Args:
            columns: names without the prefix; one with a `?` behind may be absent and then is
                None.
        """
        self._require([self._full(c) for c in columns if not c.endswith("?")])
        full = {c.rstrip("?"): self._full(c.rstrip("?")) for c in columns}
        present = {c: name for c, name in full.items() if name in self._names}
        found = []
        for row in rows:
            group = int(np.searchsorted(self._edges, row, side="right")) - 1
            place = int(row - self._edges[group])
            piece = self._piece(group, tuple(present.values()), place)
            cells = {c: piece.table.column(n)[place - piece.first] for c, n in present.items()}
            found.append({c: cells.get(c) for c in full})
        return found

    @cached_property
    def _edges(self) -> np.ndarray:
        counts = [
            self._file.metadata.row_group(g).num_rows for g in range(self._file.num_row_groups)
        ]
        return np.cumsum([0, *counts])

    def _piece(self, group: int, columns: tuple[str, ...], place: int) -> _Piece:
        """Rows of a group around a place, kept until others are asked for, since frames are often
        read in order. A large group is passed through a few rows at a time."""
        pyarrow = import_pyarrow()
        known = self._kept if self._kept and self._kept.key == (group, columns) else None
        if known and known.first <= place < known.first + known.table.num_rows:
            return known
        try:
            if self._file.metadata.row_group(group).total_byte_size <= LARGEST_GROUP_BYTES:
                table = self._file.read_row_group(group, columns=list(columns), use_threads=False)
                self._kept = _Piece((group, columns), 0, table, iter(()))
                return self._kept
            if known is None or place < known.first:
                batches = self._file.iter_batches(
                    BATCH_ROWS, row_groups=[group], columns=list(columns), use_threads=False
                )
                known = _Piece((group, columns), 0, next(batches), batches)
            while place >= known.first + known.table.num_rows:
                first = known.first + known.table.num_rows
                known = _Piece(known.key, first, next(known.rest), known.rest)
        except (OSError, ValueError, StopIteration, pyarrow.ArrowException) as error:
            raise self._wrong(error) from error
        self._kept = known
        return known

    def _full(self, column: str) -> str:
        return column if column.startswith("key.") else f"[{self.prefix}].{column}"

    def _require(self, columns: Sequence[str]) -> None:
        for name in columns:
            if name not in self._names:
                raise InputError(
                    f"{self.path}: has no column {name}; is it a {self.prefix} table of Waymo's "
                    f"format 2?"
                )

    def _wrong(self, error: Exception) -> InputError:
        what = str(error).split("\n")[0]
        return InputError(f"{self.path}: can't be read ({what}); {REMEDY}")


def array_of(scalar, dtype: type) -> np.ndarray:
    """The numbers of an Arrow list."""
    return np.asarray(scalar.values.to_numpy(zero_copy_only=False), dtype)


def import_pyarrow():
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f"Waymo's format 2 needs pyarrow, which can't be imported ({error}); install it with "
            f"`pip install 'focal3d[waymo]'`"
        ) from error
    return pyarrow
