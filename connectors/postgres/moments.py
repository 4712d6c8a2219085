"""Days and times of PostgreSQL's whole range as text: ISO 8601 (44 BC is -0043), and PostgreSQL's own (DateStyle ISO).

Binary forms count days and microseconds from 2000 on.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from connectors.postgres.calendar import civil, days_of
from connectors.postgres.codec import Unfit

DAY_US: Final = 86_400_000_000
EPOCH_DAYS: Final = 10957
"""Days from 1970 to 2000, where PostgreSQL counts from."""
EPOCH_US: Final = EPOCH_DAYS * DAY_US

FOREVER: Final = (1 << 63) - 1
NEVER: Final = -(1 << 63)
"""A timestamp's infinities."""
LAST_DAY: Final = (1 << 31) - 1
FIRST_DAY: Final = -(1 << 31)
"""A date's."""

_DAYS: Final = struct.Struct(">i")
_US: Final = struct.Struct(">q")

CACHED_DAYS: Final = 20_000
DAYS_IN: Final[dict[bytes, int]] = {}
"""Microseconds since 2000, by the first eleven bytes (up to the T) of ISO strings that were met with six digits of
the second and a Z; never more than `CACHED_DAYS`."""


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
    days, micros = divmod(value, DAY_US)
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
        if len(DAYS_IN) >= CACHED_DAYS:
            DAYS_IN.clear()
        DAYS_IN[text[:11]] = days * DAY_US
    return days * DAY_US + seconds * 1_000_000 + micros


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


_ISO_DAY: Final = re.compile(rb"([+-]?\d{4,})-(\d\d)-(\d\d)")


def day_of_iso(text: bytes) -> int:
    """Days since 2000 of an ISO date. ValueError for anything else."""
    match = _ISO_DAY.fullmatch(text)
    if match is None:
        raise ValueError(f"not a date: {text[:40]!r}")
    return days_of(int(match[1]), int(match[2]), int(match[3]))


def micros_of_clock(text: str) -> int:
    """Microseconds since midnight of ``12:34:56.789`` or ``12:34``."""
    hours, minutes, *seconds = text.split(":")
    whole, _, fraction = (seconds[0] if seconds else "0").partition(".")
    micros = fraction_us(fraction.encode())
    return ((int(hours) * 60 + int(minutes)) * 60 + int(whole)) * 1_000_000 + micros


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
    if days == LAST_DAY:
        return b"infinity"
    if days == FIRST_DAY:
        return b"-infinity"
    date_part, era = _dated(days)
    return f"{date_part}{era}".encode()


def date_value(text: bytes) -> bytes:
    """Binary form of a date's text."""
    if text == b"infinity":
        return _DAYS.pack(LAST_DAY)
    if text == b"-infinity":
        return _DAYS.pack(FIRST_DAY)
    bare = text.removesuffix(b" BC")
    year, month, day = (int(part) for part in bare.split(b"-"))
    return _DAYS.pack(days_of(year if bare == text else 1 - year, month, day))


def timestamp_text(value: bytes) -> bytes:
    """Text of the binary form of a timestamp without time zone."""
    (micros,) = _US.unpack(value)
    if micros in (FOREVER, NEVER):
        return b"infinity" if micros == FOREVER else b"-infinity"
    days, time = divmod(micros, DAY_US)
    date_part, era = _dated(days)
    return f"{date_part} {short_clock(time)}{era}".encode()


def zoned_pg_text(value: bytes) -> bytes:
    """Text of a timestamptz' binary form, in UTC."""
    (micros,) = _US.unpack(value)
    if micros in (FOREVER, NEVER):
        return b"infinity" if micros == FOREVER else b"-infinity"
    days, time = divmod(micros, DAY_US)
    date_part, era = _dated(days)
    return f"{date_part} {short_clock(time)}+00{era}".encode()


def timestamp_value(text: bytes) -> bytes:
    """Binary form of a timestamp's text, with or without a zone."""
    return _US.pack(zoned_us(text))
