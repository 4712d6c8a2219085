"""Avro's binary form, byte by byte: zigzag varints, length-prefixed bytes and union tags, written and read.

Floor 0, because connectors (rows) and ``cdc.avro`` (envelopes) both write and read these bytes.
The tables of ready-made varints are public: generated code indexes them in place of a call.
Source: the Avro specification, "Binary Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, TypeVar

_Item = TypeVar("_Item")

NULL: Final = b"\x00"
"""The tag of the first branch of a union; in ``["null", T]`` all of a null."""
PRESENT: Final = b"\x02"
"""The tag of the second branch of a union: what precedes a value of ``["null", T]``."""
END_OF_BLOCKS: Final = b"\x00"
"""What ends an array or a map."""

LONG_MIN: Final = -(1 << 63)
LONG_MAX: Final = (1 << 63) - 1

SMALL: Final = 8192
"""How many ready-made longs there are: ``LONGS[v]`` holds for ``0 <= v < SMALL``."""


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


TAILS: Final = tuple(_varint(number) for number in range(1 << 14))
"""The last one or two bytes of a varint, by the value of its upper bits."""
HEADS: Final = tuple(bytes((number & 127 | 128, number >> 7 | 128)) for number in range(1 << 14))
"""Two bytes of a varint that are not its last, by 14 bits of its value."""
LONGS: Final = TAILS[::2]
"""Small longs (and lengths) that are not negative."""
PAIRS: Final = tuple(number & 127 | (number & 0x7F00) >> 1 for number in range(1 << 16))
"""14 bits of a varint, by two of its bytes read as a little-endian number."""

four_pairs: Final = struct.Struct("<HHHH").unpack_from
"""Eight bytes as indices of ``PAIRS``."""


def long_bytes(value: int) -> bytes:
    """An Avro int or long. OverflowError beyond 64 bits."""
    if 0 <= value < SMALL:
        return LONGS[value]
    if not LONG_MIN <= value <= LONG_MAX:
        raise OverflowError(f"{value} does not fit in 64 bits")
    raw = value << 1 ^ value >> 63
    if raw < 1 << 14:
        return TAILS[raw]
    if raw < 1 << 28:
        return HEADS[raw & 16383] + TAILS[raw >> 14]
    if raw < 1 << 42:
        return HEADS[raw & 16383] + HEADS[raw >> 14 & 16383] + TAILS[raw >> 28]
    if raw < 1 << 56:
        return (
            HEADS[raw & 16383]
            + HEADS[raw >> 14 & 16383]
            + HEADS[raw >> 28 & 16383]
            + TAILS[raw >> 42]
        )
    return (
        HEADS[raw & 16383]
        + HEADS[raw >> 14 & 16383]
        + HEADS[raw >> 28 & 16383]
        + HEADS[raw >> 42 & 16383]
        + TAILS[raw >> 56]
    )


def bytes_bytes(value: bytes) -> bytes:
    """Avro bytes: the length, then the value."""
    return long_bytes(len(value)) + value


def string_bytes(value: str) -> bytes:
    """An Avro string: UTF-8 with its length in bytes."""
    return bytes_bytes(value.encode())


def optional(value: bytes | None) -> bytes:
    """A value of ``["null", T]``, from the bytes of T or None."""
    return NULL if value is None else PRESENT + value


def raw_at(data: bytes, at: int) -> tuple[int, int]:
    """The varint at ``at``, its zigzag not undone, and where it ends.

    IndexError when the data end before it does, ValueError when it is longer than 64 bits.
    """
    raw = data[at]
    if raw < 128:
        return raw, at + 1
    second = data[at + 1]
    if second < 128:
        return raw - 128 | second << 7, at + 2
    third = data[at + 2]
    if third < 128:
        return raw - 128 | second - 128 << 7 | third << 14, at + 3
    if len(data) >= at + 8:
        one, two, three, four = four_pairs(data, at)
        if two & 0x8000 == 0:
            return PAIRS[one] | PAIRS[two] << 14, at + 4
        if three & 0x80 == 0:
            return PAIRS[one] | PAIRS[two] << 14 | (three & 127) << 28, at + 5
        low = PAIRS[one] | PAIRS[two] << 14 | PAIRS[three] << 28
        if three & 0x8000 == 0:
            return low, at + 6
        if four & 0x80 == 0:
            return low | (four & 127) << 42, at + 7
        if four & 0x8000 == 0:
            return low | PAIRS[four] << 42, at + 8
    raw = shift = 0
    while True:
        byte = data[at]
        at += 1
        raw |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
    if raw >> 64:
        raise ValueError("a varint of more than 64 bits")
    return raw, at


def long_at(data: bytes, at: int) -> tuple[int, int]:
    """The int or long at ``at``, and where it ends. Raises as ``raw_at`` does."""
    raw, end = raw_at(data, at)
    return raw >> 1 ^ -(raw & 1), end


def bytes_at(data: bytes, at: int) -> tuple[bytes, int]:
    """The bytes (or a string's UTF-8) at ``at``, and where they end.

    ValueError for a length that is negative or passes the end; IndexError when the length is cut.
    """
    raw, start = raw_at(data, at)
    end = start + (raw >> 1)
    if raw & 1 or end > len(data):
        raise ValueError("a length that passes the end of the record")
    return data[start:end], end


def string_at(data: bytes, at: int) -> tuple[str, int]:
    """The string at ``at``, and where it ends. ValueError (UnicodeDecodeError) when it is not UTF-8."""
    value, end = bytes_at(data, at)
    return value.decode(), end


def items_at(
    data: bytes, at: int, item: Callable[[bytes, int], tuple[_Item, int]]
) -> tuple[list[_Item], int]:
    """The items of the array at ``at``, each read by ``item``, and where the array ends."""
    items: list[_Item] = []
    while True:
        count, at = long_at(data, at)
        if count == 0:
            return items, at
        if count < 0:  # a block that carries its size in bytes, for readers that skip it
            count = -count
            _, at = long_at(data, at)
        for _ in range(count):
            value, at = item(data, at)
            items.append(value)
