"""``latency``: from the return of COMMIT until the change can be read on its topic, or seen in the replica.

One-row commits at a fixed rate (`open_loop`). On the topic a consumer in this process notes when each record came; in
the replica a query asks a thousand times a second how far the rows of each writer are visible. Records and rows are
matched to commits by id; each one counts. Clocks are those of one machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import Consumer, TopicPartition

from cdc.avro_binary import long_at
from cdc.local.cluster import Cluster
from tests.benchmarks.open_loop import CLIENTS, SPAN, write, written
from tests.benchmarks.stage import SERVER_SETTINGS, Stage
from tests.benchmarks.usage import CpuMeter, peak_rss_mb

_WARM_UP = 3.0
_FRAME = 5
_PATIENCE = 30.0
_POLL = 0.001

_VISIBLE = f"""
SELECT (SELECT max(id) FROM bench_orders
        WHERE id > %s + client * {SPAN} AND id <= %s + (client + 1) * {SPAN})
FROM generate_series(0, {CLIENTS - 1}) AS client ORDER BY client
"""

Seen = dict[int, int]


def run(cluster: Cluster, folder: Path, seconds: float) -> dict[str, Any]:
    """Commit to topic at 1,000 and 3,000 commits a second, then commit to replica at 1,000; ``seconds`` each."""
    stage = Stage(cluster, folder, source={"snapshot.mode": "no_data"})
    try:
        capture = stage.start("source")
        first = 0
        legs = []
        for rate in (1_000, 3_000):
            meter = CpuMeter(capture)
            with _topic_watch(stage) as watch:
                leg = _leg(stage, watch, "topic", rate, seconds, first)
            first += CLIENTS * SPAN
            legs.append({**leg, "cpu_s": {"capture": meter.seconds()}})
        capture_rss = peak_rss_mb(capture)
        assert stage.pipeline.stop() == 0
        stage.pipeline.start()
        sink, capture = stage.running("sink"), stage.running("source")
        end = stage.pipeline.fence()
        stage.wait("the replica is level", lambda: stage.applied(end))
        meters = {"capture": CpuMeter(capture), "sink": CpuMeter(sink)}
        with _replica_watch(stage, first) as watch:
            leg = _leg(stage, watch, "replica", 1_000, seconds, first)
        legs.append({**leg, "cpu_s": {name: meter.seconds() for name, meter in meters.items()}})
        peaks = {"capture": capture_rss, "sink": peak_rss_mb(sink)}
    finally:
        stage.close()
    return {
        "benchmark": "latency",
        **legs[0],
        "legs": legs,
        "peak_rss_mb": peaks,
        "settings": {"writers": CLIENTS, **SERVER_SETTINGS},
    }


def summary(found: dict[str, Any]) -> str:
    """One line for people."""
    return "latency: " + "; ".join(
        f"commit to {leg['to']} at {leg['rate_per_s']:,}/s: p50 {leg['p50_ms']} ms, p99 {leg['p99_ms']} ms, "
        f"p99.9 {leg['p999_ms']} ms"
        for leg in found["legs"]
    )


class _Watch:
    """Notes when each id was first seen, until ``count`` of them were."""

    def look(self, seen: Seen) -> None:
        raise NotImplementedError


class _TopicWatch(_Watch):
    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def look(self, seen: Seen) -> None:
        message = self._consumer.poll(0.1)
        if message is None or message.error() is not None:
            return
        now = time.time_ns()
        key = message.key()
        assert key is not None
        seen.setdefault(long_at(key, _FRAME)[0], now)


class _ReplicaWatch(_Watch):
    """One writer's rows become visible in the order of their ids: its highest one tells of all."""

    def __init__(self, connection: psycopg.Connection[tuple[int | None]], first: int) -> None:
        self._cursor = connection.cursor()
        self._first = first
        self._seen = [first + client * SPAN for client in range(CLIENTS)]

    def look(self, seen: Seen) -> None:
        self._cursor.execute(_VISIBLE, (self._first, self._first))
        now = time.time_ns()
        for client, (highest,) in enumerate(self._cursor):
            if highest is not None:
                for id_ in range(self._seen[client] + 1, highest + 1):
                    seen[id_] = now
                self._seen[client] = highest
        time.sleep(_POLL)


@contextmanager
def _topic_watch(stage: Stage) -> Iterator[_Watch]:
    consumer = Consumer({"bootstrap.servers": stage.bootstrap, "group.id": "bench", "log_level": 2})
    try:
        stage.wait("the topic is there", lambda: _touch(stage))
        found = consumer.list_topics(stage.topic, 10).topics[stage.topic].partitions
        ends = [TopicPartition(stage.topic, number) for number in found]
        for end in ends:
            end.offset = consumer.get_watermark_offsets(end, 10)[1]
        consumer.assign(ends)
        yield _TopicWatch(consumer)
    finally:
        consumer.close()


def _touch(stage: Stage) -> bool:
    """The topic is made for its first record."""
    stage.on_source(
        "INSERT INTO bench_orders SELECT (bench_order(0)).* ON CONFLICT DO NOTHING RETURNING id"
    )
    return stage.topic_end.records() > 0


@contextmanager
def _replica_watch(stage: Stage, first: int) -> Iterator[_Watch]:
    with psycopg.connect(stage.replica_dsn, autocommit=True, prepare_threshold=0) as connection:
        yield _ReplicaWatch(connection, first)


def _leg(
    stage: Stage, watch: _Watch, to: str, rate: int, seconds: float, first: int
) -> dict[str, Any]:
    seen: Seen = {}
    count = written(rate, seconds + _WARM_UP)
    folder = stage.pipeline.folder / f"{to}-{rate}"
    result = write(stage.source_dsn, folder, rate, seconds + _WARM_UP, first)
    deadline = time.monotonic() + _WARM_UP + seconds + _PATIENCE
    while len(seen) < count and time.monotonic() < deadline:
        watch.look(seen)
    commits = result()
    missing = commits.commit_ns.keys() - seen.keys()
    assert len(commits.commit_ns) == count
    assert not missing, f"{len(missing)} of {count} rows never came: {sorted(missing)[:3]}"
    measured = list(commits.commit_ns)[int(rate * _WARM_UP) :]
    return {
        "to": to,
        "events": len(measured),
        "rate_per_s": rate,
        **_percentiles(commits.commit_ns, seen, measured),
        "writer_behind_ms": round(commits.behind_ns / 1e6, 1),
    }


def _percentiles(commits: Mapping[int, int], seen: Seen, ids: Sequence[int]) -> dict[str, float]:
    taken = sorted(seen[id_] - commits[id_] for id_ in ids)
    return {
        name: round(taken[min(len(taken) - 1, int(len(taken) * share))] / 1e6, 2)
        for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999), ("max_ms", 1.0))
    }
