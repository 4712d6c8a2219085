"""A Kafka cluster in memory: topics that keep what is appended, with readers and a writer on them."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cdc.errors import Refused, Unreachable
from cdc.event import Record
from cdc.position import TopicPartition
from cdc.protocols import TopicInfo


@dataclass(slots=True)
class _Log:
    """One partition. ``low`` is the offset of ``records[0]``."""

    low: int = 0
    records: list[Record] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.low + len(self.records)


@dataclass(slots=True)
class _Topic:
    id: str
    policy: str
    logs: list[_Log]


class MemoryTopics:
    """The cluster. ``away`` makes every call of a reader or writer raise Unreachable for as long as it is set."""

    def __init__(self, cluster_id: str = "memory") -> None:
        self.cluster_id = cluster_id
        self.away = False
        self._topics: dict[str, _Topic] = {}
        self._made = 0

    def create(self, topic: str, partitions: int = 1, cleanup_policy: str = "delete") -> None:
        """Make a topic, or make it again, empty and with a new id."""
        self._made += 1
        logs = [_Log() for _ in range(partitions)]
        self._topics[topic] = _Topic(f"id-{self._made}", cleanup_policy, logs)

    def delete(self, topic: str) -> None:
        """Remove the topic."""
        del self._topics[topic]

    def append(self, records: Iterable[Record]) -> None:
        """Put records at the ends of their partitions; a topic that is missing is made with what it needs."""
        for record in records:
            if record.topic not in self._topics:
                self.create(record.topic, record.partition + 1)
            logs = self._topics[record.topic].logs
            logs.extend(_Log() for _ in range(record.partition + 1 - len(logs)))
            log = logs[record.partition]
            log.records.append(record._replace(offset=log.end))

    def remove_before(self, partition: TopicPartition, offset: int) -> None:
        """Retention removes what stands below ``offset``."""
        log = self.log(partition)
        del log.records[: max(0, offset - log.low)]
        log.low = max(log.low, offset)

    def ends(self, *topics: str) -> dict[TopicPartition, int]:
        """End offsets of all partitions of these topics."""
        return {
            TopicPartition(topic, number): log.end
            for topic in topics
            if topic in self._topics
            for number, log in enumerate(self._topics[topic].logs)
        }

    def infos(self) -> dict[str, TopicInfo]:
        """All topics."""
        return {n: TopicInfo(t.id, len(t.logs), t.policy) for n, t in self._topics.items()}

    def log(self, partition: TopicPartition) -> _Log:
        """One partition's records."""
        return self._topics[partition.topic].logs[partition.partition]

    def records(self, partition: TopicPartition) -> Sequence[Record]:
        """What still stands in the partition."""
        return self.log(partition).records

    def reader(self, seed: int | None = None) -> MemoryTopicReader:
        """A reader; with a seed, one that mixes partitions and sizes of batches at random."""
        return MemoryTopicReader(self, None if seed is None else random.Random(seed))  # noqa: S311 - a test's

    def writer(self) -> MemoryTopicWriter:
        """A writer; what is written is acknowledged at once, unless ``hold`` is set on it."""
        return MemoryTopicWriter(self)

    def reach(self) -> None:
        """Raise Unreachable while the cluster is away."""
        if self.away:
            raise Unreachable("the brokers in memory are away")


class MemoryTopicReader:
    """`cdc.protocols.TopicReader` on `MemoryTopics`. Without a seed partitions are read in order of assignment."""

    def __init__(self, topics: MemoryTopics, chance: random.Random | None) -> None:
        self._topics = topics
        self._chance = chance
        self._at: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()

    def assign(self, at: Mapping[TopicPartition, int]) -> None:
        self._topics.reach()
        self._at.update(at)

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        self._paused.update(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        self._paused.difference_update(partitions)

    def read(self, timeout: float, limit: int = 10_000) -> Sequence[Record]:
        self._topics.reach()
        ready = [tp for tp in self._at if tp not in self._paused]
        if self._chance:
            self._chance.shuffle(ready)
            limit = self._chance.randint(1, min(limit, 8))
        records: list[Record] = []
        for tp in ready:
            log = self._topics.log(tp)
            if self._at[tp] < log.low or self._at[tp] > log.end:
                raise Refused(f"{tp} has no offset {self._at[tp]} any more")
            room = limit - len(records)
            if self._chance:
                room = self._chance.randint(0, room)
            start = self._at[tp] - log.low
            found = log.records[start : start + room]
            records += found
            self._at[tp] += len(found)
        if not records:
            time.sleep(min(timeout, 0.001))
        return records

    def position(self, partition: TopicPartition) -> int:
        return self._at.get(partition, 0)

    def bounds(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, tuple[int, int]]:
        self._topics.reach()
        return {tp: (self._topics.log(tp).low, self._topics.log(tp).end) for tp in partitions}

    def topics(self) -> Mapping[str, TopicInfo]:
        self._topics.reach()
        return self._topics.infos()

    def cluster_id(self) -> str:
        self._topics.reach()
        return self._topics.cluster_id

    def close(self) -> None:
        self._at.clear()


class MemoryTopicWriter:
    """`cdc.protocols.TopicWriter` on `MemoryTopics`; with ``hold`` set, marks do not become durable."""

    def __init__(self, topics: MemoryTopics) -> None:
        self._topics = topics
        self._marks: deque[object] = deque()
        self.hold = False

    def write(self, records: Sequence[Record]) -> None:
        self._topics.reach()
        self._topics.append(records)

    def mark(self, mark: object) -> None:
        self._marks.append(mark)

    def durable(self) -> Sequence[object]:
        self._topics.reach()
        if self.hold:
            return []
        marks = list(self._marks)
        self._marks.clear()
        return marks

    def end_offset(self, partition: TopicPartition) -> int:
        self._topics.reach()
        return self._topics.log(partition).end

    def flush(self, timeout: float) -> bool:  # noqa: ARG002 - the protocol's
        self._topics.reach()
        return not self.hold

    def close(self) -> None:
        self._marks.clear()
