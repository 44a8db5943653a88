import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.waymo.tfrecord import (
    RecordSpan,
    masked_crc32c,
    read_record,
    record_spans,
    write_records,
)
from detector.errors import InputError


def unmasked(crc: int) -> int:
    rotated = (crc - 0xA282EAD8) & 0xFFFFFFFF
    return ((rotated >> 17) | (rotated << 15)) & 0xFFFFFFFF


# RFC 3720, appendix B.4, and the check value of CRC-32C.
@pytest.mark.parametrize(
    ("content", "crc"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_checksum_is_crc_32c(content, crc):
    assert unmasked(masked_crc32c(content)) == crc


def read_all(path) -> list[bytes]:
    return [read_record(path, span) for span in record_spans(path)]


def test_records_come_back(tmp_path):
    records = [b"one", b"", bytes(range(256)) * 3]
    path = tmp_path / "folder" / "r.tfrecord"
    write_records(path, records)
    assert read_all(path) == records
    assert list(path.parent.iterdir()) == [path]


def test_an_empty_file_has_no_records(tmp_path):
    write_records(tmp_path / "r", [])
    assert record_spans(tmp_path / "r") == []


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="none.tfrecord"):
        record_spans(tmp_path / "none.tfrecord")


def test_nothing_is_left_of_a_broken_write(tmp_path):
    path = tmp_path / "r"
    write_records(path, [b"before"])

    def failing():
        yield b"new"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_records(path, failing())
    assert read_all(path) == [b"before"]
    assert list(tmp_path.iterdir()) == [path]


RECORDS = [b"first record", bytes(40), b"third"]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """Where damaged files are written, and the bytes of a whole one."""
    path = tmp_path_factory.mktemp("fuzz") / "r.tfrecord"
    write_records(path, RECORDS)
    return path, path.read_bytes()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_is_found_or_harmless(damaged, data):
    """Bytes cut, flipped, repeated, put in: a clear error, or only whole records of the file."""
    path, content = damaged
    place = data.draw(st.integers(0, len(content)))
    kind = data.draw(st.sampled_from(["cut", "flip", "repeat", "insert", "drop"]))
    size = data.draw(st.integers(1, 80))
    if kind == "cut":
        changed = content[:place]
    elif kind == "flip":
        at = min(place, len(content) - 1)
        bit = data.draw(st.integers(1, 255))
        changed = content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]
    elif kind == "repeat":
        changed = content[:place] + content[max(place - size, 0) : place] + content[place:]
    elif kind == "insert":
        changed = content[:place] + data.draw(st.binary(max_size=size)) + content[place:]
    else:
        changed = content[:place] + content[place + size :]
    path.write_bytes(changed)
    try:
        found = read_all(path)
    except InputError as error:
        assert path.name in str(error)
        assert "\n" not in str(error)
    else:
        assert all(record in RECORDS for record in found)


def test_an_enormous_length_is_refused_before_it_is_read(tmp_path):
    length = struct.pack("<Q", 1 << 60)
    path = tmp_path / "r"
    path.write_bytes(length + struct.pack("<I", masked_crc32c(length)) + bytes(100))
    with pytest.raises(InputError, match="bytes short"):
        record_spans(path)


def test_a_file_that_shrank_is_an_error(tmp_path):
    write_records(tmp_path / "r", [b"content"])
    with pytest.raises(InputError, match="cut short"):
        read_record(tmp_path / "r", RecordSpan(12, 500))
