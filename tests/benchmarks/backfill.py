"""``backfill``: the rows of a table that is there already become records on the topics.

From the beginning of the stream until the topic holds every row; a copy is over once its last fence was met, which is
``done_s``. The limit is the same table through one COPY, thrown away.
"""

from __future__ import annotations

import time
from pathlib import Path

import psycopg
from psycopg import pq

from cdc.local.cluster import Cluster
from tests.benchmarks import workload
from tests.benchmarks.result import Throughput
from tests.benchmarks.stage import SERVER_SETTINGS, Stage
from tests.benchmarks.usage import CpuMeter, children, peak_rss_mb

_COPY = b"COPY (SELECT * FROM bench_orders) TO STDOUT (FORMAT binary)"


def run(cluster: Cluster, folder: Path, events: int, readers: int = 1) -> Throughput:
    """One run over ``events`` rows."""
    stage = Stage(cluster, folder, source={"snapshot.max.threads": readers})
    try:
        rows = workload.plain(stage.source_dsn, events).events
        stage.on_source("SELECT count(*) FROM bench_orders")  # both find it in memory
        copy_s = _copy_seconds(stage.source_dsn)
        capture = stage.start("source")
        stage.wait("the stream begins", lambda: stage.walsender() is not None)
        walsender = stage.walsender()
        assert walsender is not None
        began = stage.streaming_since(walsender)
        stage.wait("the topic holds all", lambda: stage.topic_end.records() >= rows)
        seconds = time.time() - began
        stage.wait("the copy is done", lambda: "done" in stage.pipeline.log.read_text())
        done_s = time.time() - began
        readers_now = children(capture)
        cpu = {
            "capture": CpuMeter.from_zero(capture).seconds(),
            "readers": CpuMeter.from_zero(*readers_now).seconds(),
            "walsender": CpuMeter.from_zero(walsender).seconds(),
        }
        rss = {
            "capture": peak_rss_mb(capture),
            "reader": max(map(peak_rss_mb, readers_now), default=0.0),
        }
    finally:
        stage.close()
    return Throughput(
        "backfill",
        rows,
        seconds,
        "COPY to stdout, binary, thrown away",
        rows / copy_s,
        cpu,
        rss,
        {"readers": readers, **SERVER_SETTINGS},
        {"done_s": round(done_s, 3)},
    )


def _copy_seconds(dsn: str) -> float:
    with psycopg.connect(dsn, autocommit=True) as connection:
        pgconn = connection.pgconn
        get = pgconn.get_copy_data
        began = time.perf_counter()
        pgconn.send_query(_COPY)
        result = pgconn.get_result()
        assert result is not None
        assert result.status == pq.ExecStatus.COPY_OUT
        while get(0)[0] > 0:
            pass
        seconds = time.perf_counter() - began
        while pgconn.get_result() is not None:
            pass
    return seconds
