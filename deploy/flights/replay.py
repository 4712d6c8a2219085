"""The year again: real flights and real weather, 52 weeks later, dealt out in the order in which they happened."""

from __future__ import annotations

import csv
import io
import itertools
import threading
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta

from deploy.flights.data import NULL, open_csv

Row = dict[str, str | None]
"""A row as text by column, None for null: PostgreSQL reads the values."""

_YEAR = timedelta(weeks=52)  # whole weeks, so that every flight keeps its day of the week


class Replay:
    """Deals every row once, to any number of threads; when they are all dealt it begins again, a year later.

    Only the first so many ``flights`` are replayed: those whose planes and airports the source knows.
    """

    def __init__(self, flights: int) -> None:
        self._lock = threading.Lock()
        self._flights = _years("flights", flights)
        self._weather = _years("weather")
        self._planes = itertools.cycle(_rows("planes"))
        self._new_planes = itertools.count(1)

    def flights(self, number: int) -> list[Row]:
        """The next flights, as they were flown."""
        with self._lock:
            return list(itertools.islice(self._flights, number))

    def weather(self) -> Row:
        """The next hour's weather at one of the three airports."""
        with self._lock:
            return next(self._weather)

    def plane(self) -> Row:
        """A plane of a kind that is known, under a tail number that was never seen."""
        with self._lock:
            # No number of the registry ends in Z after a digit run of six.
            return {**next(self._planes), "tailnum": f"N{next(self._new_planes):06}Z"}


def later(row: Mapping[str, str | None], shift: timedelta) -> Row:
    """The row with its date and its hour moved."""
    day = date(*(int(row[name] or 0) for name in ("year", "month", "day"))) + shift
    hour = datetime.fromisoformat(row["time_hour"] or "") + shift
    moved = {"year": day.year, "month": day.month, "day": day.day, "time_hour": hour.isoformat()}
    return {**row, **{name: str(value) for name, value in moved.items()}}


def _years(table: str, limit: int | None = None) -> Iterator[Row]:
    for year in itertools.count(1):
        for row in itertools.islice(_rows(table), limit):
            yield later(row, year * _YEAR)


def _rows(table: str) -> Iterator[Row]:
    with open_csv(table) as file:
        for row in csv.DictReader(io.TextIOWrapper(file, "utf-8")):
            yield {name: None if value == NULL else value for name, value in row.items()}
