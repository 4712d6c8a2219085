"""``apply``: events that stand on the topics become rows of an empty replica, whole transactions at a time.

From the sink's claim of its checkpoint until the replica's checkpoint covers all of it. The limit is a COPY of the rows
that are left in the end into the same empty table with its primary key.
"""

from __future__ import annotations

import time
from pathlib import Path

import psycopg

from cdc.local.cluster import Cluster
from tests.benchmarks import workload
from tests.benchmarks.drain import drain
from tests.benchmarks.result import Throughput
from tests.benchmarks.stage import SERVER_SETTINGS, Stage
from tests.benchmarks.usage import CpuMeter, peak_rss_mb


def run(cluster: Cluster, folder: Path, events: int, traffic: str = "mix") -> Throughput:
    """One run. The topics are filled by a drain first."""
    stage = Stage(cluster, folder, source={"snapshot.mode": "no_data"})
    try:
        stage.make_slot()
        backlog = workload.TRAFFIC[traffic](stage.source_dsn, events)
        end = stage.pipeline.fence()
        drain(stage, backlog, end)
        copy_per_s = _copy_rate(stage)
        sink = stage.start("sink")
        stage.wait("the replica holds all", lambda: stage.applied(end))
        ended = time.time()
        began = float(
            stage.on_replica("SELECT extract(epoch FROM claimed_at) FROM cdc.checkpoints")
        )
        backend = int(stage.on_replica("SELECT owner_pid FROM cdc.checkpoints"))
        cpu = {
            "sink": CpuMeter.from_zero(sink).seconds(),
            "backend": CpuMeter.from_zero(backend).seconds(),
        }
        rss = {"sink": peak_rss_mb(sink)}
        check_equal(stage)
    finally:
        stage.close()
    return Throughput(
        "apply",
        backlog.events,
        ended - began,
        "COPY into the empty table",
        copy_per_s,
        cpu,
        rss,
        {"traffic": traffic, "apply.mode": "transaction", **SERVER_SETTINGS},
        {"transactions": backlog.transactions},
    )


def _copy_rate(stage: Stage) -> float:
    """Rows a second; the table is empty again on return."""
    rate = copy_rows(stage.source_dsn, stage.replica_dsn)
    workload.create_table(stage.replica_dsn)
    return rate


def copy_rows(source_dsn: str, replica_dsn: str) -> float:
    """Fill a new table of the replica with the source's rows by one COPY; rows a second."""
    workload.create_table(replica_dsn)
    with (
        psycopg.connect(source_dsn, autocommit=True) as source,
        psycopg.connect(replica_dsn, autocommit=True) as replica,
    ):
        with source.cursor().copy("COPY bench_orders TO STDOUT (FORMAT binary)") as out:
            blocks = _blocks(out)
        cursor = replica.cursor()
        began = time.perf_counter()
        with cursor.copy("COPY bench_orders FROM STDIN (FORMAT binary)") as into:
            for block in blocks:
                into.write(block)
        seconds = time.perf_counter() - began
        return cursor.rowcount / seconds


def _blocks(out: psycopg.Copy) -> list[bytes]:
    """The copy in pieces of some 64 KiB, so that the client's calls are not what is measured."""
    blocks: list[bytes] = []
    waiting: list[bytes] = []
    size = 0
    for data in out:
        waiting.append(bytes(data))
        size += len(data)
        if size > 65536:
            blocks.append(b"".join(waiting))
            waiting, size = [], 0
    return [*blocks, b"".join(waiting)]


def check_equal(stage: Stage) -> None:
    """A figure counts only if the replica is right."""
    query = "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM bench_orders t"
    assert stage.on_replica(query) == stage.on_source(query), "the replica differs from the source"
