"""One source transaction that has not taken effect yet: what has arrived of it, and what may go."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from cdc.event import Delivered
from cdc.position import TopicPartition

ROW_OVERHEAD = 512
"""What an event costs in memory beside its bytes, roughly."""
TRANSACTION_OVERHEAD = 768
"""What an open transaction costs beside its rows, roughly."""


@dataclass(slots=True, eq=False)
class OpenTransaction:
    """Known by its commit LSN; ``commit_ms`` is when the source committed it, 0 until a mark says so.

    ``begun``: a mark of it was read. ``counts`` are those of its last END, None before one. ``rows`` are by
    ``total_order``; ``found`` counts all distinct ones per collection, also those that were taken away in parts, up to
    the numbers in ``streamed``. ``truncates`` tells in which partitions each TRUNCATE has arrived. ``dropped``: rows
    were thrown away, because it counted as dead. ``excused`` counts rows per collection that nobody can read.
    ``done`` is for `cdc.pipeline.offsets`.
    """

    lsn: int
    commit_ms: int = 0
    begun: bool = False
    counts: dict[str, int] | None = None
    rows: dict[int, Delivered] = field(default_factory=dict)
    found: dict[str, int] = field(default_factory=dict)
    excused: dict[str, int] = field(default_factory=dict)
    truncates: dict[int, set[int]] = field(default_factory=dict)
    streamed: dict[TopicPartition, int] = field(default_factory=dict)
    touched: set[TopicPartition] = field(default_factory=set)
    size: int = TRANSACTION_OVERHEAD
    last_order: int = 1
    dropped: bool = False
    done: bool = False

    def in_order(self) -> list[Delivered]:
        """Its rows by number, without those of collections that the last END no longer names."""
        orders = sorted(self.rows)
        if orders:
            self.last_order = max(self.last_order, orders[-1])
        events = [self.rows[order] for order in orders]
        if self.counts is not None and not self.found.keys() <= self.counts.keys():
            return [event for event in events if event.collection in self.counts]
        return events

    def shrinks_to(self, counts: Mapping[str, int]) -> bool:
        """Whether an END with these counts says that rows have arrived which are no longer part of it."""
        return any(count > counts.get(collection, 0) for collection, count in self.found.items())

    def barrier(self, partitions: Mapping[str, int]) -> int | None:
        """The lowest TRUNCATE that has not arrived in every partition: rows behind it must not go before it."""
        return min(
            (
                order
                for order, seen in self.truncates.items()
                if order in self.rows and len(seen) < partitions.get(self.rows[order].topic, 1)
            ),
            default=None,
        )

    def releasable(self, partitions: Mapping[str, int]) -> Collection[int]:
        """The numbers of the rows in front of the barrier."""
        barrier = self.barrier(partitions)
        if barrier is None:
            return self.rows.keys()
        return [order for order in self.rows if order < barrier]
