"""Intervals, by ``interval.handling.mode``.

``string`` is Debezium's ``io.debezium.time.Interval``: every part of an interval. ``numeric``, Debezium's default, is
its ``MicroDuration``: a month counts as 365.25 / 12 days, and all parts become one; what this cannot carry is Unfit.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from cdc.avro_binary import LONG_MAX, LONG_MIN
from connectors.postgres.codec import Codec, connect, lossy, string_by
from connectors.postgres.moments import fraction_us

INTERVAL: Final = "io.debezium.time.Interval"
DURATION: Final = "io.debezium.time.MicroDuration"
_DAYS_PER_MONTH: Final = 365.25 / 12

_INTERVAL: Final = struct.Struct(">qii")
_FOREVER: Final = _INTERVAL.pack((1 << 63) - 1, (1 << 31) - 1, (1 << 31) - 1)
_NEVER: Final = _INTERVAL.pack(-(1 << 63), -(1 << 31), -(1 << 31))


def interval(pg_type: str) -> Codec:
    """Interval: ``P1Y2M3DT4H5M6.78S``, with every part; each part has its own sign."""
    return string_by(pg_type, interval_text, interval_value, avro=connect("string", INTERVAL))


def interval_as_number(exact: Codec) -> Codec:
    """About how many microseconds; in doubles, as Debezium's ``MicroDuration.durationMicros`` reckons."""

    def micros_of(value: bytes) -> int:
        if value in (_FOREVER, _NEVER):
            return LONG_MAX if value == _FOREVER else LONG_MIN
        micros, days, months = _INTERVAL.unpack(value)
        sign = -1 if micros < 0 else 1
        seconds, fraction = divmod(abs(micros), 1_000_000)
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        whole_days = months * _DAYS_PER_MONTH + days
        number = ((whole_days * 24 + sign * hours) * 60 + sign * minutes) * 60
        number += sign * (seconds + fraction / 1e6)
        return max(LONG_MIN, min(LONG_MAX, int(number * 1e6)))

    return lossy(
        exact.pg_type,
        connect("long", DURATION),
        micros_of,
        lambda micros: _INTERVAL.pack(micros, 0, 0),
        exact,
    )


def interval_text(value: bytes) -> bytes:
    """ISO text of an interval's binary form."""
    if value in (_FOREVER, _NEVER):
        return b"infinity" if value == _FOREVER else b"-infinity"
    micros, days, months = _INTERVAL.unpack(value)
    year_sign = -1 if months < 0 else 1
    years, months = divmod(abs(months), 12)
    sign = "-" if micros < 0 else ""
    seconds, micros = divmod(abs(micros), 1_000_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{micros:06d}".rstrip("0") if micros else ""
    part = [f"{sign}{number}" if number else "0" for number in (hours, minutes)]
    last = f"{sign if seconds or micros else ''}{seconds}{fraction}"
    return (
        f"P{year_sign * years}Y{year_sign * months}M{days}DT{part[0]}H{part[1]}M{last}S"
    ).encode()


_ISO: Final = re.compile(
    r"P(?:(-?\d+)Y)?(?:(-?\d+)M)?(?:(-?\d+)W)?(?:(-?\d+)D)?"
    r"(?:T(?:(-?\d+)H)?(?:(-?\d+)M)?(?:(-?)(\d+)(?:\.(\d+))?S)?)?"
)
_WORDY: Final = re.compile(r"([+-]?\d+) (year|mon|day)s?")
_WORDY_CLOCK: Final = re.compile(r"([+-]?)(\d+):(\d\d):(\d\d)(?:\.(\d+))?")


def interval_value(text: bytes) -> bytes:
    """Binary form of an interval's text: ISO 8601, or IntervalStyle ``postgres``."""
    spelled = text.decode()
    if spelled in {"infinity", "-infinity"}:
        return _FOREVER if spelled == "infinity" else _NEVER
    iso = _ISO.fullmatch(spelled)
    if iso is not None:
        years, months, weeks, days, hours, minutes = (int(iso[at] or 0) for at in range(1, 7))
        seconds = int(iso[8] or 0) * 1_000_000 + fraction_us((iso[9] or "").encode())
        micros = (hours * 60 + minutes) * 60_000_000 + (-seconds if iso[7] else seconds)
        return _INTERVAL.pack(micros, weeks * 7 + days, years * 12 + months)
    rest, months, days, micros = spelled, 0, 0, 0
    for number, unit in _WORDY.findall(spelled):
        months += int(number) * {"year": 12, "mon": 1, "day": 0}[unit]
        days += int(number) if unit == "day" else 0
    rest = _WORDY.sub("", spelled).strip()
    if rest:
        match = _WORDY_CLOCK.fullmatch(rest)
        if match is None:
            raise ValueError(f"not an interval: {spelled[:60]!r}")
        seconds = (int(match[2]) * 60 + int(match[3])) * 60 + int(match[4])
        micros = seconds * 1_000_000 + fraction_us((match[5] or "").encode())
        micros = -micros if match[1] == "-" else micros
    return _INTERVAL.pack(micros, days, months)
