"""Live traffic against the source: many writers at once, at a steady pace, counted."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self

import psycopg

from cdc.errors import Failed
from cdc.testing.alongside import Alongside
from deploy.flights.replay import Replay
from deploy.flights.writer import LARGE, Outcome, Writer

_LARGE_SECONDS = 4.0  # between two large transactions, of all writers together


@dataclass(slots=True)
class Totals:
    """What the source has taken. ``rows`` are those of committed transactions."""

    committed: int = 0
    rolled_back: int = 0
    large: int = 0
    rows: int = 0
    seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, outcome: Outcome, rows: int) -> None:
        """Count one transaction."""
        with self._lock:
            if outcome == "rolled back":
                self.rolled_back += 1
            elif rows:
                self.committed += 1
                self.rows += rows
                self.large += rows >= LARGE


class Traffic(Alongside):
    """Runs from ``with`` to its end; ``writers`` sessions do ``rate`` transactions a second together."""

    def __init__(
        self, dsn: str, replay: Replay, *, writers: int, rate: float, last_year: int
    ) -> None:
        super().__init__(*(partial(self._write, number) for number in range(writers)))
        self.totals = Totals()
        self.writers = writers
        self._dsn = dsn
        self._replay = replay
        self._pause = writers / rate
        self._last_year = last_year
        self._began = 0.0

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        self.totals.seconds = self.seconds

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def check(self) -> None:
        """Raise Failed if a writer failed."""
        for error in self.errors:
            raise Failed(f"a writer failed: {error}", "look at the source's log") from error

    def _write(self, number: int) -> None:
        with psycopg.connect(self._dsn, application_name=f"writer {number}") as connection:
            writer = Writer(
                connection,
                self._replay,
                number=number,
                writers=self.writers,
                last_year=self._last_year,
            )
            self._keep_pace(writer, number)

    def _keep_pace(self, writer: Writer, number: int) -> None:
        due = time.monotonic()
        large_due = due + _LARGE_SECONDS * (number + 1)
        while not self.stopping.is_set():
            if time.monotonic() >= large_due:
                self.totals.add(*writer.act(large=True))
                large_due += _LARGE_SECONDS * self.writers
            else:
                self.totals.add(*writer.act())
            due = max(due + self._pause, time.monotonic() - self._pause)
            self.stopping.wait(max(0.0, due - time.monotonic()))
