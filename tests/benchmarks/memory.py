"""``memory``: what each process holds at most while one transaction of many rows, and a copy of them, pass through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cdc.local.cluster import Cluster
from tests.benchmarks import workload
from tests.benchmarks.apply import check_equal
from tests.benchmarks.stage import SERVER_SETTINGS, Stage
from tests.benchmarks.usage import children, peak_rss_mb


def run(cluster: Cluster, folder: Path, events: int) -> dict[str, Any]:
    """First one transaction of ``events`` inserts, then a backfill of the same rows, each to a replica of its own."""
    transaction = _peaks(cluster, folder.with_suffix(".transaction"), events, copied=False)
    backfill = _peaks(cluster, folder.with_suffix(".backfill"), events, copied=True)
    peaks = {
        name: max(transaction.get(name, 0.0), backfill.get(name, 0.0))
        for name in transaction | backfill
    }
    return {
        "benchmark": "memory",
        "events": events,
        "peak_rss_mb": peaks,
        "one_transaction": transaction,
        "backfill": backfill,
        "settings": {"memory.mb": 64, **SERVER_SETTINGS},
    }


def summary(found: dict[str, Any]) -> str:
    """One line for people."""
    return "; ".join(
        f"{what} of {found['events']:,} rows: "
        + ", ".join(f"{name} {peak:.0f} MB" for name, peak in found[key].items())
        for what, key in (("one transaction", "one_transaction"), ("backfill", "backfill"))
    )


def _peaks(cluster: Cluster, folder: Path, events: int, *, copied: bool) -> dict[str, float]:
    mode = "initial" if copied else "no_data"
    stage = Stage(cluster, folder, source={"snapshot.mode": mode})
    try:
        workload.create_table(stage.replica_dsn)
        if copied:
            workload.plain(stage.source_dsn, events)
        stage.pipeline.start()
        capture, sink = stage.running("source"), stage.running("sink")
        stage.wait("the stream begins", lambda: stage.walsender() is not None)
        if not copied:
            workload.plain(stage.source_dsn, events, size=events)
        stage.wait("the topic holds all", lambda: stage.topic_end.records() >= events)
        end = stage.pipeline.fence()
        stage.wait("the replica holds all", lambda: stage.applied(end))
        check_equal(stage)
        peaks = {"capture": peak_rss_mb(capture), "sink": peak_rss_mb(sink)}
        readers = [peak_rss_mb(pid) for pid in children(capture)]
        return peaks | ({"reader": max(readers)} if readers else {})
    finally:
        stage.close()
