"""Where a restart must read on in each partition: behind all that has taken effect, before all that has not."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Protocol

from cdc.checkpoint import Resume
from cdc.position import TopicPartition


class Work(Protocol):
    """What records wait for. ``done``: it is in the store transaction at hand, or will never take effect."""

    done: bool


class Offsets:
    """Consumed offsets, and the lowest one of each partition whose record has not taken effect.

    ``resumes`` is what the replica holds; `changed` tells only what differs from what it told before.
    """

    def __init__(self, resumes: Mapping[TopicPartition, Resume]) -> None:
        self.next: dict[TopicPartition, int] = {tp: at.offset for tp, at in resumes.items()}
        self._saved = dict(resumes)
        self._topic_ids: dict[TopicPartition, str] = {}
        self._waiting: dict[TopicPartition, deque[tuple[int, Work]]] = {}
        self._touched: set[TopicPartition] = set()

    def start(self, partition: TopicPartition, offset: int, topic_id: str) -> None:
        """The partition is read from this offset on; that itself is told by the next `changed`."""
        self.next[partition] = offset
        self._topic_ids[partition] = topic_id
        self._touched.add(partition)

    def consumed(self, partition: TopicPartition, offset: int) -> None:
        """The record at ``offset`` needs no second reading, unless `hold` named it."""
        self.next[partition] = offset + 1
        self._touched.add(partition)

    def hold(self, partition: TopicPartition, offset: int, work: Work) -> None:
        """The record at ``offset`` must be read again after a restart, for as long as ``work`` is not done."""
        waiting = self._waiting.get(partition)
        if waiting is None:
            waiting = self._waiting[partition] = deque()
        waiting.append((offset, work))

    def changed(self) -> dict[TopicPartition, Resume]:
        """Where each partition goes on, as far as that moved; to be saved with the work that is done."""
        moved: dict[TopicPartition, Resume] = {}
        held: set[TopicPartition] = set()
        for partition in self._touched:
            waiting = self._waiting.get(partition)
            while waiting and waiting[0][1].done:
                waiting.popleft()
            if waiting:
                held.add(partition)
            offset = waiting[0][0] if waiting else self.next[partition]
            resume = Resume(offset, self._topic_ids.get(partition, ""))
            if self._saved.get(partition) != resume:
                self._saved[partition] = moved[partition] = resume
        self._touched = held
        return moved

    def any_changed(self) -> bool:
        """Whether `changed` might have something to tell."""
        return any(
            not self._waiting.get(tp)
            and (tp not in self._saved or self._saved[tp].offset != self.next[tp])
            for tp in self._touched
        )
