"""Numeric's binary form, its text, and the whole numbers between.

The binary form (``numeric_send``): count of digits, weight, sign, display scale, each 16 bits, then the digits,
each 0 to 9999, the first worth 10000 ^ weight.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Final

_NEGATIVE: Final = 0x4000
POWERS: Final[tuple[int, ...]] = tuple(10**exponent for exponent in range(64))
HEADER: Final = struct.Struct(">hhHh")

# (sign as an unsigned number, the text) by the scale that stands for it in a VariableScaleDecimal
SPECIAL: Final = {
    0: (struct.pack(">hhHh", 0, 0, 0xC000, 0), b"NaN"),
    1: (struct.pack(">hhHh", 0, 0, 0xD000, 32), b"Infinity"),
    -1: (struct.pack(">hhHh", 0, 0, 0xF000, 32), b"-Infinity"),
}
SPECIAL_SCALES: Final = {0xC000: 0, 0xD000: 1, 0xF000: -1}


@lru_cache(maxsize=64)
def shorts(size: int) -> Callable[[bytes, int], tuple[int, ...]]:
    """Reads ``size`` bytes at some place as 16-bit numbers."""
    if size < 8 or size & 1:
        raise ValueError(f"a numeric of {size} bytes")
    return struct.Struct(f">{size // 2}h").unpack_from


def power(exponent: int) -> int:
    """10 to the power."""
    return POWERS[exponent] if exponent < 64 else int(10**exponent)


def unscaled_of(value: bytes) -> int:
    """What numeric's binary form is with its point left out."""
    _, weight, sign, scale, *digits = shorts(len(value))(value, 0)
    number = 0
    for digit in digits:
        number = number * 10000 + digit
    exponent = (weight - len(digits) + 1) * 4 + scale
    number = number * power(exponent) if exponent > 0 else number // power(-exponent)
    return -number if sign else number


def unscaled_binary(unscaled: int, scale: int) -> bytes:
    """Numeric's binary form of ``unscaled`` / 10^``scale``, with that display scale."""
    if not unscaled:
        return HEADER.pack(0, 0, 0, scale)
    sign = 0
    if unscaled < 0:
        sign = _NEGATIVE
        unscaled = -unscaled
    pad = -scale % 4
    if pad:
        unscaled *= POWERS[pad]
    digits = []
    while unscaled:
        unscaled, digit = divmod(unscaled, 10000)
        digits.append(digit)
    weight = len(digits) - (scale + pad) // 4 - 1
    digits.reverse()
    while not digits[-1]:
        digits.pop()
    count = len(digits)
    return struct.pack(f">hhHh{count}h", count, weight, sign, scale, *digits)


def numeric_text(value: bytes) -> bytes:
    """Numeric's text form of its binary form, without a detour over a number: it can have 147,455 digits."""
    count, weight, sign, scale = HEADER.unpack_from(value)
    if sign & 0x8000:
        return SPECIAL[SPECIAL_SCALES[sign]][1]
    groups = shorts(len(value))(value, 0)[4 : 4 + count]
    whole = "".join(f"{groups[at] if at < count else 0:04d}" for at in range(weight + 1)).lstrip(
        "0"
    )
    after = [
        f"{groups[at] if 0 <= at < count else 0:04d}"
        for at in range(weight + 1, weight + 1 + (scale + 3) // 4)
    ]
    fraction = "".join(after)[:scale]
    text = (whole or "0") + (f".{fraction}" if scale else "")
    return (f"-{text}" if sign else text).encode()


_NUMBER: Final = re.compile(rb"\s*([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d+))?\s*")


def numeric_value(text: bytes) -> bytes:
    """Numeric's binary form of its text form."""
    match = _NUMBER.fullmatch(text)
    if match is None or not (match[2] or match[3]):
        for special, name in SPECIAL.values():
            if text.strip().lower() == name.lower():
                return special
        raise ValueError(f"not a numeric: {text[:40]!r}")
    whole, fraction = match[2].decode(), (match[3] or b"").decode()
    exponent = int(match[4] or 0)
    if exponent > 0:
        fraction = fraction.ljust(exponent, "0")
        whole, fraction = whole + fraction[:exponent], fraction[exponent:]
    elif exponent < 0:
        whole = whole.rjust(-exponent, "0")
        whole, fraction = whole[:exponent], whole[exponent:] + fraction
    scale = len(fraction)
    whole = whole.rjust(-(-len(whole) // 4) * 4, "0")
    fraction = fraction.ljust(-(-scale // 4) * 4, "0")
    everything = whole + fraction
    groups = [int(everything[at : at + 4]) for at in range(0, len(everything), 4)]
    weight = len(whole) // 4 - 1
    first = 0
    while first < len(groups) and not groups[first]:
        first += 1
        weight -= 1
    last = len(groups)
    while last > first and not groups[last - 1]:
        last -= 1
    groups = groups[first:last]
    if not groups:
        return HEADER.pack(0, 0, 0, scale)
    sign = _NEGATIVE if match[1] == b"-" else 0
    return struct.pack(f">hhHh{len(groups)}h", len(groups), weight, sign, scale, *groups)
