"""Watermarks that wait until this sink has passed them, and what passing them says.

A watermark is passed when its end offsets are consumed and nothing below its fence is still open: then the replica
holds everything below H (`Position.at_fence`), also where no transaction follows. A backfill's ``open`` and ``final``
fences change the table's state in the replica, and ``final`` says what the table looks like, rows or none; a table that no backfill has spoken of has no state, because what it
held before its first event is not known to be in the replica (``snapshot.mode=no_data``).
A void fence ties no read to the log, but it stands where it stands: it moves the position, never a table's state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cdc.checkpoint import TableState
from cdc.errors import Refused
from cdc.fence import Watermark
from cdc.pipeline.selection import Selection
from cdc.pipeline.transactions import Assembler
from cdc.position import Position, TopicPartition
from cdc.protocols import Shape

STATES: Mapping[str, TableState] = {"open": "backfilling", "final": "live", "stale": "stale"}
"""What a watermark of a phase makes of its table."""


@dataclass(slots=True, eq=False)
class _Pending:
    """Work, for `cdc.pipeline.offsets`: done once it is passed."""

    watermark: Watermark
    done: bool = False


class Watermarks:
    """Those not passed yet, in topic order. Pure: ``next_offsets`` is what the sink has consumed."""

    def __init__(self, selection: Selection, next_offsets: Mapping[TopicPartition, int]) -> None:
        self._selection = selection
        self._next = next_offsets
        self._pending: deque[_Pending] = deque()
        self._newest_phase: dict[str, int] = {}
        self._shapes: list[Shape] = []

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, watermark: Watermark) -> _Pending:
        """Wait for it; the result is done when it was passed."""
        pending = _Pending(watermark)
        self._pending.append(pending)
        return pending

    def marks_read(self, assembler: Assembler) -> None:
        """Tell the assembler what the first one says, once the transaction topic is read up to it. Raises Reread."""
        if self._pending:
            watermark = self._pending[0].watermark
            if assembler.same_generation(watermark.generation) and self._marks_consumed(watermark):
                assembler.pass_by(watermark.lsn - 1)

    def take(self, assembler: Assembler) -> tuple[Position | None, dict[str, TableState]]:
        """Where the replica stands by those that are passed now, and the tables whose state they change.

        Raises Refused when rows are missing below a watermark that covers them.
        """
        position: Position | None = None
        tables: dict[str, TableState] = {}
        while self._pending:
            watermark = self._pending[0].watermark
            if assembler.same_generation(watermark.generation):
                if not self._passed(watermark, assembler):
                    break
                position = Position.at_fence(watermark.generation, watermark.lsn)
                assembler.reached(watermark.lsn - 1)
                tables |= self._phase(watermark)
            self._pending.popleft().done = True
        return position, tables

    def covers(self, topic: str, lsn: int) -> bool:
        """Whether all rows of the topic that committed at or below ``lsn`` have been read, as a watermark says."""
        for pending in self._pending:
            ends = [
                (TopicPartition(name, number), end)
                for (name, number), end in pending.watermark.ends.items()
                if name == topic
            ]
            if ends and pending.watermark.lsn > lsn:
                return all(self._next.get(tp, 0) >= end for tp, end in ends)
        return False

    def take_shapes(self) -> list[Shape]:
        """Row schemas of tables whose backfill was found complete, or that were changed, since the last call."""
        shapes, self._shapes = self._shapes, []
        return shapes

    def _passed(self, watermark: Watermark, assembler: Assembler) -> bool:
        if not self._marks_consumed(watermark):
            return False
        assembler.pass_by(watermark.lsn - 1)
        if not all(self._consumed(watermark, self._selection.collection)):
            return False
        head = assembler.head_lsn
        if head is None or head >= watermark.lsn:
            return True
        covered = {self._selection.collection(topic) for topic, _ in watermark.ends}
        missing = [collection for collection in assembler.lacking() if collection in covered]
        if missing:
            raise Refused(
                f"incomplete transaction: the one that committed at {head} lacks rows of {missing[0]}, "
                f"and fence {watermark.fence} behind it is reached",
                "compare the topic's retention and cleanup.policy; then cdc table backfill FILE "
                f"--table {missing[0]} and verify",
            )
        return False

    def _marks_consumed(self, watermark: Watermark) -> bool:
        topic = self._selection.transaction_topic
        return all(self._consumed(watermark, lambda other: other if other == topic else None))

    def _consumed(self, watermark: Watermark, chosen: Callable[[str], str | None]) -> list[bool]:
        return [
            self._next.get(TopicPartition(topic, number), 0) >= end
            for (topic, number), end in watermark.ends.items()
            if chosen(topic) is not None and TopicPartition(topic, number) in self._next
        ]

    def _phase(self, watermark: Watermark) -> dict[str, TableState]:
        state = STATES.get(watermark.phase)
        if watermark.void or not (state or watermark.shape):
            return {}
        changed: dict[str, TableState] = {}
        for topic in {topic for topic, _ in watermark.ends}:
            collection = self._selection.collection(topic)
            if not collection:
                continue
            if state and self._newest_phase.get(collection, -1) <= watermark.lsn:
                self._newest_phase[collection] = watermark.lsn
                changed[collection] = state
            if watermark.shape is not None:
                position = Position.at_fence(watermark.generation, watermark.lsn)
                self._shapes.append(Shape(watermark.shape, collection, topic, position))
        return changed


__all__ = ["Watermarks"]
