"""What the log did to a few keys between two fences, and what a replica must hold after it. Pure.

For a key that no event touched, or only events of transactions that the read of the source saw, the replica must hold
what the source showed. Otherwise it must hold what the events made of that, in log order, the seen ones included:
each event sets what it carries, so applying again what the source's row had already changes nothing in the end.
Rows that fences brought (xid 0) are applied in their place like any other.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from cdc.checkpoint import SinkCheckpoint
from cdc.event import Delivered
from cdc.fence import Snapshot, Watermark
from cdc.position import Position, TopicPartition
from cdc.table import Table

Values = Mapping[str, object]
Decode = Callable[[Table, bytes], Values]


class _Unknown:
    """A column that no event carried, of a row that the source did not show."""

    def __repr__(self) -> str:
        return "unknown"


UNKNOWN = _Unknown()


def holds_all_below(checkpoint: SinkCheckpoint, watermark: Watermark, topic: str) -> bool:
    """Whether a replica with this checkpoint holds every event of the table's ``topic`` before the fence.

    A replica that keeps no position (partitions applied apart from each other) has consumed each partition instead,
    and waits for no row that it left out below the fence.
    """
    if checkpoint.position is not None:
        return checkpoint.position.passed(watermark.generation, watermark.lsn)
    return all(
        end == 0
        or min(
            offset_of(checkpoint, TopicPartition(*partition)),
            checkpoint.withheld.get(TopicPartition(*partition), end),
        )
        >= end
        for partition, end in watermark.ends.items()
        if partition[0] == topic
    )


def offset_of(checkpoint: SinkCheckpoint, partition: TopicPartition) -> int:
    """Up to which offset the replica holds the partition; 0 when it does not know it."""
    resume = checkpoint.offsets.get(partition)
    return 0 if resume is None else resume.offset


class KeyHistory:
    """Collects the events of ``keys`` that the replica holds and that stand behind ``low`` in the log.

    Feed it each partition's records in order; partitions may be mixed. Repeats are dropped. Memory is bounded by
    the events of these keys alone.
    """

    def __init__(self, keys: Iterable[bytes], low: Position, checkpoint: SinkCheckpoint) -> None:
        self._events: dict[bytes, list[Delivered]] = {key: [] for key in keys}
        self._after = low
        self._checkpoint = checkpoint
        self._newest: dict[TopicPartition, Position] = {}

    def add(self, event: Delivered) -> None:
        """The next event of its partition."""
        partition = TopicPartition(event.topic, event.partition)
        if event.position <= self._newest.get(partition, self._after):
            return
        self._newest[partition] = event.position
        if not self._held(event, partition):
            return
        if event.op == "t":
            # It stands in every partition, under one position: keys of this one and of others meet it here.
            for events in self._events.values():
                if not any(known.position == event.position for known in events):
                    events.append(event)
        elif event.key in self._events:
            self._events[event.key].append(event)

    def of(self, key: bytes) -> Sequence[Delivered]:
        """The key's events in the order of the log."""
        return sorted(self._events[key], key=lambda event: event.position)

    def _held(self, event: Delivered, partition: TopicPartition) -> bool:
        if self._checkpoint.position is not None:
            return event.position <= self._checkpoint.position
        return event.offset < offset_of(self._checkpoint, partition)


def outside(snapshot: Snapshot, events: Iterable[Delivered]) -> bool:
    """Whether any of the events is not part of what the snapshot shows. Rows that a fence brought count as such."""
    return any(event.xid == 0 or not snapshot.sees(snapshot.lift(event.xid)) for event in events)


def expected(base: Values | None, events: Iterable[Delivered], decode: Decode) -> Values | None:
    """The row after the events, None when there is none; columns may be UNKNOWN."""
    row = base
    for event in events:
        if event.op in ("d", "t") or event.after is None:
            row = None
            continue
        after = dict(decode(event.table, event.after))
        for column in event.unchanged:
            after[column] = UNKNOWN if row is None else row.get(column, UNKNOWN)
        row = after
    return row


class Check(NamedTuple):
    """``columns`` differ; ``unknown`` ones could not be compared."""

    columns: tuple[str, ...]
    unknown: bool


def check_values(wanted: Values, found: Values) -> Check:
    """Compare a replica's row with what it must be, by the columns that the replica has."""
    differing: list[str] = []
    unknown = False
    for column, value in found.items():
        want = wanted.get(column, UNKNOWN)
        if want is UNKNOWN:
            unknown = True
        elif not _same(want, value):
            differing.append(column)
    return Check(tuple(differing), unknown)


def _same(left: object, right: object) -> bool:
    """Equality that tells -0.0 from 0.0 and True from 1, and knows that NaN is NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float) and isinstance(right, float):
        return (left != left and right != right) or struct.pack("<d", left) == struct.pack(
            "<d", right
        )
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(
            _same(value, right[name]) for name, value in left.items()
        )
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(_same, left, right))
    return left == right
