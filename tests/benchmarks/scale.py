"""``scale``: what an event costs capture, against the number of tables, partitions, transaction size and row width.

A backlog of inserts is drained for each point, everything warmed up before: schemas registered, topics made, a row of
each table sent. The cost is capture's CPU time from the beginning of the stream until the slot may forget the backlog.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from cdc.local.cluster import Cluster
from tests.benchmarks.stage import SERVER_SETTINGS, Stage
from tests.benchmarks.usage import CpuMeter, peak_rss_mb

_TABLES = """
DO $$ BEGIN
    FOR n IN 0..{tables} - 1 LOOP
        EXECUTE format('CREATE TABLE scale_%s (LIKE bench_orders INCLUDING ALL)', n);
    END LOOP;
END $$
"""

_TRAFFIC = """
CREATE PROCEDURE scale_traffic(first bigint, transactions bigint, size bigint, tables bigint, width integer)
LANGUAGE plpgsql AS $$
DECLARE
    spread bigint := least(tables, size, 10);
    top bigint := first;
BEGIN
    FOR t IN 1..transactions LOOP
        FOR s IN 0..spread - 1 LOOP
            EXECUTE format('INSERT INTO scale_%s SELECT (r).id, (r).customer_id, (r).status || $3, (r).amount, (r).note,'
                ' (r).created_at, (r).updated_at, (r).active, (r).score, (r).payload'
                ' FROM (SELECT bench_order(n) AS r FROM generate_series($1, $2) n) rows', (t * spread + s) % tables)
                USING top, top + size / spread - 1, repeat('x', width);
            top := top + size / spread;
        END LOOP;
        COMMIT;
    END LOOP;
END $$
"""


@dataclass(frozen=True, slots=True)
class Point:
    """``width`` is what a row has beyond its 200 bytes; ``size`` the rows of a transaction."""

    tables: int = 1
    partitions: int = 4
    size: int = 100
    width: int = 0
    events: int = 100_000


_BASE = Point()
_POINTS = (
    _BASE,
    Point(tables=100, partitions=1),
    Point(tables=1_000, partitions=1),
    Point(partitions=1),
    Point(partitions=50),
    Point(size=1, events=20_000),
    Point(size=10_000),
    Point(size=100_000),
    Point(width=2_000, events=50_000),
    Point(width=20_000, events=10_000),
)


def run(cluster: Cluster, folder: Path) -> dict[str, Any]:
    """Every point."""
    points = [_measured(cluster, folder / str(n), point) for n, point in enumerate(_POINTS)]
    return {"benchmark": "scale", "points": points, "settings": SERVER_SETTINGS}


def summary(found: dict[str, Any]) -> str:
    """A line for each point, for people."""
    return "\n".join(
        "scale: "
        + ", ".join(f"{name} {point[name]:,}" for name in ("tables", "partitions", "size", "width"))
        + f": {point['cpu_us_per_event']} µs of CPU an event, {point['events_per_s']:,}/s,"
        f" peak {point['peak_rss_mb']} MB"
        for point in found["points"]
    )


def _measured(cluster: Cluster, folder: Path, point: Point) -> dict[str, Any]:
    settings = {
        "snapshot.mode": "no_data",
        "table.include.list": r"public\.scale_.*",
        "topic.creation.default.partitions": point.partitions,
    }
    stage = Stage(cluster, folder, source=settings)
    try:
        with psycopg.connect(stage.source_dsn, autocommit=True) as connection:
            connection.execute(sql.SQL(_TABLES).format(tables=point.tables))
            connection.execute(_TRAFFIC)
        stage.start("source")
        stage.wait("the slot is used", lambda: stage.walsender() is not None)
        # A row of each table: what is made at the first of its rows is not part of an event's cost.
        _traffic(stage, 1, Point(tables=point.tables, events=point.tables, size=1))
        warm = stage.pipeline.fence()
        stage.wait("the warm-up is stored", lambda: stage.confirmed() >= warm)
        assert stage.pipeline.stop() == 0
        _traffic(stage, 1_000_000, point)
        end = stage.pipeline.fence()
        capture = stage.start("source")
        stage.wait("the stream begins", lambda: stage.walsender() is not None)
        meter, began = CpuMeter(capture), time.monotonic()
        stage.wait("the slot may forget", lambda: stage.confirmed() >= end)
        seconds, cpu = time.monotonic() - began, meter.seconds()
        rss = peak_rss_mb(capture)
        assert stage.pipeline.stop() == 0
    finally:
        stage.close()
    return {
        **asdict(point),
        "cpu_us_per_event": round(cpu / point.events * 1e6, 1),
        "events_per_s": round(point.events / seconds),
        "peak_rss_mb": rss,
    }


def _traffic(stage: Stage, first: int, point: Point) -> None:
    with psycopg.connect(stage.source_dsn, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")  # making the backlog is not measured
        connection.execute(
            "CALL scale_traffic(%s, %s, %s, %s, %s)",
            (first, point.events // point.size, point.size, point.tables, point.width),
        )
