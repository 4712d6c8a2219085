"""The servers of a benchmark, and for each run databases, topics and connectors that nothing else uses."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import Consumer, KafkaException, TopicPartition
from psycopg.conninfo import make_conninfo

from cdc.local.cluster import Cluster
from tests.benchmarks import workload
from tests.scenario.pipeline import Pipeline, wait_for

_numbers = itertools.count(1)
_LOOK = 0.01

SERVER_SETTINGS = {"max_wal_size": "8GB"}
"""Beyond the defaults: no checkpoint of the server's falls into a run."""


@contextmanager
def servers() -> Iterator[Cluster]:
    """Two PostgreSQL servers, one broker and a registry, which end with this process."""
    with (
        tempfile.TemporaryDirectory(prefix="cdc-bench-", ignore_cleanup_errors=True) as path,
        Cluster.up(
            Path(path) / "cluster",
            settings={"source": SERVER_SETTINGS, "replica": SERVER_SETTINGS},
        ) as cluster,
    ):
        yield cluster


class Stage:
    """One run's pipeline over an empty ``bench_orders`` on each side, not started."""

    def __init__(
        self,
        cluster: Cluster,
        folder: Path,
        *,
        source: dict[str, Any] | None = None,
        sink: dict[str, Any] | None = None,
    ) -> None:
        self.prefix = f"bench{next(_numbers)}"
        self.source_dsn = _database(cluster.source.dsn, self.prefix)
        self.replica_dsn = _database(cluster.replica.dsn, self.prefix)
        workload.create(self.source_dsn)
        # Kept open: what waits for something asks often, and a new session each time would cost more than the answer.
        self._source = psycopg.connect(self.source_dsn, autocommit=True, prepare_threshold=0)
        self._replica = psycopg.connect(self.replica_dsn, autocommit=True, prepare_threshold=0)
        self.bootstrap = cluster.bootstrap_servers
        folder.mkdir()
        self.pipeline = Pipeline(
            folder,
            source_dsn=self.source_dsn,
            replica_dsn=self.replica_dsn,
            kafka=cluster.bootstrap_servers,
            registry_url=cluster.schema_registry_url,
            prefix=self.prefix,
            source={"table.include.list": workload.TABLE, **(source or {})},
            sink=sink,
        )
        self.topic = f"{self.prefix}.{workload.TABLE}"
        self.topic_end = TopicEnd(self.bootstrap, self.topic)

    def start(self, role: str) -> int:
        """Start one connector; the pid of its task, which runs."""
        files = {"source": self.pipeline.source_file, "sink": self.pipeline.sink_file}
        self.pipeline.start(files=[files[role]])
        return self.running(role)

    def running(self, role: str) -> int:
        """The pid of the task, once it runs."""
        self.wait(
            f"the {role} runs", lambda: self.pipeline.task(role).get("state") == "running", 60.0
        )
        return int(self.pipeline.task(role)["pid"])

    def wait(self, what: str, condition: Callable[[], bool], seconds: float = 300.0) -> None:
        """Wait for the condition, looking every 10 ms; fail at once when the connectors have ended."""
        deadline = time.monotonic() + seconds
        while not condition():
            alive = self.pipeline.alive()
            assert alive, f"cdc run has ended: {self.pipeline.log.read_text()[-2000:]}"
            assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain: {what}"
            time.sleep(_LOOK)

    def on_source(self, query: str, *arguments: object) -> Any:
        """The one value that a query at the source gives; None when it gives no row."""
        return _value(self._source, query, *arguments)

    def on_replica(self, query: str, *arguments: object) -> Any:
        """The one value that a query at the replica gives; None when it gives no row."""
        return _value(self._replica, query, *arguments)

    def make_slot(self) -> None:
        """Let the source connector make its slot over the empty table, and stop it again."""
        self.start("source")
        wait_for("the slot is used", lambda: self.walsender() is not None)
        code = self.pipeline.stop()
        assert code == 0, self.pipeline.log.read_text()[-2000:]

    def walsender(self) -> int | None:
        """The pid of the server's process that serves our slot."""
        pid: int | None = self.on_source(
            "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", self.prefix
        )
        return pid

    def streaming_since(self, walsender: int) -> float:
        """When the stream began, seconds since 1970."""
        return float(
            self.on_source(
                "SELECT extract(epoch FROM backend_start) FROM pg_stat_activity WHERE pid = %s",
                walsender,
            )
        )

    def confirmed(self) -> int:
        """Up to where the source may forget its log."""
        lsn = self.on_source(
            "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots"
            " WHERE slot_name = %s",
            self.prefix,
        )
        return int(lsn)

    def applied(self, lsn: int) -> bool:
        """Whether the replica's checkpoint covers the log below this position."""
        if self.on_replica("SELECT to_regclass('cdc.checkpoints') IS NULL"):
            return False
        return bool(
            self.on_replica(
                "SELECT commit_lsn >= %s FROM cdc.checkpoints WHERE source = %s",
                lsn - 1,
                self.prefix,
            )
        )

    def close(self) -> None:
        """End the connectors and drop what fills the disk."""
        self.pipeline.kill()
        self.topic_end.close()
        self._source.close()
        self._replica.close()


class TopicEnd:
    """How many records a topic's partitions hold, asked of the broker."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self._partitions: list[TopicPartition] = []
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "bench", "log_level": 2}
        )

    def records(self) -> int:
        """Acknowledged by acks=all: the high watermarks' sum; 0 while the topic is not there, or still moves in."""
        try:
            if not self._partitions:
                found = self._consumer.list_topics(self._topic, 10).topics[self._topic]
                self._partitions = [TopicPartition(self._topic, n) for n in found.partitions]
            return sum(
                self._consumer.get_watermark_offsets(partition, 10)[1]
                for partition in self._partitions
            )
        except KafkaException:
            return 0

    def close(self) -> None:
        """End the client."""
        self._consumer.close()


def _database(dsn: str, name: str) -> str:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return make_conninfo(dsn, dbname=name)


def _value(connection: psycopg.Connection[Any], query: str, *arguments: object) -> Any:
    row = connection.execute(query, arguments or None).fetchone()
    return None if row is None else row[0]
