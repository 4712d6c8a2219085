"""``verify``: verified rows a second of ``cdc verify run``, over rows that are on both sides, under light traffic.

The limit is the digest that it computes, of the whole table in one query, on both servers at once and under the same
traffic, each row counted once. Beside it stands ``count(*)``, which reads the rows and computes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from cdc.local.cluster import Cluster
from cdc.runtime.config_files import load
from cdc.runtime.sides import open_sides
from cdc.runtime.verification import run_verification
from cdc.table import KeyRange
from cdc.testing.alongside import Alongside
from connectors.postgres.range_reader import PostgresRangeReader
from tests.benchmarks import workload
from tests.benchmarks.apply import copy_rows
from tests.benchmarks.result import Throughput
from tests.benchmarks.stage import SERVER_SETTINGS, Stage
from tests.benchmarks.usage import CpuMeter, peak_rss_mb

_PAUSE = 0.01  # between two commits of the traffic


def run(cluster: Cluster, folder: Path, events: int) -> Throughput:
    """One run over ``events`` rows; a limit before it and one behind it, of which the better counts."""
    stage = Stage(cluster, folder, source={"snapshot.mode": "no_data"})
    try:
        workload.plain(stage.source_dsn, events)
        copy_rows(stage.source_dsn, stage.replica_dsn)
        for dsn in (stage.source_dsn, stage.replica_dsn):
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("VACUUM ANALYZE bench_orders")
        stage.pipeline.start()
        processes = {"capture": stage.running("source"), "sink": stage.running("sink")}
        stage.wait("the stream begins", lambda: stage.walsender() is not None)
        files = load(stage.pipeline.source_file), load(stage.pipeline.sink_file)
        with _Traffic(stage.source_dsn, events):
            before = _on_both(stage, _digest_of(files))
            meter = CpuMeter(*processes.values())
            began = time.perf_counter()
            report = run_verification(*files, lambda _: None)
            seconds = time.perf_counter() - began
            used = meter.seconds()
            after = _on_both(stage, _digest_of(files))
            counting = _on_both(stage, _count)
        assert report.verdict == "OK", report
        rows = report.rows_compared
    finally:
        stage.close()
    return Throughput(
        "verify",
        rows,
        seconds,
        "the same digest in one query, on both servers at once",
        events / min(before, after),
        {"capture and sink": used},
        {name: peak_rss_mb(pid) for name, pid in processes.items()},
        SERVER_SETTINGS,
        {"count_per_s": round(events / counting)},
    )


class _Traffic(Alongside):
    """One-row commits, some two hundred a second: new rows, and updates of old ones all over the table."""

    def __init__(self, dsn: str, rows: int) -> None:
        super().__init__(self._write)
        self._dsn = dsn
        self._rows = rows

    def _write(self) -> None:
        number = 0
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not self.stopping.wait(_PAUSE):
                number += 1
                connection.execute(
                    "INSERT INTO bench_orders SELECT (bench_order(%s)).*", (self._rows + number,)
                )
                connection.execute(
                    "UPDATE bench_orders SET status = 'seen' WHERE id = %s",
                    (number * 7919 % self._rows + 1,),
                )


def _on_both(stage: Stage, query: Callable[[str], None]) -> float:
    """Seconds until both servers have answered."""
    began = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(query, dsn) for dsn in (stage.source_dsn, stage.replica_dsn)]
        for answer in asked:
            answer.result()
    return time.perf_counter() - began


def _digest_of(files: tuple[Any, Any]) -> Callable[[str], None]:
    source, _ = open_sides(*files)
    with closing(source):
        (table,) = source.tables()

    def digest(dsn: str) -> None:
        with psycopg.connect(dsn) as connection:
            reader = PostgresRangeReader(connection, table, table.id)
            (whole,) = reader.digest_at(KeyRange(None, None), [None])
            assert whole.row_count

    return digest


def _count(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("SELECT count(*) FROM bench_orders").fetchone()
