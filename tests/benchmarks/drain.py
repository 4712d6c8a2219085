"""``drain``: a backlog in the slot becomes records on the topics.

From the beginning of the stream until the topics hold every record. A record that the broker shows is acknowledged:
there is one replica, and readers see nothing else. ``checkpoint_s`` is when the slot was told that it may forget it all.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from cdc.local.cluster import Cluster
from tests.benchmarks import workload
from tests.benchmarks.raw_stream import read_raw
from tests.benchmarks.result import Throughput
from tests.benchmarks.stage import SERVER_SETTINGS, Stage
from tests.benchmarks.usage import CpuMeter, peak_rss_mb
from tests.benchmarks.workload import Backlog


def run(cluster: Cluster, folder: Path, events: int, traffic: str = "mix") -> Throughput:
    """One run. The limit is a copy of the slot, read before ours."""
    stage = Stage(cluster, folder, source={"snapshot.mode": "no_data"})
    try:
        stage.make_slot()
        backlog = workload.TRAFFIC[traffic](stage.source_dsn, events)
        end = stage.pipeline.fence()
        copy = f"{stage.prefix}_copy"
        stage.on_source("SELECT pg_copy_logical_replication_slot(%s, %s)", stage.prefix, copy)
        raw = read_raw(stage.source_dsn, copy, stage.prefix, end)
        drained = drain(stage, backlog, end)
    finally:
        stage.close()
    return Throughput(
        "drain",
        backlog.events,
        drained.seconds,
        "the slot read in bursts and thrown away",
        backlog.events / raw.seconds,
        {
            "capture": drained.capture_cpu_s,
            "walsender": drained.walsender_cpu_s,
            "limit_walsender": raw.walsender_cpu_s,
        },
        {"capture": drained.capture_rss_mb},
        {"traffic": traffic, **SERVER_SETTINGS},
        {"transactions": backlog.transactions, "checkpoint_s": round(drained.checkpoint_s, 3)},
    )


@dataclass(frozen=True, slots=True)
class Drained:
    """What a drain took. Seconds are since the beginning of the stream, CPU since the task ran."""

    seconds: float
    checkpoint_s: float
    capture_cpu_s: float
    walsender_cpu_s: float
    capture_rss_mb: float


def drain(stage: Stage, backlog: Backlog, end: int) -> Drained:
    """Start the source and wait until the topics hold the backlog, then until the slot may forget it; stop it."""
    capture = stage.start("source")
    stage.wait("the stream begins", lambda: stage.walsender() is not None)
    walsender = stage.walsender()
    assert walsender is not None
    began = stage.streaming_since(walsender)
    meters = [CpuMeter.from_zero(pid) for pid in (capture, walsender)]
    stage.wait("the topic holds all", lambda: stage.topic_end.records() >= backlog.records)
    seconds = time.time() - began
    used = [meter.seconds() for meter in meters]
    stage.wait("the slot may forget", lambda: stage.confirmed() >= end)
    checkpoint_s = time.time() - began
    rss = peak_rss_mb(capture)
    code = stage.pipeline.stop()
    assert code == 0, stage.pipeline.log.read_text()[-2000:]
    return Drained(seconds, checkpoint_s, used[0], used[1], rss)
