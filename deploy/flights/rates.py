"""Counts what the two tasks do, over their deaths: a task's own counters begin anew with each process."""

from __future__ import annotations

import time
from typing import Self

from cdc.testing.alongside import Alongside
from deploy.flights.pipeline import Pipeline

_EVERY = 0.2  # seconds
_SETTLE = 1.5
"""Seconds after which the tasks have told what they did before: they tell it twice a second."""


class EventCount:
    """The sum of what a series of processes counted, each from 0: a lower number is another process's."""

    def __init__(self) -> None:
        self.events = 0
        self._last = 0

    def saw(self, events: int) -> None:
        """The counter now."""
        self.events += events - (self._last if events >= self._last else 0)
        self._last = events


class Rates(Alongside):
    """Watches the pipeline's status from ``with`` to its end."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(self._watch)
        self.counts = {"source": EventCount(), "sink": EventCount()}
        self._pipeline = pipeline
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        time.sleep(_SETTLE)
        self._look(first=True)
        self._began = time.monotonic()
        return super().__enter__()

    def per_second(self, role: str) -> float:
        """Events a second since the beginning."""
        return self.counts[role].events / max(0.001, time.monotonic() - self._began)

    def _watch(self) -> None:
        while not self.stopping.wait(_EVERY):
            self._look(first=False)

    def _look(self, *, first: bool) -> None:
        for role, count in self.counts.items():
            count.saw(int(self._pipeline.task(role).get("events", 0)))
            if first:
                count.events = 0
