"""Reads partitions that the caller chooses, from offsets that the caller keeps: no group, no commits.

Every start of a partition is an assignment at a known offset, also a resumption and a move: a paused partition is
given back, and taken again at the record after the last one delivered. What was prefetched meanwhile is dropped by the
client and fetched again, so nothing is lost or repeated, and a paused partition holds no memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from cdc.errors import CdcError
from cdc.event import Record
from cdc.kafka import codes
from cdc.kafka.client import ClientWatch, Cluster, override_checked
from cdc.kafka.errors import reason, translate
from cdc.kafka.topics import Topics
from cdc.position import TopicPartition
from cdc.protocols import TopicInfo

MEBIBYTE = 1024 * 1024

FIXED: Mapping[str, Any] = {
    "auto.offset.reset": "error",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,  # tells of ends that are no records: marks of Kafka transactions
    "allow.auto.create.topics": False,
    "group.id": "cdc-reader",  # the client wants one; no group is joined and nothing is committed
}
"""What correctness stands on: no override changes these."""

DEFAULTS: Mapping[str, Any] = {
    "check.crcs": True,
    "isolation.level": "read_committed",
    "fetch.wait.max.ms": 100,  # a partition taken anew waits for the answer to the fetch that is under way
    "fetch.queue.backoff.ms": 5,  # the default of a second is felt whenever the queue was full
    "fetch.error.backoff.ms": 100,
}


def fetching_within(budget_bytes: int) -> dict[str, Any]:
    """The client's settings for a byte budget of what it fetches ahead.

    A fetch brings a little of each partition, not much of one: partitions are to advance side by side, because what is
    ahead of the others has to wait for them in memory, or to be fetched once more.
    """
    return {
        "queued.max.messages.kbytes": min(2_097_151, max(1, budget_bytes // 2048)),
        "fetch.max.bytes": max(MEBIBYTE, budget_bytes // 16),
        "max.partition.fetch.bytes": min(MEBIBYTE, max(64 * 1024, budget_bytes // 128)),
    }


class KafkaTopicReader:
    """`cdc.protocols.TopicReader` on librdkafka's consumer. Not thread-safe.

    ``budget_bytes`` bounds what is fetched ahead, over all partitions: half of it is the client's one queue, which
    a fetch from each broker may exceed, by a sixteenth (compressed) at most or a single batch.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        budget_bytes: int = 64 * MEBIBYTE,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        overrides = overrides or {}
        override_checked(overrides, FIXED, "consumer.override.")
        budget = fetching_within(budget_bytes)
        self._watch = ClientWatch(f"reading from the topics at {cluster.bootstrap}")
        settings = cluster.settings(self._watch, {**DEFAULTS, **budget, **overrides, **FIXED})
        try:
            self._consumer = Consumer(settings)
        except KafkaException as error:
            raise translate(error, "the consumer's settings") from error
        self._cluster = cluster
        self._about: Topics | None = None
        self._next: dict[tuple[str, int], int] = {}
        self._paused: set[TopicPartition] = set()
        self._held: CdcError | None = None
        self._closed = False

    def away(self) -> str:
        """Why no broker can be reached now; empty when one can. Reading goes on by itself. For any thread."""
        return "" if self._closed else self._watch.away(self._consumer)

    def assign(self, at: Mapping[TopicPartition, int]) -> None:
        """Read these as well, from these offsets on. One already assigned moves there; paused, it stays paused."""
        self._release([partition for partition in at if partition in self._next])
        self._next.update(((topic, partition), offset) for (topic, partition), offset in at.items())
        self._take([partition for partition in at if partition not in self._paused])

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Deliver nothing of these until ``resume``; what was delivered already is not taken back."""
        running = [partition for partition in partitions if partition not in self._paused]
        self._release(running)
        self._paused.update(running)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Deliver these again, from the record after the last one delivered."""
        resting = [partition for partition in partitions if partition in self._paused]
        self._paused.difference_update(resting)
        self._take(resting)

    def read(self, timeout: float, limit: int = 10_000) -> Sequence[Record]:
        """What arrived, as soon as anything has; in order within a partition. See `cdc.protocols.TopicReader`.

        Refused when an offset is no longer there or the topic is gone, Unreachable for what another attempt may cure.
        """
        if self._held is not None:
            raise self._held
        self._watch.check()
        try:
            messages = self._consumer.consume(limit, 0)
            if not messages:
                messages = self._consumer.consume(1, timeout)
                if messages and limit > 1:
                    messages += self._consumer.consume(limit - 1, 0)
        except KafkaException as error:
            raise translate(error, "reading from the topics") from error
        return self._records(messages) if messages else []

    def position(self, partition: TopicPartition) -> int:
        """Up to where everything of an assigned partition was delivered, or never will be. See the protocol."""
        return self._next.get(partition, 0)

    def bounds(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, tuple[int, int]]:
        """First offset still there, and end offset, of each, asked of the brokers."""
        return self._topics.bounds(partitions)

    def topics(self) -> Mapping[str, TopicInfo]:
        """All topics of the cluster that are not internal."""
        return {name: facts.info for name, facts in self._topics.describe().items()}

    def cluster_id(self) -> str:
        """The cluster's identity."""
        return self._topics.cluster()[0]

    def close(self) -> None:
        """Safe to repeat."""
        if not self._closed:
            self._closed = True
            self._consumer.close()

    @property
    def _topics(self) -> Topics:
        if self._about is None:
            self._about = Topics(self._cluster)
        return self._about

    def _release(self, partitions: Sequence[TopicPartition]) -> None:
        running = [
            KafkaPartition(*partition) for partition in partitions if partition not in self._paused
        ]
        if running:
            self._change(self._consumer.incremental_unassign, running)

    def _take(self, partitions: Sequence[TopicPartition]) -> None:
        taken = [KafkaPartition(*partition, self._next[partition]) for partition in partitions]
        if taken:
            self._change(self._consumer.incremental_assign, taken)

    def _change(self, change: Any, partitions: list[KafkaPartition]) -> None:
        try:
            change(partitions)
        except KafkaException as error:
            named = ", ".join(
                f"{partition.topic}[{partition.partition}]" for partition in partitions
            )
            raise translate(error, f"choosing what to read ({named})") from error

    def _records(self, messages: list[Message]) -> list[Record]:
        """Records up to the first error, which is raised now if nothing came before it, else by the next read."""
        records: list[Record] = []
        add = records.append
        new = tuple.__new__  # what Record(...) comes to, without the call between
        following = self._next
        for message in messages:
            error = message.error()
            if error is not None:
                if error.code() == codes.PARTITION_EOF:
                    self._reached(message)
                    continue
                self._held = self._failure(message)
                break
            topic = message.topic()
            partition = message.partition()
            offset = message.offset()
            headers = message.headers()
            following[topic, partition] = offset + 1  # type: ignore[index,operator]  # only errors lack them
            add(
                new(
                    Record,
                    (
                        topic,
                        partition,
                        message.key(),
                        message.value(),
                        tuple((name, value or b"") for name, value in headers) if headers else (),  # type: ignore[str-unpack]
                        offset,
                    ),
                )
            )
        if records:
            self._watch.on_success()
        elif self._held is not None:
            raise self._held
        return records

    def _reached(self, message: Message) -> None:
        """The end, which lies behind the last record where a mark of a Kafka transaction follows it."""
        partition = (message.topic() or "", message.partition() or 0)
        self._next[partition] = max(self._next.get(partition, 0), message.offset() or 0)

    def _failure(self, message: Message) -> CdcError:
        error = message.error()
        if error is None:
            raise ValueError("a message without an error")
        offset = self._next.get((message.topic() or "", message.partition() or 0))
        at = f"reading {message.topic()}[{message.partition()}] at offset {offset}"
        return translate(reason(error), at)
