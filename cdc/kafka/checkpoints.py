"""Source checkpoints in a compacted topic: key is the connector's name, value the checkpoint as JSON.

A zombie capture must not write last. So the writer is transactional, under an id that belongs to the connector: a
claim fences whoever wrote under it before, and aborts what that one left open. After any outcome that is not certain
the producer is thrown away, because the client cannot tell a late commit from the next one's (librdkafka issue 5423);
the next claim says what stands.

Transactions are used for their fencing alone. A claim reads records of aborted transactions too (why: `read_table`),
which is harmless: a save is one record, it tells what was acknowledged before it was begun, so it is true whether its
commit came through or not, and its caller was told that the outcome is unknown.

A save that stands in one transaction with the records that it speaks of (`cdc.kafka.transactional_writer`) is true only
if that was committed: it is marked *atomic*. Where a claim meets such a one last, it reads what is committed. Before it
reads, whoever may write records of this connector in transactions is fenced, so nothing of this connector is open.

All connectors share partition 0: a topic that gains partitions moves no key.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from cdc.checkpoint import SourceCheckpoint
from cdc.errors import CdcError, Failed, Fenced, Unreachable
from cdc.kafka.client import ClientWatch, Cluster
from cdc.kafka.compacted import read_table
from cdc.kafka.errors import reason, translate
from cdc.kafka.topics import NewTopicSpec, Topics
from cdc.position import TopicPartition

TOPIC = "cdc.offsets"

_TRANSACTION_MS = 20_000  # how long a dead writer's open transaction holds up compaction
_SAVING = 10.0  # seconds until a save is given up; below the above, so that a timeout never looks like a fence
_CLAIMING = 30.0
_SLICE = 0.5


class KafkaCheckpointTopic:
    """`cdc.protocols.CheckpointTopic`. Makes the topic if it is not there. Not thread-safe.

    ``keep_alive`` is called at least every half second while a call waits, in the caller's thread. ``fence_writer``
    fences the earlier writers of records; without it the one that an atomic checkpoint speaks of is fenced here.
    """

    atomic = False

    def __init__(
        self,
        cluster: Cluster,
        topic: str = TOPIC,
        *,
        keep_alive: Callable[[], None] | None = None,
        saving_seconds: float = _SAVING,
        fence_writer: Callable[[], None] | None = None,
    ) -> None:
        self._cluster = cluster
        self._fence_writer = fence_writer
        self.partition = TopicPartition(topic, 0)
        self._keep_alive = keep_alive or _nothing
        self._saving = min(saving_seconds, _SAVING)
        self._topics: Topics | None = None
        self._writers: dict[str, _Writer] = {}

    def claim(self, connector: str, held: str = "") -> SourceCheckpoint | None:
        """Fence every earlier writer of this connector for good, then return what it wrote last.

        Fenced when ``held`` is given and another owner's mark stands there: looked at before anybody is fenced.
        """
        self._drop(connector)
        if self._topics is None:
            topics = Topics(self._cluster, self._keep_alive)
            topics.create([NewTopicSpec(self.partition.topic, "compacted")])
            self._topics = topics
        if held:
            self._still_held(connector, self._read(connector), held)
        writer = _Writer(self._cluster, self.partition, connector, self._keep_alive)
        try:
            writer.fence(_CLAIMING)
            if self._fence_writer is not None:
                self._fence_writer()
            checkpoint = self._read(connector)
            if held:
                self._still_held(connector, checkpoint, held)
        except BaseException:
            writer.discard()
            raise
        self._writers[connector] = writer
        return checkpoint

    def save(self, connector: str, checkpoint: SourceCheckpoint | None) -> None:
        """Durable on return (None forgets). Fenced when a newer owner has claimed; Unreachable when unknown.

        After either the connector has to be claimed again.
        """
        writer = self._writers.get(connector)
        if writer is None:
            raise Unreachable(f"the checkpoint of {connector} is not claimed", "claim it (again)")
        value = None if checkpoint is None else json.dumps(checkpoint.to_json()).encode()
        try:
            writer.write(connector.encode(), value, self._saving)
        except BaseException:
            self._drop(connector)
            raise

    def close(self) -> None:
        """Safe to repeat."""
        for connector in list(self._writers):
            self._drop(connector)

    def _read(self, connector: str) -> SourceCheckpoint | None:
        assert self._topics is not None
        value = _value(self._cluster, self._topics, self.partition, connector, self._keep_alive)
        if value is not None and _is_atomic(value) and self._fence_writer is None:
            # It wrote in transactions before, and does not any more: end what it left open, and whoever still does.
            name = data_transactional_id(connector)
            ended = _Writer(self._cluster, self.partition, connector, self._keep_alive, name)
            ended.fence(_CLAIMING)
            ended.discard()
            value = _value(self._cluster, self._topics, self.partition, connector, self._keep_alive)
        return None if value is None else _decoded(connector, value)

    def _still_held(self, connector: str, checkpoint: SourceCheckpoint | None, held: str) -> None:
        if checkpoint is not None and checkpoint.owner != held:
            raise Fenced(
                f"another process has claimed the checkpoint of {connector}",
                "only one process may run this connector: this one stops",
            )

    def _drop(self, connector: str) -> None:
        writer = self._writers.pop(connector, None)
        if writer is not None:
            writer.discard()


def read_checkpoint(cluster: Cluster, topic: str, connector: str) -> SourceCheckpoint | None:
    """What stands for this connector, without claiming it: its owner may write a newer one at any time."""
    topics = Topics(cluster)
    if topic not in topics.describe([topic]):
        return None
    value = _value(cluster, topics, TopicPartition(topic, 0), connector, _nothing)
    return None if value is None else _decoded(connector, value)


def data_transactional_id(connector: str) -> str:
    """Under which a connector writes records in transactions."""
    return f"cdc-data-{connector}"


def _value(
    cluster: Cluster,
    topics: Topics,
    partition: TopicPartition,
    connector: str,
    keep_alive: Callable[[], None],
) -> bytes | None:
    """What counts of what was written last for this connector: an atomic save counts if it is committed."""
    key = connector.encode()
    value = read_table(cluster, topics, partition, _CLAIMING, keep_alive).get(key)
    if value is not None and _is_atomic(value):
        committed = read_table(cluster, topics, partition, _CLAIMING, keep_alive, committed=True)
        value = committed.get(key)
    return value


def _is_atomic(value: bytes) -> bool:
    return b'"atomic": true' in value


def _decoded(connector: str, value: bytes) -> SourceCheckpoint:
    try:
        raw: dict[str, Any] = json.loads(value)
        return SourceCheckpoint.from_json(raw)
    except ValueError as error:
        raise Failed(
            f"the checkpoint of {connector} cannot be read: {error}",
            "was it written by a newer version? Run that one, or rewind the checkpoint",
        ) from error


class _Writer:
    """One transactional producer, good until its first failure."""

    def __init__(
        self,
        cluster: Cluster,
        partition: TopicPartition,
        connector: str,
        keep_alive: Callable[[], None],
        transactional_id: str = "",
    ) -> None:
        self._connector = connector
        self._partition = partition
        self._keep_alive = keep_alive
        self._watch = ClientWatch(f"saving the checkpoint of {connector}")
        settings = {
            "transactional.id": transactional_id or f"cdc-offsets-{connector}",
            "transaction.timeout.ms": _TRANSACTION_MS,
            "linger.ms": 0,
            "compression.type": "lz4",
            "message.max.bytes": 8 * 1024 * 1024,
            "allow.auto.create.topics": False,
        }
        try:
            self._producer = Producer(cluster.settings(self._watch, settings))
        except KafkaException as error:
            raise translate(error, "the settings of the checkpoint's producer") from error

    def fence(self, patience: float) -> None:
        """Be the only writer: what an earlier one left open is aborted, and it can commit nothing more."""
        self._patiently(self._producer.init_transactions, "claiming", patience)

    def write(self, key: bytes, value: bytes | None, patience: float) -> None:
        """One record in one transaction, committed on return."""
        lost: list[KafkaError] = []

        def on_delivery(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                lost.append(error)

        topic, partition = self._partition
        try:
            self._producer.begin_transaction()
            self._producer.produce(topic, value, key, partition, on_delivery)
        except KafkaException as error:
            raise self._failure(error, "saving") from error
        try:
            self._patiently(self._producer.commit_transaction, "saving", patience)
        except Unreachable as error:
            if lost:
                raise self._failure(lost[0], "saving") from error
            raise

    def discard(self) -> None:
        """Leave whatever is open to the next claim, which aborts it."""
        with suppress(KafkaException):  # what was fatal to it was told already
            self._producer.purge()
            self._producer.poll(0)

    def _patiently(self, call: Callable[[float], None], doing: str, patience: float) -> None:
        until = time.monotonic() + patience
        while True:
            try:
                call(_SLICE)
            except KafkaException as error:
                self._watch.check()
                if not reason(error).retriable() or time.monotonic() > until:
                    raise self._failure(error, doing) from error
                self._keep_alive()
            else:
                return

    def _failure(self, error: KafkaError | KafkaException, doing: str) -> CdcError:
        failure = translate(error, f"{doing} the checkpoint of {self._connector}")
        if isinstance(failure, Fenced):
            return Fenced(
                failure.what, "another process runs this connector now; this one has to stop"
            )
        return failure


def _nothing() -> None:
    """Nobody to keep alive."""
