"""One of the airport's many hands: a session that schedules, departs, lands, corrects and cancels flights.

Every act is one transaction. A writer touches only flights of its own (those it scheduled, and those of last year
whose id falls to it), so writers wait for each other at foreign keys only, and never in a circle.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg.sql import SQL, Composed, Identifier, Placeholder

from deploy.flights.replay import Replay, Row

LARGE = 1000
"""Rows from which on a transaction counts as a large one."""

Outcome = Literal["committed", "rolled back"]

_ROLLED_BACK = 0.05
"""The part of all transactions that ends so."""

_FLOWN = ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time")
"""What nobody knows of a flight before it is flown."""

_DEPART = "UPDATE flights SET dep_time = %(dep_time)s, dep_delay = %(dep_delay)s WHERE id = %(id)s"
_LAND = (
    "UPDATE flights SET arr_time = %(arr_time)s, arr_delay = %(arr_delay)s, air_time = %(air_time)s"
    " WHERE id = %(id)s"
)
_CORRECT = "UPDATE flights SET arr_delay = arr_delay + %s, air_time = air_time + %s WHERE id = %s"
_CANCEL = "DELETE FROM flights WHERE id = %s"
_WITHDRAW = "DELETE FROM flights WHERE id = ANY(%s)"
_POSTPONE = "UPDATE flights SET time_hour = time_hour + interval '1 day' WHERE id = ANY(%s)"
_REGISTER_AGAIN = "UPDATE planes SET tailnum = %s WHERE tailnum = %s"


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A flight that stands in the source, and how it was really flown."""

    id: int
    flown: Row

    def values(self) -> Row:
        """All of it, by column."""
        return {**self.flown, "id": str(self.id)}


class Writer:
    """One session's acts; ``act`` runs one. ``last_year`` is the highest flight id that was loaded."""

    def __init__(
        self,
        connection: psycopg.Connection,
        replay: Replay,
        *,
        number: int,
        writers: int,
        last_year: int,
    ) -> None:
        self._connection = connection
        self._replay = replay
        self._number = number
        self._writers = writers
        self._last_year = last_year
        self._random = random.Random(f"flights of writer {number}")
        self._scheduled: deque[Scheduled] = deque()
        self._flying: deque[Scheduled] = deque()
        self._acts: dict[Callable[[], int], int] = {
            self._schedule: 24,
            self._depart: 24,
            self._land: 20,
            self._correct: 12,
            self._cancel: 5,
            self._see_new_plane: 5,
            self._register_again: 2,
            self._change_of_mind: 2,
        }
        self._large_acts: dict[Callable[[], int], int] = {
            self._publish: 3,
            self._postpone: 2,
            self._withdraw: 1,
        }

    def act(self, *, large: bool = False) -> tuple[Outcome, int]:
        """Do the next thing, in a transaction of its own: what became of it, and the rows it changed."""
        acts = self._large_acts if large else self._acts
        act = self._random.choices(tuple(acts), tuple(acts.values()))[0]
        scheduled, flying = self._scheduled.copy(), self._flying.copy()
        rows = act()
        if self._random.random() < _ROLLED_BACK:
            self._connection.rollback()
            self._scheduled, self._flying = scheduled, flying
            return "rolled back", rows
        self._connection.commit()
        return "committed", rows

    # --- small acts: each returns the rows that it changed ------------------------------------------------------

    def _schedule(self) -> int:
        return self._add(self._replay.flights(self._random.randint(1, 8)))

    def _depart(self) -> int:
        leaving = self._take(self._scheduled, self._random.randint(1, 8))
        self._flying += leaving
        return self._each(_DEPART, [flight.values() for flight in leaving])

    def _land(self) -> int:
        landing = self._take(self._flying, self._random.randint(1, 8))
        return self._each(_LAND, [flight.values() for flight in landing])

    def _correct(self) -> int:
        minutes = (self._random.randint(-9, 9), self._random.randint(-3, 3))
        return self._each(_CORRECT, [(*minutes, id_) for id_ in self._old(3)])

    def _cancel(self) -> int:
        cancelled = [flight.id for flight in self._take(self._scheduled, 1)] + self._old(1)
        return self._each(_CANCEL, [(id_,) for id_ in cancelled])

    def _see_new_plane(self) -> int:
        """A plane, its first flight, and the weather it flies in."""
        plane = self._replay.plane()
        self._insert("planes", [plane])
        self._insert("weather", [self._replay.weather()])
        return 2 + self._add(
            [{**flight, "tailnum": plane["tailnum"]} for flight in self._replay.flights(1)]
        )

    def _register_again(self) -> int:
        """A plane comes and has its tail number, its key, changed before it flies."""
        plane = self._replay.plane()
        self._insert("planes", [plane])
        number = str(plane["tailnum"])
        return 1 + self._each(_REGISTER_AGAIN, [(f"{number[:-1]}Y", number)])

    def _change_of_mind(self) -> int:
        """Part of a transaction is taken back; the rest is committed."""
        rows = self._correct()
        with self._connection.transaction(force_rollback=True):
            self._insert("weather", [self._replay.weather()])
            self._each(_CANCEL, [(id_,) for id_ in self._old(5)])
        return rows + self._insert("weather", [self._replay.weather()])

    # --- large acts ---------------------------------------------------------------------------------------------

    def _publish(self) -> int:
        return self._add(self._replay.flights(self._random.randint(LARGE, 2 * LARGE)))

    def _postpone(self) -> int:
        return self._connection.execute(_POSTPONE, [self._old(2 * LARGE)]).rowcount

    def _withdraw(self) -> int:
        """Publish a schedule and take all but one flight of it back, in the same transaction."""
        rows = self._publish()
        withdrawn = [self._scheduled.pop().id for _ in range(rows - 1)]
        return rows + self._connection.execute(_WITHDRAW, [withdrawn]).rowcount

    # --- how they touch tables ----------------------------------------------------------------------------------

    def _add(self, flights: Sequence[Row]) -> int:
        """Insert flights as they are known before they are flown, and remember them."""
        planned = [{**flight, **dict.fromkeys(_FLOWN)} for flight in flights]
        with self._connection.cursor() as cursor:
            statement = _insert("flights", planned[0]) + SQL(" RETURNING id")
            cursor.executemany(statement, planned, returning=True)
            for flight in flights:
                (id_,) = cursor.fetchone() or (0,)
                self._scheduled.append(Scheduled(id_, flight))
                cursor.nextset()
        return len(flights)

    def _insert(self, table: str, rows: Sequence[Row]) -> int:
        with self._connection.cursor() as cursor:
            cursor.executemany(_insert(table, rows[0]), rows)
        return len(rows)

    def _each(self, statement: str, arguments: Sequence[Row | tuple[object, ...]]) -> int:
        if not arguments:
            return 0
        with self._connection.cursor() as cursor:
            cursor.executemany(statement.encode(), arguments)
            return max(cursor.rowcount, 0)

    def _take(self, flights: deque[Scheduled], number: int) -> list[Scheduled]:
        return [flights.popleft() for _ in range(min(number, len(flights)))]

    def _old(self, number: int) -> list[int]:
        """Ids of last year's flights that fall to this writer; in order, and none twice."""
        ids = range(self._number or self._writers, self._last_year + 1, self._writers)
        return sorted(self._random.sample(ids, min(number, len(ids))))


def _insert(table: str, row: Row) -> Composed:
    return SQL("INSERT INTO {} ({}) VALUES ({})").format(
        Identifier(table),
        SQL(", ").join(map(Identifier, row)),
        SQL(", ").join(map(Placeholder, row)),
    )
