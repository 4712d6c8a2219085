"""Tells of rows that were not in the replica, or not as the source had them: in the log, the status and the metrics."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from cdc.protocols import PartitionStore, Store
from cdc.telemetry import METRICS

log = logging.getLogger(__name__)

_QUIET_SECONDS = 30.0  # between two lines on one table

_MISSING = ("cdc_sink_missing_rows_total", "Updates and deletes whose row was not in the replica.")
_MISMATCHED = (
    "cdc_sink_mismatched_rows_total",
    "Updates and deletes that met a row other than their whole old image.",
)


class MissingRows:
    """Follows what a store has counted, over several claims; ``missing`` and ``mismatched`` are by table."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.missing: dict[str, int] = {}
        self.mismatched: dict[str, int] = {}
        self._clock = clock
        self._before: dict[tuple[str, str], int] = {}
        self._told: dict[str, tuple[float, int, int]] = {}

    def claimed(self) -> None:
        """The store counts from nothing again."""
        self._before.clear()

    def look(self, store: Store | PartitionStore) -> None:
        """Take over what the store counts by now. Writes at most one line in half a minute on each table."""
        self._follow(_MISSING, store.missing_rows(), self.missing)
        self._follow(_MISMATCHED, store.mismatched_rows(), self.mismatched)
        for table in self.missing.keys() | self.mismatched.keys():
            self._tell(table)

    def _follow(
        self, metric: tuple[str, str], counted: Mapping[str, int], total: dict[str, int]
    ) -> None:
        name, doc = metric
        for table, count in counted.items():
            more = count - self._before.get((name, table), 0)
            if more:
                self._before[name, table] = count
                total[table] = total.get(table, 0) + more
                METRICS.counter(name, doc, {"table": table}).add(more)

    def _tell(self, table: str) -> None:
        missing, mismatched = self.missing.get(table, 0), self.mismatched.get(table, 0)
        now = self._clock()
        since, *counts = self._told.get(table, (-_QUIET_SECONDS, 0, 0))
        if counts == [missing, mismatched] or now - since < _QUIET_SECONDS:
            return
        self._told[table] = (now, missing, mismatched)
        log.warning(
            "%s: %d updates or deletes found no row in the replica, %d another than the source's: somebody else"
            " changed it (cdc verify run --repair finds and mends what differs)",
            table,
            missing,
            mismatched,
        )
