import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.nuscenes.decimal import parse_number


def parse(text: str) -> tuple[float, int]:
    bits, end = parse_number(np.frombuffer(f"{text},".encode(), np.uint8), 0)
    return struct.unpack("<d", struct.pack("<Q", int(bits)))[0], int(end)


def assert_nearest(text: str):
    value, end = parse(text)
    assert end == len(text), text
    assert struct.pack("<d", value) == struct.pack("<d", float(text)), text


@settings(deadline=None, max_examples=300)
@given(st.floats(-1e40, 1e40).filter(lambda x: x == 0 or abs(x) > 1e-40))
def test_what_python_writes_is_read_back(value):
    assert_nearest(repr(value))


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 10**19 - 1), st.integers(-50, 30))
def test_the_nearest_double_of_any_19_digits(digits, power):
    assert_nearest(f"{digits}e{power}")


@pytest.mark.parametrize("offset", range(8))
def test_half_way_between_two_doubles_the_even_one_is_taken(offset):
    assert_nearest(str(2**53 + 2 * offset + 1))
    assert_nearest(f"{2**52 + offset}.5")
    assert_nearest(f"{2**51 + offset}.25")


@pytest.mark.parametrize("text", ["0", "-0", "-0.0", "1E5", "1e+5", "-2.50", "0.000012"])
def test_ways_to_write(text):
    assert_nearest(text)


@pytest.mark.parametrize(
    "text", ["x", "-", "1.", ".5", "1e", "1e+", "1e12345", "--1", "1e300", "12345678901234567890"]
)
def test_what_is_no_number_or_not_settled_is_left(text):
    assert parse(text)[1] == -1
