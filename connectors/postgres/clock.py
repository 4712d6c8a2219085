"""Times of day.

``time`` is Debezium's count of milli- or microseconds since midnight; 24:00:00 is one of its values.
``timetz`` is an ISO string *with the zone that was stored* (Debezium turns it to UTC, and 12:00+02 and 10:00+00 are two
values to PostgreSQL).
"""

from __future__ import annotations

import re
import struct
from typing import Final

from connectors.postgres.codec import (
    READ_LONG,
    Codec,
    Decode,
    Encode,
    Unfit,
    connect,
    string_by,
)
from connectors.postgres.moments import clock, micros_of_clock, short_clock, zone_seconds

TIME: Final = "io.debezium.time.Time"
MICRO_TIME: Final = "io.debezium.time.MicroTime"
ZONED_TIME: Final = "io.debezium.time.ZonedTime"

_US: Final = struct.Struct(">q")
_ZONED: Final = struct.Struct(">qi")


def time(pg_type: str, *, in_millis: bool) -> Codec:
    """Time of day, in milliseconds or in microseconds."""
    unit = 1000 if in_millis else 1
    return Codec(
        pg_type=pg_type,
        avro=connect("int", TIME) if unit == 1000 else connect("long", MICRO_TIME),
        encode=Encode(
            (
                "n, v = unpack_time(f, q)",
                "if n != 8:",
                "    wrong_size(n, 8)",
                "o = q + 12",
                *(("v = millis(v)",) if unit == 1000 else ()),
            ),
            ("long_bytes(v)",),
            ("time_millis" if unit == 1000 else "time_micros", 0),
        ),
        decode=Decode(
            (*READ_LONG, *(("v *= 1000",) if unit == 1000 else ())),
            ("pack_sized_time(8, v)",),
            "pack_time(v)",
            ("time_millis" if unit == 1000 else "time_micros", 0),
        ),
        to_text=lambda value: short_clock(_US.unpack(value)[0]).encode(),
        from_text=lambda text: _US.pack(micros_of_clock(text.decode())),
        filler=b"\x00",
        scope={
            "unpack_time": struct.Struct(">iq").unpack_from,
            "pack_sized_time": struct.Struct(">iq").pack,
            "pack_time": _US.pack,
            "millis": _millis,
        },
    )


def _millis(micros: int) -> int:
    millis, rest = divmod(micros, 1000)
    if rest:
        raise Unfit("a time with more digits of the second than its column declares")
    return millis


def zoned_time(pg_type: str, digits: int) -> Codec:
    """Timetz, with the zone that it has."""

    def to_text(value: bytes) -> bytes:
        micros, west = _ZONED.unpack(value)
        return (clock(micros, digits) + (zone_text(-west) if west else "Z")).encode()

    return string_by(pg_type, to_text, _zoned_value, avro=connect("string", ZONED_TIME))


def zone_text(east: int) -> str:
    """Seconds east of UTC as ``+02:00``, or ``+02:00:30`` where that is needed."""
    hours, rest = divmod(abs(east), 3600)
    minutes, seconds = divmod(rest, 60)
    tail = f":{seconds:02d}" if seconds else ""
    return f"{'-' if east < 0 else '+'}{hours:02d}:{minutes:02d}{tail}"


_ZONED_TEXT: Final = re.compile(rb"(\d\d:\d\d(?::\d\d(?:\.\d+)?)?)(Z|[+-][\d:]+)")


def _zoned_value(text: bytes) -> bytes:
    match = _ZONED_TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f"not a time with a zone: {text[:40]!r}")
    return _ZONED.pack(micros_of_clock(match[1].decode()), -zone_seconds(match[2]))
