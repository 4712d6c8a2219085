"""The Gregorian calendar on PostgreSQL's whole range, both ways; years as ISO 8601 counts them (1 BC is 0)."""

from __future__ import annotations

_DAYS_OF_ERA = 146_097  # of 400 years
_OFFSET = 730_425  # from 0000-03-01 to 2000-01-01


def civil(days: int) -> tuple[int, int, int]:
    """Year, month and day of a day counted from 2000-01-01."""
    era, day = divmod(days + _OFFSET, _DAYS_OF_ERA)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    shifted = (5 * day + 2) // 153  # months counted from March, so that a leap day is the last
    month = shifted + 3 if shifted < 10 else shifted - 9
    return era * 400 + year + (month <= 2), month, day - (153 * shifted + 2) // 5 + 1


def days_of(year: int, month: int, day: int) -> int:
    """The day counted from 2000-01-01; ValueError when the month has no such day."""
    year_from_march = year - (month <= 2)
    era, of_era = divmod(year_from_march, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    days = era * _DAYS_OF_ERA + of_era * 365 + of_era // 4 - of_era // 100 + of_year - _OFFSET
    if not 1 <= month <= 12 or civil(days) != (year, month, day):
        raise ValueError(f"no such day: {year}-{month}-{day}")
    return days
