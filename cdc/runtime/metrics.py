"""What `cdc run` tells of its tasks, as one set of metrics: each task's own, and what the supervisor knows of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from cdc.runtime.supervisor import TaskStatus
from cdc.telemetry import Sample

_NUMBERS = (
    ("events", "cdc_events_total", "counter", "Events captured or applied."),
    ("transactions", "cdc_transactions_total", "counter", "Whole source transactions."),
    (
        "lag_seconds",
        "cdc_lag_seconds",
        "gauge",
        "How long the oldest change that is not done yet has waited since its commit.",
    ),
    ("position", "cdc_position_lsn", "gauge", "Where it stands in the source's log, in bytes."),
    ("bytes_held", "cdc_queue_bytes", "gauge", "Events held in memory."),
    ("backfilled", "cdc_source_backfilled_rows_total", "counter", "Rows copied under fences."),
)


def samples(tasks: Iterable[TaskStatus]) -> Iterator[Sample]:
    """All of them, labelled by connector and role. What a process counts begins anew when it is started again."""
    numbers: dict[str, int] = {}
    for status in tasks:
        task = numbers[status.name] = numbers.get(status.name, -1) + 1
        labels = (("connector", status.name), ("role", status.role), ("task", str(task)))
        said = status.to_json()
        running = status.state == "running"
        yield Sample("cdc_task_up", "gauge", "1 while the task runs.", labels, float(running))
        yield Sample(
            "cdc_task_restarts_total",
            "counter",
            "How often its process was started again.",
            labels,
            status.restarts,
        )
        yield Sample(
            "cdc_task_resident_bytes",
            "gauge",
            "Memory of its process.",
            labels,
            (said["rss_mb"] or 0.0) * (1 << 20),
        )
        away = status.state == "unreachable" or bool(said["waiting"])
        since = said["since"] or time.time()
        yield Sample(
            "cdc_outage_seconds",
            "gauge",
            "How long it has been waiting for a server; 0 while it does not.",
            labels,
            max(0.0, time.time() - since) if away else 0.0,
        )
        for key, name, kind, doc in _NUMBERS:
            if (value := status.said.get(key)) is not None:
                yield Sample(name, kind, doc, labels, float(value))
        for name, kind, doc, own, value in status.said.get("metrics", ()):
            yield Sample(name, kind, doc, (*labels, *((n, v) for n, v in own)), float(value))
