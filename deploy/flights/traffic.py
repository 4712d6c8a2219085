"""Live traffic against the source: many writers at once, at a steady pace, counted."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import psycopg

from cdc.errors import Failed
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


class Traffic:
    """Runs from ``with`` to its end; ``writers`` sessions do ``rate`` transactions a second together."""

    def __init__(
        self, dsn: str, replay: Replay, *, writers: int, rate: float, last_year: int
    ) -> None:
        self.totals = Totals()
        self.writers = writers
        self._dsn = dsn
        self._replay = replay
        self._pause = writers / rate
        self._last_year = last_year
        self._stop = threading.Event()
        self._began = 0.0
        self._trouble: list[Exception] = []
        self._threads = [
            threading.Thread(target=self._write, args=(number,), name=f"writer-{number}")
            for number in range(writers)
        ]

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.totals.seconds = self.seconds
        if error is None:
            self.check()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def check(self) -> None:
        """Raise Failed if a writer failed."""
        if self._trouble:
            raise Failed(
                f"a writer failed: {self._trouble[0]}", "look at the source's log"
            ) from self._trouble[0]

    def _write(self, number: int) -> None:
        try:
            with psycopg.connect(self._dsn, application_name=f"writer {number}") as connection:
                writer = Writer(
                    connection,
                    self._replay,
                    number=number,
                    writers=self.writers,
                    last_year=self._last_year,
                )
                self._keep_pace(writer, number)
        except Exception as error:  # noqa: BLE001 - it ends in this thread: the demonstration tells it
            self._trouble.append(error)

    def _keep_pace(self, writer: Writer, number: int) -> None:
        due = time.monotonic()
        large_due = due + _LARGE_SECONDS * (number + 1)
        while not self._stop.is_set():
            if time.monotonic() >= large_due:
                self.totals.add(*writer.act(large=True))
                large_due += _LARGE_SECONDS * self.writers
            else:
                self.totals.add(*writer.act())
            due = max(due + self._pause, time.monotonic() - self._pause)
            self._stop.wait(max(0.0, due - time.monotonic()))
