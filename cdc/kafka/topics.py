"""Makes topics and describes them. A topic that exists is left as it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeVar

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without saying so
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
    TopicDescription,
)

from cdc.errors import ConfigError, Refused, Unreachable
from cdc.kafka import codes
from cdc.kafka.client import ClientWatch, Cluster
from cdc.kafka.errors import reason, translate
from cdc.position import TopicPartition
from cdc.protocols import TopicInfo

Kind = Literal["data", "endless", "compacted"]
"""``data``: retention is the brokers' default or as asked. ``endless``: never expires, for transactions and
watermarks, which have to live at least as long as the longest data topic. ``compacted``: the last value of each key.
"""

T = TypeVar("T")

_ASKING = 10.0  # seconds for one question
_LEADERS = 30.0  # seconds for a new topic to be served
_SLICE = 0.1
_CONFIGS_AT_ONCE = 500

_LEADERLESS = (
    codes.NO_ENTRY,  # the client found no leader for any of the partitions
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
)

_CLEANUP: Mapping[Kind, Mapping[str, str]] = {
    "data": {"cleanup.policy": "delete"},
    "endless": {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"},
    "compacted": {"cleanup.policy": "compact"},
}


TOPIC_SETTINGS = frozenset(
    {
        "cleanup.policy",
        "compression.gzip.level",
        "compression.lz4.level",
        "compression.type",
        "compression.zstd.level",
        "delete.retention.ms",
        "file.delete.delay.ms",
        "flush.messages",
        "flush.ms",
        "follower.replication.throttled.replicas",
        "index.interval.bytes",
        "leader.replication.throttled.replicas",
        "local.retention.bytes",
        "local.retention.ms",
        "max.compaction.lag.ms",
        "max.message.bytes",
        "message.timestamp.after.max.ms",
        "message.timestamp.before.max.ms",
        "message.timestamp.type",
        "min.cleanable.dirty.ratio",
        "min.compaction.lag.ms",
        "min.insync.replicas",
        "preallocate",
        "remote.copy.disable",
        "remote.log.delete.on.disable",
        "remote.storage.enable",
        "retention.bytes",
        "retention.ms",
        "segment.bytes",
        "segment.index.bytes",
        "segment.jitter.ms",
        "segment.ms",
        "unclean.leader.election.enable",
    }
)
"""The settings that a topic of Kafka 4 can have. https://kafka.apache.org/documentation/#topicconfigs"""


@dataclass(frozen=True, slots=True)
class NewTopicSpec:
    """A topic to be. ``settings`` are the brokers' topic settings and win over what the kind brings.

    ``replication`` of -1 means the smaller of 3 and the number of brokers.
    """

    name: str
    kind: Kind = "data"
    partitions: int = 1
    replication: int = -1
    settings: Mapping[str, str] = field(default_factory=dict)


class TopicFacts(NamedTuple):
    """What the brokers say of a topic. Limits are in bytes and milliseconds; -1 is no limit."""

    info: TopicInfo
    replication: int
    max_message_bytes: int
    retention_ms: int
    retention_bytes: int
    min_insync_replicas: int
    unclean_election: bool


class Topics:
    """The cluster's topics.

    Every call raises Unreachable after about ten seconds without an answer, and ConfigError for a login or a grant
    that is refused. ``keep_alive`` is called about every 100 ms while a call waits.
    """

    def __init__(self, cluster: Cluster, keep_alive: Callable[[], None] | None = None) -> None:
        self._keep_alive = keep_alive
        self._where = cluster.bootstrap
        self._watch = ClientWatch(f"connecting to Kafka at {cluster.bootstrap}")
        try:
            self._admin = AdminClient(cluster.settings(self._watch, {}))
        except KafkaException as error:
            raise translate(error, "the settings of the Kafka client") from error

    def cluster(self) -> tuple[str, int]:
        """The cluster's identity, and how many brokers are up."""
        described = self._answer(
            self._admin.describe_cluster(request_timeout=_ASKING), "asking for the cluster"
        )
        return str(described.cluster_id), len(described.nodes)

    def create(self, specs: Sequence[NewTopicSpec]) -> None:
        """Make those that are not there yet; on return every one of ``specs`` has a leader for each partition."""
        present = self.describe([spec.name for spec in specs])
        missing = [spec for spec in specs if spec.name not in present]
        if missing:
            _, brokers = self.cluster()
            answers = self._admin.create_topics(
                [_new_topic(spec, brokers) for spec in missing],
                operation_timeout=_ASKING,
                request_timeout=_ASKING,
            )
            for name, answer in answers.items():
                self._created(name, answer)
        self._await_leaders([spec.name for spec in specs])

    def describe(self, names: Sequence[str] | None = None) -> Mapping[str, TopicFacts]:
        """Those of ``names`` that exist; None: all that are not internal."""
        if names is None:
            names = self._all_names()
        described = self._described(names)
        settings = self._settings(list(described))
        return {
            name: TopicFacts(
                TopicInfo(
                    str(topic.topic_id), len(topic.partitions), settings[name]["cleanup.policy"]
                ),
                len(topic.partitions[0].replicas),
                int(settings[name]["max.message.bytes"]),
                int(settings[name]["retention.ms"]),
                int(settings[name]["retention.bytes"]),
                int(settings[name]["min.insync.replicas"]),
                settings[name]["unclean.leader.election.enable"] == "true",
            )
            for name, topic in described.items()
            if name in settings
        }

    def bounds(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, tuple[int, int]]:
        """First offset still there, and end offset (of what all in-sync replicas have), of each.

        Refused for a partition that does not exist.
        """
        firsts = self._offsets(partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
        ends = self._offsets(partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        return {partition: (firsts[partition], ends[partition]) for partition in partitions}

    def _offsets(
        self, partitions: Sequence[TopicPartition], which: OffsetSpec
    ) -> dict[TopicPartition, int]:
        """Offsets by partition; waits for leaders, which a topic may lack right after it was made."""
        until = time.monotonic() + _ASKING
        while partitions:
            try:
                return self._offsets_now(partitions, which)
            except _NoLeader as error:
                self._check_existence(partitions)
                if time.monotonic() > until:
                    raise Unreachable(
                        f"no leader answers for some of {partitions[0].topic}'s partitions", _CHECK
                    ) from error
                self._pause()
        return {}

    def _offsets_now(
        self, partitions: Sequence[TopicPartition], which: OffsetSpec
    ) -> dict[TopicPartition, int]:
        answers = self._admin.list_offsets(
            {KafkaPartition(*partition): which for partition in partitions},
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=_ASKING,
        )
        found: dict[TopicPartition, int] = {}
        for asked, answer in answers.items():
            partition = TopicPartition(asked.topic, asked.partition)
            doing = f"asking for the offsets of {partition}"
            found[partition] = self._answer(answer, doing).offset
        return found

    def _check_existence(self, partitions: Sequence[TopicPartition]) -> None:
        described = self._described(sorted({partition.topic for partition in partitions}))
        for partition in partitions:
            topic = described.get(partition.topic)
            if topic is None or partition.partition >= len(topic.partitions):
                raise Refused(
                    f"there is no {partition}",
                    "the topic was deleted: restore it, or backfill its table",
                )

    def _pause(self) -> None:
        if self._keep_alive is not None:
            self._keep_alive()
        time.sleep(_SLICE)

    def _all_names(self) -> list[str]:
        try:
            listed = self._admin.list_topics(timeout=_ASKING)
        except KafkaException as error:
            self._admin.poll(0)
            self._watch.check()
            raise self._translated(error, "listing the topics") from error
        return [name for name in listed.topics if not name.startswith("__")]

    def _described(self, names: Sequence[str]) -> dict[str, TopicDescription]:
        if not names:
            return {}
        found: dict[str, TopicDescription] = {}
        answers = self._admin.describe_topics(TopicCollection(list(names)), request_timeout=_ASKING)
        for name, answer in answers.items():
            try:
                topic = self._answer(answer, f"describing {name}")
            except _Missing:
                continue
            if topic.partitions:
                found[name] = topic
        return found

    def _settings(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for start in range(0, len(names), _CONFIGS_AT_ONCE):
            resources = [
                ConfigResource(ResourceType.TOPIC, name)
                for name in names[start : start + _CONFIGS_AT_ONCE]
            ]
            answers = self._admin.describe_configs(resources, request_timeout=_ASKING)
            for resource, answer in answers.items():
                try:
                    entries = self._answer(answer, f"reading the settings of {resource.name}")
                except _Missing:
                    continue
                found[resource.name] = {key: str(entry.value) for key, entry in entries.items()}
        return found

    def _created(self, name: str, answer: Future[None]) -> None:
        try:
            self._answer(answer, f"making the topic {name}")
        except _Exists:
            return

    def _await_leaders(self, names: Sequence[str]) -> None:
        end = time.monotonic() + _LEADERS
        while True:
            described = self._described(names)
            waiting = [name for name in names if name not in described or not _led(described[name])]
            if not waiting:
                return
            if time.monotonic() > end:
                raise Unreachable(
                    f"{waiting[0]} has a partition without a leader",
                    "check that the brokers which hold it are up",
                )
            self._pause()

    def _answer(self, answer: Future[T], doing: str) -> T:
        end = time.monotonic() + 2 * _ASKING
        while True:
            try:
                return answer.result(timeout=_SLICE)
            except TimeoutError:
                self._admin.poll(0)  # serves the error callback and the log
                self._watch.check()
                if self._keep_alive is not None:
                    self._keep_alive()
                if time.monotonic() > end:
                    raise Unreachable(
                        f"{doing}: no answer from Kafka at {self._where}", _CHECK
                    ) from None
            except KafkaException as error:
                self._watch.check()
                raise self._translated(error, doing) from error

    def _translated(self, error: KafkaException, doing: str) -> Exception:
        cause = reason(error)
        code = cause.code()
        if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID):
            return _Missing()
        if code == KafkaError.TOPIC_ALREADY_EXISTS:
            return _Exists()
        if code in _LEADERLESS:
            return _NoLeader()
        failure = translate(error, doing)
        if isinstance(failure, Unreachable):
            last = self._watch.last_error
            return Unreachable(
                f"Kafka at {self._where} cannot be reached ({doing}: {(last or cause).str()})",
                _CHECK,
            )
        return failure


_CHECK = "check that the brokers are up and that bootstrap.servers is right"


class _NoLeader(Exception):
    """A partition has no leader now, or the broker asked is not the one."""


class _Missing(_NoLeader):
    """There is no such topic."""


class _Exists(Exception):
    """There is such a topic already."""


def _led(topic: TopicDescription) -> bool:
    return all(
        partition.leader is not None and partition.leader.id >= 0 for partition in topic.partitions
    )


def _new_topic(spec: NewTopicSpec, brokers: int) -> NewTopic:
    replication = min(3, brokers) if spec.replication < 0 else spec.replication
    if spec.partitions < 1:
        raise ConfigError(
            f"{spec.name} cannot have {spec.partitions} partitions", "choose 1 or more"
        )
    settings = {
        **_CLEANUP[spec.kind],
        "min.insync.replicas": "2" if replication >= 3 else "1",
        "unclean.leader.election.enable": "false",
        **spec.settings,
    }
    return NewTopic(
        spec.name, num_partitions=spec.partitions, replication_factor=replication, config=settings
    )
