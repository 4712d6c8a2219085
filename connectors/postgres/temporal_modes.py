"""Dates, times and timestamps in the other modes of ``time.precision.mode``.

``connect``: Kafka Connect's own types, in milliseconds. ``isostring``: ISO 8601, with a Z although no zone is meant.
``nanoseconds``: Debezium's, for 1677 to 2262. ``microseconds`` and ``adaptive_time_microseconds`` choose among the forms
of `temporal` and `clock`. What a form cannot carry is Unfit.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Final

from cdc.avro_binary import LONG_MAX, LONG_MIN, bytes_bytes
from cdc.table import AvroType
from connectors.postgres.codec import Codec, Convert, connect, converted, lossy
from connectors.postgres.moments import (
    DAY_US,
    EPOCH_US,
    FIRST_DAY,
    FOREVER,
    LAST_DAY,
    NEVER,
    clock,
    day_of_iso,
    iso_date,
    micros_of_clock,
    zoned_us,
)

CONNECT_DATE: Final = "org.apache.kafka.connect.data.Date"
CONNECT_TIME: Final = "org.apache.kafka.connect.data.Time"
CONNECT_TIMESTAMP: Final = "org.apache.kafka.connect.data.Timestamp"
ISO_DATE: Final = "io.debezium.time.IsoDate"
ISO_TIME: Final = "io.debezium.time.IsoTime"
ISO_TIMESTAMP: Final = "io.debezium.time.IsoTimestamp"
NANO_TIME: Final = "io.debezium.time.NanoTime"
NANO_TIMESTAMP: Final = "io.debezium.time.NanoTimestamp"

_DAYS: Final = struct.Struct(">i")
_US: Final = struct.Struct(">q")


def connect_date(adaptive: Codec) -> Codec:
    """Days since 1970: only the name is another."""
    return replace(adaptive, avro=_connect_type("int", CONNECT_DATE, "date"))


def connect_time(adaptive: Codec) -> Codec:
    """Milliseconds since midnight."""
    return lossy(
        adaptive.pg_type,
        _connect_type("int", CONNECT_TIME, "time-millis"),
        lambda value: _us(value) // 1000,
        lambda millis: _US.pack(millis * 1000),
        adaptive,
    )


def connect_timestamp(adaptive: Codec) -> Codec:
    """Milliseconds since 1970; the infinities are the ends of what a long can say."""
    return lossy(
        adaptive.pg_type,
        _connect_type("long", CONNECT_TIMESTAMP, "timestamp-millis"),
        lambda value: _ends(_us(value)) or (_us(value) + EPOCH_US) // 1000,
        lambda millis: _US.pack(_infinite(millis) or millis * 1000 - EPOCH_US),
        adaptive,
    )


def nano_time(adaptive: Codec) -> Codec:
    """Nanoseconds since midnight."""
    return lossy(
        adaptive.pg_type,
        connect("long", NANO_TIME),
        lambda value: _us(value) * 1000,
        lambda nanos: _US.pack(nanos // 1000),
        adaptive,
    )


def nano_timestamp(adaptive: Codec) -> Codec:
    """Nanoseconds since 1970; the infinities are the ends of what a long can say."""

    def nanos_of(value: bytes) -> int:
        micros = _us(value)
        within = max(LONG_MIN + 1000, min(LONG_MAX - 1000, (micros + EPOCH_US) * 1000))
        return _ends(micros) or within

    return lossy(
        adaptive.pg_type,
        connect("long", NANO_TIMESTAMP),
        nanos_of,
        lambda nanos: _US.pack(_infinite(nanos) or nanos // 1000 - EPOCH_US),
        adaptive,
    )


def iso_date_form(adaptive: Codec) -> Codec:
    """``2017-09-15Z``."""

    def to_avro(value: bytes) -> bytes:
        (days,) = _DAYS.unpack(value)
        if days in (FIRST_DAY, LAST_DAY):
            return bytes_bytes(b"infinity" if days == LAST_DAY else b"-infinity")
        return bytes_bytes(f"{iso_date(days)}Z".encode())

    def from_content(content: bytes) -> bytes:
        if content.endswith(b"infinity"):
            return _DAYS.pack(FIRST_DAY if content.startswith(b"-") else LAST_DAY)
        return _DAYS.pack(day_of_iso(content.removesuffix(b"Z")))

    return _as_string(adaptive, ISO_DATE, to_avro, from_content)


def iso_time_form(adaptive: Codec) -> Codec:
    """``04:05:11.789Z``, with the digits of the second that it needs."""
    return _as_string(
        adaptive,
        ISO_TIME,
        lambda value: bytes_bytes(_short(_us(value))),
        lambda content: _US.pack(micros_of_clock(content.removesuffix(b"Z").decode())),
    )


def iso_timestamp_form(adaptive: Codec) -> Codec:
    """``2019-07-09T02:28:57.123456Z``, with the digits of the second that it needs."""

    def to_avro(value: bytes) -> bytes:
        micros = _us(value)
        if micros in (FOREVER, NEVER):
            return bytes_bytes(b"infinity" if micros == FOREVER else b"-infinity")
        days, time = divmod(micros, DAY_US)
        return bytes_bytes(iso_date(days).encode() + b"T" + _short(time))

    return _as_string(adaptive, ISO_TIMESTAMP, to_avro, lambda content: _US.pack(zoned_us(content)))


def _short(micros: int) -> bytes:
    text = clock(micros, 6)
    return f"{text.rstrip('0').rstrip('.')}Z".encode()


def _us(value: bytes) -> int:
    return int(_US.unpack(value)[0])


def _ends(micros: int) -> int:
    """A long for an infinity, 0 for anything else."""
    return {FOREVER: LONG_MAX, NEVER: LONG_MIN}.get(micros, 0)


def _infinite(number: int) -> int:
    """The way back."""
    return {LONG_MAX: FOREVER, LONG_MIN: NEVER}.get(number, 0)


def _connect_type(avro: str, name: str, logical: str) -> AvroType:
    return {"type": avro, "connect.version": 1, "connect.name": name, "logicalType": logical}


def _as_string(adaptive: Codec, name: str, to_avro: Convert, from_content: Convert) -> Codec:
    return converted(
        adaptive.pg_type,
        connect("string", name),
        to_avro,
        from_content,
        to_text=adaptive.to_text,
        from_text=adaptive.from_text,
        direct=adaptive.direct,
    )
