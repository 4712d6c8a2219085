"""What a run works with, and what one table's passes share: fences that follow each other, and a replica to wait for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cdc.fence import Fence, Watermark
from cdc.protocols import EventDecoder, RangeReader, ReplicaSide, ReplicaState, SourceSide
from cdc.table import Table
from cdc.verify.fences import FenceLog
from cdc.verify.history import holds_all_below
from cdc.verify.inconclusive import Inconclusive
from cdc.verify.settings import VerifySettings
from cdc.verify.window import DataWindow

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


class Fencing:
    """The fences of one table's verification. Each published one is the ``low`` of those that follow.

    Construction emits a mark and waits for it, so that a capture or a sink that stands still shows at once.
    Every method that waits raises Inconclusive when its time is up.
    """

    def __init__(self, parts: Parts, table: Table) -> None:
        self.parts = parts
        self.table = table
        self.topic = f"{parts.settings.source}.{table.id}"
        self._count = 0
        fence = self.new_id()
        snapshot = parts.source.snapshot()
        parts.source.mark(Fence(fence, "mark", parts.settings.source, table.id, snapshot))
        self.low: Watermark = parts.fences.wait(fence)
        self.await_replica(self.low)

    def new_id(self) -> str:
        """For the next fence; unique over all runs."""
        self._count += 1
        return f"{self.parts.run}.{self.table.id}.{self._count}"

    def published(self, fence: str) -> Watermark:
        """Wait for the fence's watermark, which becomes ``low``. A void one is a place in the log like any other."""
        self.low = self.parts.fences.wait(fence)
        return self.low

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
                raise Inconclusive(
                    f"lag: the replica did not reach the fence within {settings.timeout:g} s"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    @contextmanager
    def replica_read(self) -> Iterator[tuple[RangeReader, ReplicaState]]:
        """One snapshot of the replica, in which the table claims to be whole."""
        settings = self.parts.settings
        with self.parts.replica.read(self.table, settings.sink, settings.source) as (reader, state):
            claimed = state.checkpoint.tables.get(str(self.table.id), "live")
            if claimed in ("backfilling", "stale"):
                raise Inconclusive(claimed)
            yield reader, state
