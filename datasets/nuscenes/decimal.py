"""Decimal text to the nearest double, in Numba.

Source: Lemire, "Number Parsing at a Gigabyte per Second", Software: Practice and Experience 2021
(the Eisel-Lemire method). Numbers that it does not settle, with more than 19 digits or far
exponents, are reported, and left to a slower reader.
"""

from __future__ import annotations

import numba
import numpy as np

# Powers of ten that are handled; doubles in a file of boxes lie far inside.
MIN_POWER, MAX_POWER = -60, 60
ZERO, NINE, MINUS, PLUS, DOT = (np.uint8(ord(c)) for c in "09-+.")
SMALL_E, LARGE_E = np.uint8(ord("e")), np.uint8(ord("E"))


def _powers_of_five() -> np.ndarray:
    """(powers, 2) uint64: the leading 128 bits of 5^q, high word first."""
    words = []
    for q in range(MIN_POWER, MAX_POWER + 1):
        five = 5 ** abs(q)
        if q >= 0:
            bits = five << 128 >> five.bit_length()
        else:
            bits = (1 << (five.bit_length() + 128)) // five + 1
            bits >>= bits.bit_length() - 128
        words.append((bits >> 64, bits & (1 << 64) - 1))
    return np.array(words, np.uint64)


FIVES = _powers_of_five()


@numba.njit(cache=True, nogil=True, inline="never")
def parse_number(text, position):
    """Reads a JSON number.

    Returns:
        (bits, end): the double's 64 bits and the position after the number; end is -1 where there
        is no number, or one that this method does not settle.
    """
    negative = text[position] == MINUS
    if negative:
        position += 1
    digits, exponent, mantissa = 0, 0, np.uint64(0)
    seen_dot, start = False, position
    while True:
        byte = text[position]
        if ZERO <= byte <= NINE:
            if digits > 0 or byte != ZERO:
                digits += 1
                mantissa = mantissa * np.uint64(10) + np.uint64(byte - ZERO)
            if seen_dot:
                exponent -= 1
        elif byte == DOT and not seen_dot and position > start:
            seen_dot = True
        else:
            break
        position += 1
    if position == start or digits > 19 or text[position - 1] == DOT:
        return np.uint64(0), -1
    if text[position] == SMALL_E or text[position] == LARGE_E:
        position += 1
        down = text[position] == MINUS
        if down or text[position] == PLUS:
            position += 1
        power, first = 0, position
        while ZERO <= text[position] <= NINE and position < first + 4:
            power = power * 10 + (text[position] - ZERO)
            position += 1
        if position == first or position == first + 4:
            return np.uint64(0), -1
        exponent += -power if down else power
    bits, settled = _nearest_double(mantissa, exponent)
    if negative:
        bits |= np.uint64(1) << np.uint64(63)
    return bits, position if settled else -1


@numba.njit(cache=True, nogil=True)
def _nearest_double(mantissa, power):
    """The bits of mantissa * 10^power, and whether that is settled."""
    if mantissa == np.uint64(0):
        return np.uint64(0), True
    if power < MIN_POWER or power > MAX_POWER:
        return np.uint64(0), False
    leading = 0
    while mantissa < np.uint64(1) << np.uint64(48):
        mantissa <<= np.uint64(16)
        leading += 16
    while mantissa < np.uint64(1) << np.uint64(63):
        mantissa <<= np.uint64(1)
        leading += 1
    high, low = _multiply(mantissa, FIVES[power - MIN_POWER, 0])
    if high & np.uint64(0x1FF) == np.uint64(0x1FF):
        more, _ = _multiply(mantissa, FIVES[power - MIN_POWER, 1])
        low += more
        if more > low:
            high += np.uint64(1)
    if low == ~np.uint64(0) and not -27 <= power <= 55:
        return np.uint64(0), False
    upper = high >> np.uint64(63)
    shift = upper + np.uint64(9)
    result = high >> shift
    exponent = ((217706 * power) >> 16) + 63 + int(upper) - leading + 1023
    if exponent <= 0 or exponent >= 2046:
        return np.uint64(0), False
    halfway = low <= np.uint64(1) and result & np.uint64(3) == np.uint64(1)
    if halfway and -4 <= power <= 23 and result << shift == high:
        result &= ~np.uint64(1)     # Exactly between two doubles: to the even one.
    result += result & np.uint64(1)
    result >>= np.uint64(1)
    if result >= np.uint64(1) << np.uint64(53):
        result = np.uint64(1) << np.uint64(52)
        exponent += 1
    fraction = result & ((np.uint64(1) << np.uint64(52)) - np.uint64(1))
    return fraction | np.uint64(exponent) << np.uint64(52), True


@numba.njit(cache=True, nogil=True)
def _multiply(a, b):
    """128-bit product of two 64-bit words, high word first."""
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    a_high, a_low = a >> half, a & mask
    b_high, b_low = b >> half, b & mask
    low = a_low * b_low
    middle = a_high * b_low + (low >> half)
    other = a_low * b_high + (middle & mask)
    return a_high * b_high + (middle >> half) + (other >> half), a * b
