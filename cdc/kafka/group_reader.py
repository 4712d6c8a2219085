"""Reads partitions that a consumer group shares among its members, from offsets that stand elsewhere.

The group decides who reads what; what it stores as committed offsets is shown in graphs and never read here.
Rebalances are cooperative: a member keeps reading what stays with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from cdc.errors import CdcError
from cdc.event import Record
from cdc.kafka.client import ClientWatch, Cluster, override_checked
from cdc.kafka.errors import reason, translate
from cdc.kafka.reader import DEFAULTS, FIXED, MEBIBYTE, fetching_within
from cdc.kafka.topics import Topics
from cdc.position import TopicPartition
from cdc.protocols import GroupMember, TopicInfo

_FIXED: Mapping[str, Any] = {
    **FIXED,
    "enable.partition.eof": False,  # an end is no record, and a member asks for records only
    "partition.assignment.strategy": "cooperative-sticky",
}


class KafkaGroupReader:
    """`cdc.protocols.GroupReader` on librdkafka's consumer. Not thread-safe; ``member`` is called inside `read` and `close`.

    ``budget_bytes`` bounds what is fetched ahead, over all partitions, as in `KafkaTopicReader`.
    """

    def __init__(
        self,
        cluster: Cluster,
        group: str,
        member: GroupMember,
        *,
        budget_bytes: int = 64 * MEBIBYTE,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        overrides = overrides or {}
        override_checked(overrides, _FIXED, "consumer.override.")
        budget = fetching_within(budget_bytes)
        self._watch = ClientWatch(f"reading from the topics at {cluster.bootstrap}")
        settings = cluster.settings(
            self._watch, {**DEFAULTS, **budget, **overrides, **_FIXED, "group.id": group}
        )
        try:
            self._consumer = Consumer(settings)
        except KafkaException as error:
            raise translate(error, "the consumer's settings") from error
        self._member = member
        self._about = Topics(cluster)
        self._subscribed: tuple[str, ...] = ()
        self._held: CdcError | None = None
        self._closed = False

    def away(self) -> str:
        """Why no broker can be reached now; empty when one can. Reading goes on by itself. For any thread."""
        return "" if self._closed else self._watch.away(self._consumer)

    def subscribe(self, topics: Sequence[str]) -> None:
        """Take part in sharing these topics; the same ones again change nothing."""
        wanted = tuple(sorted(topics))
        if wanted == self._subscribed:
            return
        try:
            self._consumer.subscribe(
                list(wanted),
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_lost,
            )
        except KafkaException as error:
            raise translate(error, "joining the consumer group") from error
        self._subscribed = wanted

    def read(self, timeout: float, limit: int = 10_000) -> Sequence[Record]:
        """What arrived, as soon as anything has. See `cdc.protocols.GroupReader`."""
        self._check()
        try:
            messages = self._consumer.consume(1, timeout)
            if messages and limit > 1:
                messages += self._consumer.consume(limit - 1, 0)
        except KafkaException as error:
            self._check()
            raise translate(error, "reading from the topics") from error
        records = self._records(messages)
        if not records:
            self._check()
        return records

    def pause(self, partition: TopicPartition) -> None:
        """Deliver nothing of this partition until ``resume``."""
        try:
            self._consumer.pause([KafkaPartition(*partition)])
        except KafkaException as error:
            raise translate(error, f"pausing {partition}") from error

    def resume(self, partition: TopicPartition, offset: int) -> None:
        """Deliver this partition again, from this offset on."""
        try:
            self._consumer.seek(KafkaPartition(*partition, offset))
            self._consumer.resume([KafkaPartition(*partition)])
        except KafkaException as error:
            raise translate(error, f"going on in {partition}") from error

    def note(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Tell the group how far this member is; whether the group takes it does not matter."""
        at = [KafkaPartition(*partition, offset) for partition, offset in offsets.items()]
        with contextlib.suppress(KafkaException):
            self._consumer.commit(offsets=at, asynchronous=True)

    def bounds(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, tuple[int, int]]:
        """First offset still there, and end offset, of each, asked of the brokers."""
        return self._about.bounds(partitions)

    def topics(self) -> Mapping[str, TopicInfo]:
        """All topics of the cluster that are not internal."""
        return {name: facts.info for name, facts in self._about.describe().items()}

    def cluster_id(self) -> str:
        """The cluster's identity."""
        return self._about.cluster()[0]

    def close(self) -> None:
        """Leave the group. Safe to repeat."""
        if not self._closed:
            self._closed = True
            self._consumer.close()

    # --- what the group says: inside the client's calls, where nothing may be raised -------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        if not partitions:
            return
        try:
            at = self._member.assigned(_ours(partitions))
            consumer.incremental_assign(
                [KafkaPartition(*partition, offset) for partition, offset in at.items()]
            )
        except (CdcError, KafkaException) as error:
            self._hold(error, "taking partitions over")

    def _on_revoke(self, _: Consumer, partitions: list[KafkaPartition]) -> None:
        try:
            self._member.revoked(_ours(partitions))
        except CdcError as error:
            self._hold(error, "giving partitions up")

    def _on_lost(self, _: Consumer, partitions: list[KafkaPartition]) -> None:
        self._member.lost(_ours(partitions))

    def _hold(self, error: CdcError | KafkaException, doing: str) -> None:
        if self._held is None:
            self._held = error if isinstance(error, CdcError) else translate(error, doing)

    def _check(self) -> None:
        if self._held is not None:
            raise self._held
        self._watch.check()

    def _records(self, messages: list[Message]) -> list[Record]:
        """Records up to the first error, which is raised by the next check."""
        records: list[Record] = []
        for message in messages:
            if (error := message.error()) is not None:
                at = f"reading {message.topic()}[{message.partition()}]"
                self._hold(translate(reason(error), at), at)
                break
            headers = message.headers()
            records.append(
                Record(
                    message.topic() or "",
                    message.partition() or 0,
                    message.key(),
                    message.value(),
                    tuple((name, value or b"") for name, value in headers) if headers else (),  # type: ignore[str-unpack,misc]
                    message.offset() or 0,
                )
            )
        if records:
            self._watch.on_success()
        return records


def _ours(partitions: Sequence[KafkaPartition]) -> list[TopicPartition]:
    return [TopicPartition(partition.topic, partition.partition) for partition in partitions]
