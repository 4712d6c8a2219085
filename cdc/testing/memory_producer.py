"""A writer in memory whose records reach the topics later, partition by partition, as a producer's do.

What a crash of its owner leaves behind is a prefix of each partition, and not the same one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cdc.event import Record
from cdc.position import TopicPartition
from cdc.testing.memory_topics import MemoryTopics


@dataclass(slots=True)
class _Lane:
    waiting: deque[Record] = field(default_factory=deque)
    sent: int = 0
    delivered: int = 0


class MemoryProducer:
    """`cdc.protocols.TopicWriter` on `MemoryTopics`. Nothing is delivered but by `deliver` and `flush`."""

    def __init__(self, topics: MemoryTopics) -> None:
        self._topics = topics
        self._lanes: dict[TopicPartition, _Lane] = {}
        self._marks: deque[tuple[object, dict[TopicPartition, int]]] = deque()

    @property
    def pending(self) -> int:
        """Marks that are not durable yet."""
        return len(self._marks)

    def write(self, records: Sequence[Record]) -> None:
        for record in records:
            lane = self._lanes.setdefault(TopicPartition(record.topic, record.partition), _Lane())
            lane.waiting.append(record)
            lane.sent += 1

    def mark(self, mark: object) -> None:
        self._marks.append((mark, {tp: lane.sent for tp, lane in self._lanes.items()}))

    def deliver(self, how_many: Callable[[int], int]) -> None:
        """Each partition gets the next of its records: as many as ``how_many`` says of those that wait."""
        for lane in self._lanes.values():
            for _ in range(min(len(lane.waiting), how_many(len(lane.waiting)))):
                self._topics.append([lane.waiting.popleft()])
                lane.delivered += 1

    def durable(self) -> Sequence[object]:
        done: list[object] = []
        while self._marks and all(
            self._lanes[tp].delivered >= sent for tp, sent in self._marks[0][1].items()
        ):
            done.append(self._marks.popleft()[0])
        return done

    def end_offset(self, partition: TopicPartition) -> int:
        return self._topics.log(partition).end

    def acknowledged(self, partition: TopicPartition) -> int | None:
        lane = self._lanes.get(partition)
        return self._topics.log(partition).end if lane is not None and lane.delivered else None

    def flush(self, timeout: float) -> bool:  # noqa: ARG002 - the protocol's
        self.deliver(lambda waiting: waiting)
        return True

    def close(self) -> None:
        self._lanes.clear()
        self._marks.clear()
