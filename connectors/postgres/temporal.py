"""Dates, timestamps and times, on PostgreSQL's whole range: infinity, BC, years past 9999 and 24:00:00.

``date`` is Debezium's count of days, with the least and greatest int for -infinity and infinity, in both systems.
``timestamp`` is its count of micro- or milliseconds; infinities are the JDBC driver's, as Debezium writes them.
PostgreSQL's last days (from 294247-01-10T04:00:25.2) do not fit beside these in 64 bits: they are carried mirrored,
as ``-(value - shift)`` in a range that no other timestamp uses, for they begin in 4714 BC.
``timestamptz`` is an ISO string in UTC, with as many digits of the second as the type has, years as ISO counts them
(44 BC is -0043), and the words infinity and -infinity.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from cdc.avro_binary import bytes_bytes
from connectors.postgres.calendar import civil, days_of
from connectors.postgres.codec import (
    READ_BYTES,
    READ_LONG,
    Codec,
    Decode,
    Encode,
    Unfit,
    connect,
)

DATE: Final = "io.debezium.time.Date"
TIMESTAMP: Final = "io.debezium.time.Timestamp"
MICRO_TIMESTAMP: Final = "io.debezium.time.MicroTimestamp"
ZONED_TIMESTAMP: Final = "io.debezium.time.ZonedTimestamp"

EPOCH_DAYS: Final = 10957
"""Days from 1970 to 2000, where PostgreSQL counts from."""
EPOCH_US: Final = EPOCH_DAYS * 86_400_000_000
_DAY_US: Final = 86_400_000_000

_DAYS: Final = struct.Struct(">i")
_US: Final = struct.Struct(">q")
FOREVER: Final = (1 << 63) - 1
NEVER: Final = -(1 << 63)
_LAST_DAY: Final = (1 << 31) - 1
_FIRST_DAY: Final = -(1 << 31)

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
    finite = f"if {_FIRST_DAY} < v < {_LAST_DAY}:"
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
        ),
        decode=Decode(
            (*READ_LONG, finite, f"    v -= {EPOCH_DAYS}"),
            ("pack_sized_days(4, v)",),
            "pack_days(v)",
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
        encode=Encode((*_TAKE_US, "v = far_ms(v)"), ("long_bytes(v)",)),
        decode=Decode((*READ_LONG, "v = near_ms(v)"), *_PACK_US),
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

_CACHED_DAYS: Final = 20_000
_days_out: Final[dict[int, bytes]] = {}
"""By day since 2000: an Avro string's length and date, up to the T, for strings with six digits of the second."""
_days_in: Final[dict[bytes, int]] = {}
"""By date up to the T: microseconds since 2000."""
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
        encode=Encode(encode, ("v",)),
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
        ),
        to_text=zoned_pg_text,
        from_text=timestamp_value,
        filler=bytes_bytes(b"1970-01-01T00:00:00Z"),
        direct=True,
        scope={
            **_SCOPE,
            "days_out": _days_out,
            "days_in": _days_in,
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
        if len(_days_out) >= _CACHED_DAYS:
            _days_out.clear()
        _days_out[value // _DAY_US] = bytes_bytes(text)[:12]
    return bytes_bytes(text)


def iso_date(days: int) -> str:
    """A day (counted from 2000) as ISO 8601 and Java write it: a sign before years outside 0000 to 9999."""
    year, month, day = civil(days)
    if 0 <= year <= 9999:
        return f"{year:04d}-{month:02d}-{day:02d}"
    return f"{'-' if year < 0 else '+'}{abs(year):04d}-{month:02d}-{day:02d}"


def zoned_text(value: int, digits: int) -> bytes:
    """The ISO string of microseconds since 2000. Unfit when it would cut digits off."""
    if value == FOREVER:
        return b"infinity"
    if value == NEVER:
        return b"-infinity"
    days, micros = divmod(value, _DAY_US)
    return f"{iso_date(days)}T{clock(micros, digits)}Z".encode()


def clock(micros: int, digits: int) -> str:
    """A time of day with this many digits of the second. Unfit when there are more."""
    seconds, fraction = divmod(micros, 1_000_000)
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    if fraction % 10 ** (6 - digits):
        raise Unfit("a time with more digits of the second than its column declares")
    return f"{text}.{fraction // 10 ** (6 - digits):0{digits}d}" if digits else text


_ZONED: Final = re.compile(
    rb"([+-]?\d{4,})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?"
    rb"(Z|[+-]\d\d(?::?\d\d(?::?\d\d)?)?)?( BC)?"
)


def zoned_us(text: bytes) -> int:
    """Microseconds since 2000 of an ISO string, or of PostgreSQL's text; without a zone it is taken as UTC.

    ValueError for anything else, and for more than six digits of the second.
    """
    if text == b"infinity":
        return FOREVER
    if text == b"-infinity":
        return NEVER
    match = _ZONED.fullmatch(text)
    if match is None:
        raise ValueError(f"not a timestamp: {text[:40]!r}")
    year, month, day = int(match[1]), int(match[2]), int(match[3])
    if match[9]:
        year = 1 - year
    days = days_of(year, month, day)
    seconds = int(match[4]) * 3600 + int(match[5]) * 60 + int(match[6] or 0)
    seconds -= zone_seconds(match[8] or b"Z")
    micros = fraction_us(match[7])
    if len(text) == 27 and text.endswith(b"Z"):
        if len(_days_in) >= _CACHED_DAYS:
            _days_in.clear()
        _days_in[text[:11]] = days * _DAY_US
    return days * _DAY_US + seconds * 1_000_000 + micros


def fraction_us(digits: bytes | None) -> int:
    """Microseconds of the digits behind the second's point. Unfit when they say more."""
    if not digits:
        return 0
    nanos = int(digits.ljust(9, b"0"))
    if nanos % 1000:
        raise Unfit("a time finer than microseconds")
    return nanos // 1000


def zone_seconds(zone: bytes) -> int:
    """Seconds east of UTC of ``Z``, ``+02``, ``+02:30``, ``+0230`` or ``+02:30:15``."""
    if zone == b"Z":
        return 0
    parts = zone[1:].replace(b":", b"")
    seconds = int(parts[:2]) * 3600 + int(parts[2:4] or 0) * 60 + int(parts[4:6] or 0)
    return -seconds if zone[:1] == b"-" else seconds


# --- PostgreSQL's own text (DateStyle ISO) ---------------------------------------------------------------------


def _dated(days: int) -> tuple[str, str]:
    year, month, day = civil(days)
    if year > 0:
        return f"{year:04d}-{month:02d}-{day:02d}", ""
    return f"{1 - year:04d}-{month:02d}-{day:02d}", " BC"


def short_clock(micros: int) -> str:
    """A time of day as PostgreSQL writes it: no more digits of the second than it needs."""
    text = clock(micros, 6)
    return text.rstrip("0").rstrip(".")


def date_text(value: bytes) -> bytes:
    """Text of a date's binary form."""
    (days,) = _DAYS.unpack(value)
    if days == _LAST_DAY:
        return b"infinity"
    if days == _FIRST_DAY:
        return b"-infinity"
    date_part, era = _dated(days)
    return f"{date_part}{era}".encode()


def date_value(text: bytes) -> bytes:
    """Binary form of a date's text."""
    if text == b"infinity":
        return _DAYS.pack(_LAST_DAY)
    if text == b"-infinity":
        return _DAYS.pack(_FIRST_DAY)
    bare = text.removesuffix(b" BC")
    year, month, day = (int(part) for part in bare.split(b"-"))
    return _DAYS.pack(days_of(year if bare == text else 1 - year, month, day))


def timestamp_text(value: bytes) -> bytes:
    """Text of the binary form of a timestamp without time zone."""
    (micros,) = _US.unpack(value)
    if micros in (FOREVER, NEVER):
        return b"infinity" if micros == FOREVER else b"-infinity"
    days, time = divmod(micros, _DAY_US)
    date_part, era = _dated(days)
    return f"{date_part} {short_clock(time)}{era}".encode()


def zoned_pg_text(value: bytes) -> bytes:
    """Text of a timestamptz' binary form, in UTC."""
    (micros,) = _US.unpack(value)
    if micros in (FOREVER, NEVER):
        return b"infinity" if micros == FOREVER else b"-infinity"
    days, time = divmod(micros, _DAY_US)
    date_part, era = _dated(days)
    return f"{date_part} {short_clock(time)}+00{era}".encode()


def timestamp_value(text: bytes) -> bytes:
    """Binary form of a timestamp's text, with or without a zone."""
    return _US.pack(zoned_us(text))
