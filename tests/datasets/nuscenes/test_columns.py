import dataclasses
import json
import random

import numpy as np
import pytest

from datasets.nuscenes import columns, scan_tables
from datasets.nuscenes.build_index import build_index
from datasets.nuscenes.columns import Rows, Tables
from datasets.nuscenes.scan_tables import (
    FILE,
    FLAG,
    INTEGER,
    NUMBERS,
    TOKEN,
    TOKENS,
    NotPlain,
    scan_parts,
)
from detector.errors import InputError
from tests.writers.nuscenes import write_nuscenes
from tests.writers.nuscenes_large import write_large_tables

VERSION = "v1.0-mini"
FIELDS = {
    "token": TOKEN, "timestamp": INTEGER, "is_key_frame": FLAG, "filename": FILE,
    "tokens": TOKENS, "translation": NUMBERS + 3,
}  # fmt: skip
ROWS = [
    {"token": f"{number:032x}", "timestamp": 1_532_402_927_000_000 + number, "note": 'a "}, [{" b',
     "is_key_frame": number % 2 == 0, "tokens": ["7"][: number % 2], "more": {"a": [1, {}]},
     "filename": f"samples/LIDAR_TOP/n__{1_532_402_927_000_000 + number}.pcd.bin",
     "translation": [number / 7, -1e-7 * number, 3]}
    for number in range(40)
]  # fmt: skip


def write(folder, rows, **options):
    (folder / "table.json").write_text(json.dumps(rows, **options))
    return Tables(folder)


def assert_equal_indexes(a, b):
    names = [field.name for field in dataclasses.fields(a)]
    for name in set(names) - {"frame_file", "file_patterns", "table_bytes"}:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), name)
    assert [a.file_of(i) for i in range(len(a.frame_file))] == [
        b.file_of(i) for i in range(len(b.frame_file))
    ]


@pytest.fixture
def no_scan(monkeypatch):
    def refuse(*arguments):
        raise NotPlain
        yield

    return lambda: monkeypatch.setattr(columns, "scan_parts", refuse)


@pytest.mark.parametrize("options", [{}, {"indent": 4}, {"separators": (",", ":")}])
@pytest.mark.parametrize("chunk", [1500, 1 << 20])
def test_scanning_and_reading_json_give_the_same(tmp_path, options, chunk, monkeypatch, no_scan):
    monkeypatch.setattr(scan_tables, "CHUNK_BYTES", chunk)
    tables = write(tmp_path, ROWS, **options)
    parts = list(scan_parts(tmp_path / "table.json", FIELDS, tables.patterns))
    assert len(parts) > 1 or chunk > 1500
    scanned = {name: np.concatenate([part[name] for part in parts]) for name in FIELDS}
    assert tables.patterns.names() == ["samples/LIDAR_TOP/n__{}.pcd.bin"]
    no_scan()
    read = Tables(tmp_path).read("table", FIELDS)
    for name in FIELDS:
        np.testing.assert_array_equal(scanned[name], read[name], name)
    assert scanned["timestamp"].tolist() == [row["timestamp"] for row in ROWS]
    assert scanned["translation"].tolist() == [row["translation"] for row in ROWS]
    assert [tables.text(key) for key in scanned["token"]] == [row["token"] for row in ROWS]
    assert [tables.text(key) for key in scanned["tokens"]] == [
        "".join(row["tokens"]) for row in ROWS
    ]


@pytest.mark.parametrize("writer", [
    lambda root: write_nuscenes(root, sweeps_between=1),
    lambda root: write_large_tables(root / VERSION, 2),
])  # fmt: skip
def test_an_index_is_the_same_without_scanning(tmp_path, writer, no_scan):
    writer(tmp_path)
    scanned = build_index(tmp_path, VERSION)
    no_scan()
    assert_equal_indexes(build_index(tmp_path, VERSION), scanned)


def test_tokens_of_any_kind_are_found(tmp_path):
    tokens = ["0" * 32, "f" * 32, "1", "", "sample seven, of Tuesday", "Ünïcode", "x" * 8, "A" * 32]
    tables = Tables(tmp_path)
    keys = tables.keys(tokens)
    assert [tables.text(key) for key in keys] == tokens
    rows = Rows(tables, "sample", keys)
    assert rows.rows(keys, "other").tolist() == [0, 1, 2, -1, 4, 5, 6, 7]
    with pytest.raises(InputError, match=r"sample\.json lacks token Tuesday, which other\.json"):
        rows.rows(tables.keys(["Tuesday"]), "other")


def test_a_token_that_is_there_twice_is_the_last(tmp_path):
    tables = Tables(tmp_path)
    rows = Rows(tables, "sample", tables.keys(["a", "b", "a"]))
    assert rows.rows(tables.keys(["a", "b"]), "other").tolist() == [2, 1]


def test_odd_tokens_in_the_midst_of_a_table_are_read_on(tmp_path):
    rows = [{**row, "token": f"odd token {i}"} if i == 30 else row for i, row in enumerate(ROWS)]
    tables = write(tmp_path, rows)
    read = tables.read("table", FIELDS)
    assert [tables.text(key) for key in read["token"]] == [row["token"] for row in rows]
    assert len(read["timestamp"]) == len(rows)


@pytest.mark.parametrize(("field", "value"), [
    ("timestamp", "soon"), ("translation", [1, 2]), ("token", 7), ("tokens", None),
    ("filename", None),
])  # fmt: skip
def test_a_value_of_another_kind_is_named(tmp_path, field, value):
    rows = [*ROWS[:3], {**ROWS[3], field: value}]
    with pytest.raises(InputError, match=rf"table\.json: {field} is .* in a row; is it the table"):
        write(tmp_path, rows).read("table", FIELDS)


def test_damage_gives_the_right_rows_or_a_sentence(tmp_path, monkeypatch):
    """Cut, flipped and doubled bytes: never a crash, and never other rows than json reads; where
    json reads none, the damage lies in a field that nobody asked for."""
    monkeypatch.setattr(scan_tables, "CHUNK_BYTES", 4000)
    content = json.dumps(ROWS, indent=0).encode()
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        spoiled = bytearray(content)
        place = rng.randrange(len(content))
        kind = rng.randrange(3)
        if kind == 0:
            del spoiled[place:]
        elif kind == 1:
            spoiled[place] ^= 1 << rng.randrange(8)
        else:
            spoiled[place:place] = spoiled[place : place + rng.randrange(1, 50)]
        (tmp_path / "table.json").write_bytes(spoiled)
        try:
            found = Tables(tmp_path).read("table", FIELDS)
        except InputError as error:
            assert "table.json" in str(error)
            refused += 1
            continue
        try:
            wanted = json.loads(spoiled)
        except ValueError:
            wanted = ROWS
        assert found["timestamp"].tolist() == [row["timestamp"] for row in wanted]
        assert found["translation"].tolist() == [row["translation"] for row in wanted]
    assert refused > 100
