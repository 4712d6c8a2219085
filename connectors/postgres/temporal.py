"""Dates, timestamps and times, on PostgreSQL's whole range: infinity, BC, years past 9999 and 24:00:00.

``date`` is Debezium's count of days, with the least and greatest int for -infinity and infinity, in both systems.
``timestamp`` is its count of micro- or milliseconds; infinities are the JDBC driver's, as Debezium writes them.
PostgreSQL's last days (from 294247-01-10T04:00:25.2) do not fit beside these in 64 bits: they are carried mirrored,
as ``-(value - shift)`` in a range that no other timestamp uses, for they begin in 4714 BC.
``timestamptz`` is an ISO string in UTC, with as many digits of the second as the type has, years as ISO counts them
(44 BC is -0043), and the words infinity and -infinity.
"""

from __future__ import annotations

import struct
from typing import Final

from cdc.avro_binary import bytes_bytes
from connectors.postgres.codec import (
    READ_BYTES,
    READ_LONG,
    Codec,
    Decode,
    Encode,
    Unfit,
    connect,
)
from connectors.postgres.moments import (
    CACHED_DAYS,
    DAY_US,
    DAYS_IN,
    EPOCH_DAYS,
    EPOCH_US,
    FIRST_DAY,
    FOREVER,
    LAST_DAY,
    NEVER,
    date_text,
    date_value,
    timestamp_text,
    timestamp_value,
    zoned_pg_text,
    zoned_text,
    zoned_us,
)

DATE: Final = "io.debezium.time.Date"
TIMESTAMP: Final = "io.debezium.time.Timestamp"
MICRO_TIMESTAMP: Final = "io.debezium.time.MicroTimestamp"
ZONED_TIMESTAMP: Final = "io.debezium.time.ZonedTimestamp"

_DAYS: Final = struct.Struct(">i")
_US: Final = struct.Struct(">q")

# org.postgresql.PGStatement's, microseconds since 1970
_INFINITY: Final = 9_223_372_036_825_200_000
_MINUS_INFINITY: Final = -9_223_372_036_832_400_000
_SHIFT: Final = 1 << 56
_LIMIT: Final = _INFINITY - EPOCH_US

_SCOPE: Final = {
    "unpack_days": struct.Struct(">ii").unpack_from,
    "pack_days": _DAYS.pack,
    "pack_sized_days": struct.Struct(">ii").pack,
    "unpack_us": struct.Struct(">iq").unpack_from,
    "pack_us": _US.pack,
    "pack_sized_us": struct.Struct(">iq").pack,
}

_TAKE_US: Final = ("n, v = unpack_us(f, q)", "if n != 8:", "    wrong_size(n, 8)", "o = q + 12")
_PACK_US: Final = (("pack_sized_us(8, v)",), "pack_us(v)")


def date() -> Codec:
    """Date, in days since 1970."""
    finite = f"if {FIRST_DAY} < v < {LAST_DAY}:"
    return Codec(
        pg_type="date",
        avro=connect("int", DATE),
        encode=Encode(
            (
                "n, v = unpack_days(f, q)",
                "if n != 4:",
                "    wrong_size(n, 4)",
                "o = q + 8",
                finite,
                f"    v += {EPOCH_DAYS}",
            ),
            ("LONGS[v] if 0 <= v < 8192 else long_bytes(v)",),
            ("date", 0),
        ),
        decode=Decode(
            (*READ_LONG, finite, f"    v -= {EPOCH_DAYS}"),
            ("pack_sized_days(4, v)",),
            "pack_days(v)",
            ("date", 0),
        ),
        to_text=date_text,
        from_text=date_value,
        filler=b"\x00",
        direct=True,
        scope=_SCOPE,
    )


def micro_timestamp(pg_type: str) -> Codec:
    """Timestamp without time zone, in microseconds since 1970."""
    return Codec(
        pg_type=pg_type,
        avro=connect("long", MICRO_TIMESTAMP),
        encode=Encode(
            (
                *_TAKE_US,
                f"if {NEVER} < v < {_LIMIT}:",
                f"    v += {EPOCH_US}",
                "else:",
                "    v = far_us(v)",
                # Most of them: four pairs of bytes, from 1970-01-26 to 2540.
                f"if {1 << 41} <= v < {1 << 54}:",
                "    v += v",
                "    w = HEADS[v & 16383] + HEADS[v >> 14 & 16383]",
                "    v = w + HEADS[v >> 28 & 16383] + TAILS[v >> 42]",
                "else:",
                "    v = long_bytes(v)",
            ),
            ("v",),
            ("micros", 0),
        ),
        decode=Decode(
            (
                # Eight bytes, the last of which ends the number: as the encoder has most of them.
                "a = b = c = d = 0",
                "if len(r) - p > 7:",
                "    a, b, c, d = four_pairs(r, p)",
                "if a & b & c & 0x8080 == 0x8080 and d & 0x8080 == 0x80:",
                "    v = PAIRS[a] | PAIRS[b] << 14 | PAIRS[c] << 28 | PAIRS[d] << 42",
                "    v = v >> 1 ^ -(v & 1)",
                "    p += 8",
                "else:",
                "    z, p = raw_at(r, p)",
                "    v = z >> 1 ^ -(z & 1)",
                f"if {-_SHIFT * 4} < v < {_INFINITY}:",
                f"    v -= {EPOCH_US}",
                "else:",
                "    v = near_us(v)",
            ),
            *_PACK_US,
            ("micros", 0),
        ),
        to_text=timestamp_text,
        from_text=timestamp_value,
        filler=b"\x00",
        direct=True,
        scope={**_SCOPE, "far_us": lambda v: _far(v, 1), "near_us": lambda v: _near(v, 1)},
    )


def milli_timestamp(pg_type: str) -> Codec:
    """Timestamp with at most three digits of the second, in milliseconds since 1970."""
    return Codec(
        pg_type=pg_type,
        avro=connect("long", TIMESTAMP),
        encode=Encode((*_TAKE_US, "v = far_ms(v)"), ("long_bytes(v)",), ("millis", 0)),
        decode=Decode((*READ_LONG, "v = near_ms(v)"), *_PACK_US, ("millis", 0)),
        to_text=timestamp_text,
        from_text=timestamp_value,
        filler=b"\x00",
        direct=True,
        scope={**_SCOPE, "far_ms": lambda v: _far(v, 1000), "near_ms": lambda v: _near(v, 1000)},
    )


def _far(value: int, unit: int) -> int:
    """Units since 1970 of PostgreSQL's microseconds; ``unit`` is the microseconds of one."""
    if value == FOREVER:
        return _INFINITY // unit
    if value == NEVER:
        return _MINUS_INFINITY // unit
    value, rest = divmod(value + EPOCH_US, unit)
    if rest:
        raise Unfit("a timestamp with more digits of the second than its column declares")
    return value if value < _INFINITY // unit else -(value - _SHIFT // unit)


def _near(value: int, unit: int) -> int:
    """PostgreSQL's microseconds of units since 1970."""
    if value == _INFINITY // unit:
        return FOREVER
    if value == _MINUS_INFINITY // unit:
        return NEVER
    if value < -_SHIFT * 4 // unit:
        value = -value + _SHIFT // unit
    return value * unit - EPOCH_US


# --- timestamptz -----------------------------------------------------------------------------------------------

_days_out: Final[dict[int, bytes]] = {}
"""By day since 2000: an Avro string's length and date, up to the T, for strings with six digits of the second."""
_SECONDS: Final = tuple(
    f"{hour:02d}:{minute:02d}:{second:02d}.".encode()
    for hour in range(24)
    for minute in range(60)
    for second in range(60)
)
_MILLIS: Final = tuple(f"{number:03d}".encode() for number in range(1000))
_MICROS: Final = tuple(f"{number:03d}Z".encode() for number in range(1000))
_MINUTES_IN: Final = {
    f"{minute // 60:02d}:{minute % 60:02d}:".encode(): minute * 60_000_000 for minute in range(1440)
}
_SECONDS_IN: Final = {f"{second:02d}.".encode(): second * 1_000_000 for second in range(60)}


def zoned_timestamp(pg_type: str, digits: int) -> Codec:
    """Timestamptz: an ISO string in UTC with this many digits of the second."""
    if digits == 6:
        encode: tuple[str, ...] = (
            *_TAKE_US,
            "d, s = divmod(v, 86400000000)",
            "w = days_out.get(d)",
            "if w is None:",
            "    v = zoned_avro_@(v)",
            "else:",
            "    s, v = divmod(s, 1000000)",
            "    d, v = divmod(v, 1000)",
            "    v = w + SECONDS[s] + MILLIS[d] + MICROS[v]",
        )
    else:
        encode = (*_TAKE_US, "v = zoned_avro_@(v)")
    return Codec(
        pg_type=pg_type,
        avro=connect("string", ZONED_TIMESTAMP),
        encode=Encode(encode, ("v",), ("zoned", digits)),
        decode=Decode(
            (
                *READ_BYTES,
                "v = days_in.get(r[s:s + 11])",
                "if v is None or n != 27 or r[s + 26] != 90:",
                "    v = zoned_us(r[s:p])",
                "else:",
                "    v += MINUTES_IN[r[s + 11:s + 17]] + SECONDS_IN[r[s + 17:s + 20]]",
                "    v += int(r[s + 20:s + 26])",
            ),
            *_PACK_US,
            ("zoned", 0),
        ),
        to_text=zoned_pg_text,
        from_text=timestamp_value,
        filler=bytes_bytes(b"1970-01-01T00:00:00Z"),
        direct=True,
        scope={
            **_SCOPE,
            "days_out": _days_out,
            "days_in": DAYS_IN,
            "zoned_avro_@": lambda value: _zoned_avro(value, digits),
            "zoned_us": zoned_us,
            "SECONDS": _SECONDS,
            "MILLIS": _MILLIS,
            "MICROS": _MICROS,
            "MINUTES_IN": _MINUTES_IN,
            "SECONDS_IN": _SECONDS_IN,
        },
    )


def _zoned_avro(value: int, digits: int) -> bytes:
    text = zoned_text(value, digits)
    if digits == 6 and len(text) == 27:
        if len(_days_out) >= CACHED_DAYS:
            _days_out.clear()
        _days_out[value // DAY_US] = bytes_bytes(text)[:12]
    return bytes_bytes(text)
