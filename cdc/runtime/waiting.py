"""Read your own writes: waits until a replica holds what its source holds, or held at a given position.

    with ReplicaWait(load(source_file), load(sink_file)) as replica:
        replica.until()          # all that is committed at the source now
        replica.until(lsn)       # all that committed at or below this LSN (pg_current_wal_lsn() after a commit)

It emits a fence into the source's log and waits until the replica has passed it, so that an idle source keeps nobody
waiting. Both connectors must be running.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Self

from cdc.avro.decoder import EventDecoder
from cdc.avro.names import topic_characters
from cdc.config import ConnectorConfig
from cdc.errors import ConfigError, Unreachable
from cdc.fence import Fence, Watermark
from cdc.kafka.reader import MEBIBYTE, KafkaTopicReader
from cdc.pipeline.selection import Selection
from cdc.position import Position
from cdc.runtime.clients import kafka_cluster, schema_registry
from cdc.runtime.config_files import load
from cdc.runtime.sides import open_sides
from cdc.table import TableId
from cdc.verify.fences import FenceLog
from cdc.verify.history import holds_all_below
from cdc.verify.inconclusive import Inconclusive

_FIRST_PAUSE = 0.002
_LONGEST_PAUSE = 0.05


class ReplicaWait:
    """Waits for one replica of one source; keeps a connection to each, so that a wait costs the lag and little more.

    Not thread-safe. ConfigError where the two files do not belong together.
    """

    def __init__(self, source: ConnectorConfig, sink: ConnectorConfig) -> None:
        self._source, self._replica = open_sides(source, sink)
        self._sink = sink
        self._prefix: str = source["topic.prefix"]
        self._selection = Selection(self._prefix, sink["topics"], sink["topics.regex"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Safe to repeat."""
        self._source.close()
        self._replica.close()

    def until(self, lsn: int | None = None, timeout: float = 60.0) -> int:
        """Return once the replica holds all that committed at or below ``lsn``; None: all that is committed now.

        The result is an LSN below which the replica holds everything. A replica that applies partitions apart from
        each other holds the same changes then, though never one state of the source. Unreachable when ``timeout``
        seconds were not enough, ConfigError for an LSN that the source has not reached itself.
        """
        began = time.monotonic()

        def left() -> float:
            return max(0.0, timeout - (time.monotonic() - began))

        if self._sink["apply.mode"] == "partition":
            return self._until_consumed(lsn, left)
        if lsn is not None and (held := self._held(lsn)) is not None:
            return held
        fence = self._mark(f"wait-{uuid.uuid4().hex}", None, lsn)
        wanted = fence - 1 if lsn is None else lsn
        pause = _FIRST_PAUSE
        while (held := self._held(wanted)) is None:
            pause = self._pause(pause, left(), fence)
        return held

    def _held(self, lsn: int) -> int | None:
        """Where the replica stands if it holds all that committed at or below the LSN, else None."""
        position = self._replica.state(self._sink.name, self._prefix).checkpoint.position
        if position is None or position <= Position(position.generation, lsn, 0):
            return None
        return position.commit_lsn

    def _until_consumed(self, lsn: int | None, left: Callable[[], float]) -> int:
        """By the end offsets behind a fence of each table: partitions keep no common position."""
        run = f"wait-{uuid.uuid4().hex[:16]}"
        tables = [
            table.id
            for table in self._source.tables()
            if self._selection.topic(topic_characters(str(table.id))) is not None
        ]
        reader = KafkaTopicReader(
            kafka_cluster(self._sink),
            budget_bytes=MEBIBYTE,
            overrides=self._sink["consumer.override.*"],
        )
        decoder = EventDecoder(prefix=self._prefix, registry=schema_registry(self._sink))
        with closing(reader):
            try:
                log = FenceLog(reader, decoder, self._prefix, run, left())
                fences = [self._mark(f"{run}.{table}", table, lsn) for table in tables]
                marks = [log.wait(f"{run}.{table}") for table in tables]
            except Inconclusive as error:
                raise Unreachable(error.reason, "see that the source connector runs") from error
        pause = _FIRST_PAUSE
        while not all(self._consumed(mark) for mark in marks):
            pause = self._pause(pause, left(), min(fences))
        return min(fences, default=0)

    def _consumed(self, mark: Watermark) -> bool:
        checkpoint = self._replica.state(self._sink.name, self._prefix).checkpoint
        topics = {topic for topic, _ in mark.ends if self._selection.collection(topic)}
        return all(holds_all_below(checkpoint, mark, topic) for topic in topics)

    def _mark(self, name: str, table: TableId | None, lsn: int | None) -> int:
        fence = Fence(name, "mark", self._prefix, table, self._source.snapshot())
        at = self._source.mark(fence)
        if lsn is not None and lsn >= at:
            raise ConfigError(
                f"the source has not reached {lsn} itself: its log is at {at}",
                "give an LSN that pg_current_wal_lsn() told on the same server",
            )
        return at

    def _pause(self, pause: float, left: float, fence: int) -> float:
        if not left:
            raise Unreachable(
                f"the replica of {self._sink.name} did not get past {fence} in time",
                "see that both connectors run, and how far the sink is behind (cdc run shows its lag)",
            )
        time.sleep(min(pause, left))
        return min(pause * 1.5, _LONGEST_PAUSE)


def wait_until(
    source: Path | str, sink: Path | str, lsn: int | None = None, timeout: float = 60.0
) -> int:
    """`ReplicaWait.until` once, by the two connectors' files."""
    with ReplicaWait(load(Path(source)), load(Path(sink))) as replica:
        return replica.until(lsn, timeout)


__all__ = ["ReplicaWait", "wait_until"]
