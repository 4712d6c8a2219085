"""Topics and checkpoints in memory that change together or not at all, as under ``exactly.once.support=required``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from cdc.checkpoint import SourceCheckpoint
from cdc.event import Record
from cdc.position import TopicPartition
from cdc.testing.memory_checkpoints import MemoryCheckpoints, MemoryCheckpointTopic
from cdc.testing.memory_producer import MemoryProducer
from cdc.testing.memory_topics import MemoryTopics


class MemoryTransactionalProducer(MemoryProducer):
    """A `MemoryProducer` whose records are acknowledged when they are delivered, and readable once committed."""

    def __init__(self, topics: MemoryTopics) -> None:
        super().__init__(topics)
        self._open: dict[TopicPartition, list[Record]] = defaultdict(list)

    def deliver(self, how_many: Callable[[int], int]) -> None:
        for partition, lane in self._lanes.items():
            for _ in range(min(len(lane.waiting), how_many(len(lane.waiting)))):
                self._open[partition].append(lane.waiting.popleft())
                lane.delivered += 1

    def end_offset(self, partition: TopicPartition) -> int:
        return self._topics.log(partition).end + len(self._open[partition])

    def acknowledged(self, partition: TopicPartition) -> int | None:
        return self.end_offset(partition) if self._open[partition] else None

    def commit(self) -> None:
        """What was delivered is readable."""
        if any(lane.waiting for lane in self._lanes.values()):
            raise AssertionError("a commit before everything was acknowledged")
        for records in self._open.values():
            self._topics.append(records)
        self._open.clear()


class MemoryTransactionalCheckpoints(MemoryCheckpointTopic):
    """A `MemoryCheckpointTopic` whose saves commit what ``producer`` was given."""

    atomic = True

    def __init__(
        self, checkpoints: MemoryCheckpoints, producer: MemoryTransactionalProducer
    ) -> None:
        super().__init__(checkpoints)
        self._producer = producer

    def save(self, connector: str, checkpoint: SourceCheckpoint | None) -> None:
        saves = self._all.saves
        try:
            super().save(connector, checkpoint)
        finally:
            if self._all.saves > saves:  # also where only the answer is lost
                self._producer.commit()
