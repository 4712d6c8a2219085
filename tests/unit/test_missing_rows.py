from __future__ import annotations

import logging

import pytest

from cdc.pipeline.missing_rows import MissingRows
from cdc.telemetry import METRICS
from cdc.testing.memory_store import MemoryReplica, MemoryStore


def test_counts_go_on_over_claims_and_a_table_is_told_of_once_in_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 1000.0
    rows = MissingRows(lambda: now)
    store = MemoryStore(MemoryReplica())
    metric = METRICS.counter("cdc_sink_missing_rows_total", "", {"table": "s.told"})
    before = metric.value
    for _ in range(2):
        store.claim("sink", "p")
        rows.claimed()
        for count in (1, 3):
            store.missing["s.told"] = count
            rows.look(store)
    assert rows.missing == {"s.told": 6}
    assert metric.value - before == 6
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    now += 60
    rows.look(store)
    rows.look(store)
    assert ["6 updates" in r.getMessage() for r in caplog.records] == [False, True]
