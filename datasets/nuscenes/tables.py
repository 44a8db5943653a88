"""nuScenes' JSON tables, read in pieces so that the largest (2.6 million rows) need little memory.

Format: https://github.com/nutonomy/nuscenes-devkit/blob/master/docs/schema_nuscenes.md
"""

from __future__ import annotations

import gc
import json
import mmap
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from detector.errors import InputError

TABLES = (
    "attribute", "calibrated_sensor", "category", "ego_pose", "instance", "log", "map",
    "sample", "sample_annotation", "sample_data", "scene", "sensor", "visibility",
)  # fmt: skip
CHUNK_BYTES = 1 << 24
BETWEEN_RECORDS = re.compile(rb"\}\s*,\s*\{")


@contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Parsing millions of rows makes no cycles, and looking for them takes half of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def table_folder(root: str | Path, version: str) -> Path:
    """The folder that holds the tables.

    Raises:
        InputError: there is none of that version; names those that are there.
    """
    folder = Path(root) / version
    if (folder / "sample.json").is_file():
        return folder
    versions = sorted(path.parent.name for path in Path(root).glob("*/sample.json"))
    remedy = f"take one of {', '.join(versions)}" if versions else "is it the right root folder?"
    raise InputError(f"{folder} holds no nuScenes tables (no sample.json there): {remedy}")


def read_rows(folder: Path, table: str, fields: Sequence[str]) -> Iterator[tuple]:
    """The rows of a table as tuples of some of its fields.

    Raises:
        InputError: the table is missing, is not JSON, or a row lacks a field.
    """
    path = folder / f"{table}.json"
    for records in _records(path):
        for record in records:
            try:
                yield tuple([record[field] for field in fields])
            except (KeyError, TypeError, IndexError):
                lacking = [f for f in fields if not (isinstance(record, dict) and f in record)]
                raise InputError(
                    f"{path}: a row lacks {', '.join(lacking)}: {str(record)[:120]}; is it the "
                    f"table of nuScenes v1.0?"
                ) from None


def read_columns(folder: Path, table: str, fields: Sequence[str]) -> dict[str, list]:
    """A small or middling table as one list a field; raises as `read_rows`."""
    rows = list(read_rows(folder, table, fields))
    columns = zip(*rows, strict=True) if rows else ([] for _ in fields)
    return {field: list(column) for field, column in zip(fields, columns, strict=True)}


def _records(path: Path) -> Iterator[list[dict]]:
    """The rows of a table, some ten thousand at a time."""
    if not path.is_file():
        raise InputError(f"{path} is missing; a nuScenes version folder holds 13 tables")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; is the download complete?")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        begin, opening = 0, b""
        while len(content) - begin > 2 * CHUNK_BYTES:
            gap = BETWEEN_RECORDS.search(content, begin + CHUNK_BYTES)
            if gap is None:
                break
            try:
                records = json.loads(opening + content[begin : gap.start() + 1] + b"]")
            except ValueError:
                break  # The gap lay inside a row: read the rest as a whole.
            yield records
            begin, opening = gap.end() - 1, b"["
        try:
            records = json.loads(opening + content[begin:])
        except ValueError as error:
            raise InputError(
                f"{path} is not valid JSON ({error}); is the download complete?"
            ) from None
    if not isinstance(records, list):
        raise InputError(f"{path} holds no list of rows; is it a table of nuScenes v1.0?")
    yield records
