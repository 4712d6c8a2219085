"""Watermarks under ``apply.mode=partition``: which tables are being copied, and which are whole.

The watermark topic has one partition, so one task of the group holds it and speaks for all: a fence is passed when the
replica holds every partition of its table up to the fence's end offsets, whoever wrote them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from cdc.checkpoint import TableState
from cdc.fence import Watermark
from cdc.pipeline.selection import Selection
from cdc.pipeline.watermarks import STATES
from cdc.position import Position, TopicPartition
from cdc.protocols import Shape


@dataclass(slots=True)
class Passed:
    """What passing fences has said: states of tables, and row schemas."""

    tables: dict[str, TableState] = field(default_factory=dict)
    shapes: list[Shape] = field(default_factory=list)


class PartitionWatermarks:
    """Fences of backfills that are not passed yet, in topic order."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._pending: deque[tuple[int, Watermark]] = deque()

    def __bool__(self) -> bool:
        return bool(self._pending)

    @property
    def oldest(self) -> int | None:
        """The offset of the first one that is not passed."""
        return self._pending[0][0] if self._pending else None

    def add(self, offset: int, watermark: Watermark) -> None:
        """The next record of the topic."""
        if not watermark.void and (watermark.phase in STATES or watermark.shape):
            self._pending.append((offset, watermark))

    def take(self, held: Mapping[TopicPartition, int]) -> Passed:
        """What has been passed, in order, by a replica that holds partitions up to the offsets ``held``."""
        passed = Passed()
        while self._pending:
            _, watermark = self._pending[0]
            ends = {
                TopicPartition(*at): end
                for at, end in watermark.ends.items()
                if self._selection.collection(at[0])
            }
            # One that says a table is not whole counts as soon as it is met.
            state = STATES.get(watermark.phase)
            if state in ("live", None) and any(
                held.get(tp, 0) < end for tp, end in ends.items() if end
            ):
                break
            self._pending.popleft()
            for topic in {tp.topic for tp in ends}:
                collection = self._selection.collection(topic) or ""
                if state is not None:
                    passed.tables[collection] = state
                if watermark.shape is not None:
                    at = Position.at_fence(watermark.generation, watermark.lsn)
                    passed.shapes.append(Shape(watermark.shape, collection, topic, at))
        return passed


__all__ = ["PartitionWatermarks", "Passed"]
