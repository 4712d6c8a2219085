"""What a run works with, and what one table's passes share: fences, and a replica to wait for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from cdc.fence import Fence, Watermark
from cdc.position import TopicPartition
from cdc.protocols import EventDecoder, RangeReader, ReplicaSide, ReplicaState, SourceSide
from cdc.table import Table
from cdc.verify.fences import FenceLog
from cdc.verify.history import holds_all_below
from cdc.verify.inconclusive import Inconclusive, Skipped, Standstill
from cdc.verify.settings import VerifySettings
from cdc.verify.window import DataWindow, Offsets

_FIRST_PAUSE = 0.002
_LONGEST_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class Parts:
    """Both sides, the topics between them, and the run's settings. ``run`` begins every fence's id."""

    run: str
    source: SourceSide
    replica: ReplicaSide
    fences: FenceLog
    window: DataWindow
    decoder: EventDecoder
    settings: VerifySettings


class Low(NamedTuple):
    """Where following the log began: every event of the table at or behind ``lsn`` stands at ``starts`` or later."""

    lsn: int
    starts: Offsets


class Fencing:
    """The fences of one table's verification.

    Construction emits a mark and waits for it, so that a capture or a sink that stands still shows at once.
    Raises Skipped for a table that the sink does not read. Every method that waits raises Standstill when its time is
    up.
    """

    def __init__(self, parts: Parts, table: Table) -> None:
        self.parts = parts
        self.table = table
        self._count = 0
        self.parked = 0
        fence = self.new_id()
        self.opened = self._mark(fence)
        watermark = self.published(fence)
        # A watermark lists the partitions of its table and of the transaction topic.
        self._partitions = [
            TopicPartition(*at)
            for at in watermark.ends
            if at[0] != f"{parts.settings.source}.transaction"
        ]
        self.topic = self._partitions[0].topic
        self.collection = self.topic.removeprefix(f"{parts.settings.source}.")
        if not parts.settings.reads(self.topic):
            raise Skipped(f"the sink does not read {self.topic}")
        self.await_replica(watermark)

    def new_id(self) -> str:
        """For the next fence; unique over all runs."""
        self._count += 1
        return f"{self.parts.run}.{self.table.id}.{self._count}"

    def follow(self) -> Low:
        """Begin to follow the log from here on.

        A watermark's ends will not do as ``starts``: by the time it is published they may lie beyond its fence.
        What stands on a topic before a mark is emitted is before that mark in the log, too.
        """
        starts = self.parts.window.ends(self._partitions)
        return Low(self._mark(self.new_id()), starts)

    def published(self, fence: str) -> Watermark:
        """Wait for the fence's watermark."""
        return self.parts.fences.wait(fence)

    def _mark(self, fence: str) -> int:
        source = self.parts.source
        mark = Fence(fence, "mark", self.parts.settings.source, self.table.id, source.snapshot())
        return source.mark(mark)

    def await_replica(self, watermark: Watermark) -> None:
        """Wait until the replica holds everything before the fence."""
        settings = self.parts.settings
        deadline = time.monotonic() + settings.timeout
        pause = _FIRST_PAUSE
        while True:
            checkpoint = self.parts.replica.state(settings.sink, settings.source).checkpoint
            if holds_all_below(checkpoint, watermark, self.topic):
                return
            if time.monotonic() > deadline:
                raise Standstill(
                    f"lag: the replica did not reach the fence within {settings.timeout:g} s:"
                    " is the sink running?"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    @contextmanager
    def replica_read(self) -> Iterator[tuple[RangeReader, ReplicaState]]:
        """One snapshot of the replica, in which the table claims to be whole."""
        settings = self.parts.settings
        with self.parts.replica.read(self.table, settings.sink, settings.source) as (reader, state):
            self.parked = sum(one.collection == self.collection for one in state.checkpoint.parked)
            claimed = state.checkpoint.tables.get(self.collection)
            if claimed in ("backfilling", "stale"):
                raise Inconclusive(
                    "backfilling: verify again when the copy is done"
                    if claimed == "backfilling"
                    else f"stale: cdc table backfill FILE --table {self.table.id} brings it back"
                )
            yield reader, state
