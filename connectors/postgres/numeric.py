"""Numeric and money as exact decimals (``decimal.handling.mode=precise``).

With a declared scale a value is Avro ``bytes`` with the logical type decimal, as Debezium has it; without, Debezium's
``VariableScaleDecimal``. What is not a number has no two's complement, so it is carried where one cannot be mistaken
for it: *empty* bytes, which a reader of big integers refuses aloud instead of reading a wrong number.
For a decimal they mean NaN, the only one a column with a declared scale can hold; in a ``VariableScaleDecimal`` its
scale tells which: 0 NaN, 1 Infinity, -1 -Infinity.
"""

from __future__ import annotations

import struct
from typing import Final

from cdc.avro_binary import bytes_at, long_at, long_bytes
from cdc.table import AvroType
from connectors.postgres.codec import (
    READ_BYTES,
    SIZE,
    TAKE,
    Codec,
    Convert,
    Decode,
    Encode,
    Unfit,
    pack_size,
)
from connectors.postgres.decimals import (
    HEADER,
    POWERS,
    SPECIAL,
    SPECIAL_SCALES,
    numeric_text,
    numeric_value,
    power,
    unscaled_binary,
    unscaled_of,
)

DECIMAL: Final = "org.apache.kafka.connect.data.Decimal"
VARIABLE: Final = "io.debezium.data.VariableScaleDecimal"

DIGITS: Final = tuple(number.to_bytes(2, "big") for number in range(10000))
"""Ready-made digits of the binary form."""

from_bytes: Final = int.from_bytes


def decimal_schema(scale: int, precision: int | None) -> AvroType:
    """Connect's Decimal as its Avro converter registers it; 64 digits where none are declared."""
    parameters = {"scale": str(scale)}
    if precision is not None:
        parameters["connect.decimal.precision"] = str(precision)
    return {
        "type": "bytes",
        "scale": scale,
        "precision": precision if precision is not None else 64,
        "connect.version": 1,
        "connect.parameters": parameters,
        "connect.name": DECIMAL,
        "logicalType": "decimal",
    }


VARIABLE_SCHEMA: Final[AvroType] = {
    "type": "record",
    "name": "VariableScaleDecimal",
    "namespace": "io.debezium.data",
    "fields": [{"name": "scale", "type": "int"}, {"name": "value", "type": "bytes"}],
    "connect.doc": "Variable scaled decimal",
    "connect.version": 1,
    "connect.name": VARIABLE,
}


def numeric(precision: int, scale: int, pg_type: str) -> Codec:
    """Numeric with a declared scale. One below zero rounds whole numbers: those are carried with scale 0."""
    digits = max(precision, precision - scale)
    scale = max(scale, 0)
    return Codec(
        pg_type=pg_type,
        avro=decimal_schema(scale, max(digits, scale)),
        encode=Encode(_encode_lines(scale), ("v",), ("decimal", scale)),
        decode=Decode(
            (*READ_BYTES, "v = decimal_sized_@(r[s:p])"),
            ("v",),
            "v[4:]",
            ("decimal", scale),
        ),
        to_text=numeric_text,
        from_text=numeric_value,
        filler=b"\x02\x00",
        direct=True,
        scope={
            "POWERS": POWERS,
            "read_two": struct.Struct(">6h").unpack_from,
            "read_three": struct.Struct(">7h").unpack_from,
            "pack_64": struct.Struct(">q").pack,
            "decimal_avro": decimal_avro,
            "decimal_sized_@": sized_decimals(scale),
        },
    )


def _encode_lines(scale: int) -> tuple[str, ...]:
    general = f"v = decimal_avro(f[q:o], {scale})"
    if scale > 24:
        return (*TAKE, general)
    return (
        *TAKE,
        # Two or three digits and not negative: most of what is counted in money.
        "if n == 12:",
        "    _, w, s, d, e, v = read_two(f, q)",
        "    v += e * 10000",
        f"    w = w * 4 + {scale - 4}",
        "elif n == 14:",
        "    _, w, s, d, e, k, v = read_three(f, q)",
        "    v += (e * 10000 + k) * 10000",
        f"    w = w * 4 + {scale - 8}",
        "else:",
        "    s = 1",
        f"if s or d != {scale} or w > 32:",
        f"    {general}",
        "else:",
        "    v = v * POWERS[w] if w >= 0 else v // POWERS[-w]",
        "    k = (v.bit_length() >> 3) + 1",
        f"    v = LONGS[k] + pack_64(v)[-k:] if k < 9 else decimal_avro(f[q:o], {scale})",
    )


def decimal_avro(value: bytes, scale: int) -> bytes:
    """A decimal's Avro bytes of numeric's binary form. Unfit when its display scale is another."""
    sign, display = struct.unpack_from(">Hh", value, 4)
    if sign == 0xC000:
        return b"\x00"
    if display != scale or sign & 0x8000:
        raise Unfit(f"the numeric {numeric_text(value)[:60]!r} in a column of scale {scale}")
    return _twos_complement(unscaled_of(value))


def _twos_complement(number: int) -> bytes:
    """Avro bytes of the least two's complement, as Java's BigInteger has it."""
    size = ((number if number >= 0 else ~number).bit_length() >> 3) + 1
    return long_bytes(size) + number.to_bytes(size, "big", signed=True)


def sized_decimals(scale: int) -> Convert:
    """A function from a decimal's two's complement to numeric's binary form, its length in front."""
    pad = POWERS[-scale % 4]
    after = -(-scale // 4)
    # Length and header of a positive number, by how many of its groups are kept, and how many there are: trailing
    # zero groups are not stored.
    heads = [
        [
            pack_size(8 + 2 * kept) + HEADER.pack(kept, there - after - 1, 0, scale)
            for there in range(4)
        ]
        for kept in range(4)
    ]
    one, two, three = heads[1], heads[2], heads[3]
    limit = 10**12 // pad

    def sized(content: bytes) -> bytes:
        number = from_bytes(content, "big", signed=True)
        if 0 < number < limit:
            number, third = divmod(number * pad, 10000)
            first, second = divmod(number, 10000)
            if first:
                if third:
                    return three[3] + DIGITS[first] + DIGITS[second] + DIGITS[third]
                return two[3] + DIGITS[first] + DIGITS[second] if second else one[3] + DIGITS[first]
            if second:
                return two[2] + DIGITS[second] + DIGITS[third] if third else one[2] + DIGITS[second]
            return one[1] + DIGITS[third]
        value = decimal_binary(content, scale)
        return pack_size(len(value)) + value

    return sized


def decimal_binary(content: bytes, scale: int) -> bytes:
    """Numeric's binary form of a decimal's two's complement; empty means NaN."""
    if not content:
        return SPECIAL[0][0]
    return unscaled_binary(int.from_bytes(content, "big", signed=True), scale)


def variable_numeric() -> Codec:
    """Numeric without a declared scale: each value carries its own."""
    return Codec(
        pg_type="numeric",
        avro=VARIABLE_SCHEMA,
        encode=Encode(TAKE, ("variable_avro(f[q:o])",)),
        decode=Decode(
            ("v, p = variable_binary(r, p)", "n = len(v)"),
            (SIZE, "v"),
            "v",
        ),
        to_text=numeric_text,
        from_text=numeric_value,
        filler=b"\x00\x02\x00",
        scope={"variable_avro": variable_avro, "variable_binary": variable_binary},
    )


def variable_avro(value: bytes) -> bytes:
    """A VariableScaleDecimal of numeric's binary form."""
    _, _, sign, scale = HEADER.unpack_from(value)
    if sign & 0x8000:
        return long_bytes(SPECIAL_SCALES[sign]) + b"\x00"
    return long_bytes(scale) + _twos_complement(unscaled_of(value))


def variable_binary(row: bytes, at: int) -> tuple[bytes, int]:
    """Numeric's binary form of the VariableScaleDecimal at ``at``, and where that ends."""
    scale, at = long_at(row, at)
    content, at = bytes_at(row, at)
    if not content:
        return SPECIAL[scale][0], at
    unscaled = int.from_bytes(content, "big", signed=True)
    if scale < 0:  # from another writer; PostgreSQL's own display scale is never negative
        unscaled, scale = unscaled * power(-scale), 0
    return unscaled_binary(unscaled, scale), at


def money(digits: int) -> Codec:
    """Money: 64 bits of hundredths, with this many digits behind the point.

    A currency of another fraction keeps its count of smallest units.
    """
    unit: int = 10 ** abs(digits - 2)

    def to_avro(value: bytes) -> bytes:
        if len(value) != 8:
            raise ValueError(f"money of {len(value)} bytes")
        units = int.from_bytes(value, "big", signed=True)
        if digits >= 2:
            return _twos_complement(units * unit)
        # Half up, away from zero, as Java rounds.
        whole, rest = divmod(abs(units), unit)
        nearest = whole + (2 * rest >= unit)
        avro = _twos_complement(nearest if units >= 0 else -nearest)
        if rest:
            raise Unfit("money of more digits than money.fraction.digits", avro)
        return avro

    def from_content(content: bytes) -> bytes:
        number = int.from_bytes(content, "big", signed=True)
        units = number // unit if digits >= 2 else number * unit
        return units.to_bytes(8, "big", signed=True)

    return Codec(
        pg_type="money",
        avro=decimal_schema(digits, None),
        encode=Encode(TAKE, ("money_avro_@(f[q:o])",)),
        decode=Decode(
            (*READ_BYTES, "v = money_binary_@(r[s:p])"),
            (r"b'\x00\x00\x00\x08'", "v"),
            "v",
            ("money", 0) if digits == 2 else ("call", 0),
        ),
        to_text=money_text,
        from_text=money_value,
        filler=b"\x02\x00",
        scope={"money_avro_@": to_avro, "money_binary_@": from_content},
    )


def money_text(value: bytes) -> bytes:
    """Units and hundredths of money's binary form, without a currency."""
    units = int.from_bytes(value, "big", signed=True)
    sign = "-" if units < 0 else ""
    return f"{sign}{abs(units) // 100}.{abs(units) % 100:02d}".encode()


def money_value(text: bytes) -> bytes:
    """Binary form of money's text, whatever currency and separators it has."""
    digits = int(bytes(byte for byte in text if 48 <= byte <= 57))
    negative = b"-" in text or b"(" in text
    return (-digits if negative else digits).to_bytes(8, "big", signed=True)
