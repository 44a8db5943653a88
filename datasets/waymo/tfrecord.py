"""TFRecord files: records with checksums, one after another.

A record is its length (8 bytes, little endian), a checksum of these 8 bytes, its content and a
checksum of the content. Checksums are CRC-32C, rotated and offset ("masked") so that a checksum
of data that holds checksums stays sound. Source: `core/lib/io/record_writer.h` and
`core/lib/hash/crc32c.h` of TensorFlow.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numba import njit

from detector.errors import InputError

HEADER_BYTES = 12
FOOTER_BYTES = 4
MASK_DELTA = 0xA282EAD8
# CRC-32C, Castagnoli's polynomial with its bits reversed.
POLYNOMIAL = 0x82F63B78
REMEDY = "the file is damaged: download or write it again"


@dataclass(frozen=True)
class RecordSpan:
    """Where a record's content lies in its file."""

    start: int
    length: int


def record_spans(path: Path | str) -> list[RecordSpan]:
    """Finds the records by their headers alone, whose checksums it verifies.

    Raises:
        InputError: the file is missing, a header is damaged, or the file ends within a record.
    """
    path = Path(path)
    spans = []
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        place = 0
        while place < size:
            file.seek(place)
            header = file.read(HEADER_BYTES)
            where = f"{path}: record {len(spans)} at byte {place}"
            if len(header) < HEADER_BYTES:
                raise InputError(f"{where} is cut short after {len(header)} bytes; {REMEDY}")
            length, checksum = struct.unpack("<QI", header)
            if masked_crc32c(header[:8]) != checksum:
                raise InputError(f"{where} has a header with a wrong checksum; {REMEDY}")
            after = place + HEADER_BYTES + length + FOOTER_BYTES
            if after > size:
                raise InputError(
                    f"{where} should be {length} bytes long, but the file ends {after - size} "
                    f"bytes short; {REMEDY}"
                )
            spans.append(RecordSpan(place + HEADER_BYTES, length))
            place = after
    return spans


def read_record(path: Path | str, span: RecordSpan) -> bytes:
    """One record's content, its checksum verified.

    Raises:
        InputError: the file can't be read, or the content isn't what was written.
    """
    path = Path(path)
    content = read_part(path, span.start, span.length + FOOTER_BYTES)
    if len(content) < span.length + FOOTER_BYTES:
        raise InputError(f"{path}: the record at byte {span.start} is cut short; {REMEDY}")
    (checksum,) = struct.unpack("<I", content[span.length :])
    content = content[: span.length]
    if masked_crc32c(content) != checksum:
        raise InputError(
            f"{path}: the record at byte {span.start} has a wrong checksum; {REMEDY}"
        )
    return content


def read_part(path: Path, start: int, length: int) -> bytes:
    """Up to `length` bytes of a file, unverified."""
    with _opened(path) as file:
        file.seek(start)
        return file.read(length)


def write_records(path: Path | str, records: Iterable[bytes]) -> None:
    """Writes a file in one step: there are all records, or what was there before.

    Raises:
        InputError: the file can't be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            for content in records:
                length = struct.pack("<Q", len(content))
                file.write(length + struct.pack("<I", masked_crc32c(length)))
                file.write(content)
                file.write(struct.pack("<I", masked_crc32c(content)))
        partial.replace(path)
    except OSError as error:
        raise InputError(
            f"{path}: can't be written ({error.strerror}); choose a file that you may write to"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def masked_crc32c(content: bytes) -> int:
    """CRC-32C of `content`, rotated right by 15 bits and offset."""
    crc = int(_crc32c(np.frombuffer(content, np.uint8), _crc_tables()))
    return (((crc >> 15) | (crc << 17)) + MASK_DELTA) & 0xFFFFFFFF


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); check the path") from error


@cache
def _crc_tables() -> np.ndarray:
    """(8, 256) uint32: what a byte contributes when 0 to 7 further bytes follow it."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(POLYNOMIAL), table >> 1)
    tables = [table]
    for _ in range(7):
        tables.append((tables[-1] >> 8) ^ table[tables[-1] & 0xFF])
    return np.stack(tables).astype(np.uint32)


@njit(cache=True, nogil=True)
def _crc32c(content, tables):
    """Eight bytes a step."""
    crc = np.uint32(0xFFFFFFFF)
    steps = len(content) // 8
    for step in range(steps):
        place = 8 * step
        low = crc ^ (
            np.uint32(content[place])
            | np.uint32(content[place + 1]) << np.uint32(8)
            | np.uint32(content[place + 2]) << np.uint32(16)
            | np.uint32(content[place + 3]) << np.uint32(24)
        )
        crc = (
            tables[7, low & 0xFF]
            ^ tables[6, (low >> 8) & 0xFF]
            ^ tables[5, (low >> 16) & 0xFF]
            ^ tables[4, (low >> 24) & 0xFF]
            ^ tables[3, content[place + 4]]
            ^ tables[2, content[place + 5]]
            ^ tables[1, content[place + 6]]
            ^ tables[0, content[place + 7]]
        )
    for place in range(8 * steps, len(content)):
        crc = tables[0, (crc ^ content[place]) & 0xFF] ^ (crc >> 8)
    return np.uint32(crc ^ np.uint32(0xFFFFFFFF))
