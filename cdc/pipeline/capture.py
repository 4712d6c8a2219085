"""From the source's log to the topics: one loop, one producer, in log order.

    log -> items -> records -> topics        (changes, BEGIN/END)
    fence met -> rows read before it enter -> once acknowledged, its watermark
    acknowledged -> checkpoint -> the source may forget

A failure anywhere ends the loop with an error; whoever runs it starts anew from the checkpoint, and what was sent behind
the checkpoint is sent again under the same positions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from cdc.checkpoint import BackfillProgress, Pin, SourceCheckpoint
from cdc.errors import Unreachable
from cdc.event import (
    Begin,
    Change,
    Commit,
    Item,
    Message,
    Progress,
    Record,
    SchemaChange,
    Truncate,
)
from cdc.failure_points import reach
from cdc.fence import OUR_MESSAGES, Fence, Signal, Watermark
from cdc.pipeline.admission import Admission
from cdc.pipeline.backfill import MOST_ROWS, Backfill
from cdc.pipeline.delivery import Delivery
from cdc.pipeline.fences import FenceJudge
from cdc.pipeline.reading import Readers
from cdc.pipeline.requests import request_of
from cdc.pipeline.row_schemas import RowSchemas
from cdc.pipeline.schema_changes import Followed, SchemaChanges
from cdc.pipeline.source_progress import Step
from cdc.protocols import CheckpointTopic, EventEncoder, Source, TopicWriter
from cdc.table import Table, TableId

log = logging.getLogger(__name__)

_NONE: Mapping[TableId, BackfillProgress] = MappingProxyType({})
_LOOK_SECONDS = 0.5
_PATIENCE = 0.1
_PATIENCE_WHEN_BUSY = 0.005


@dataclass(slots=True)
class CaptureStatistics:
    """Counters since the start, for status and benchmarks.

    ``commit_us`` is when the newest transaction that was met committed; 0 once all that came is acknowledged.
    ``waiting`` says what copies wait for, empty when for nothing.
    """

    events: int = 0
    transactions: int = 0
    backfilled: int = 0
    lsn: int = 0
    commit_us: int = 0
    waiting: str = ""


class Capture:
    """One source's capture, from ``checkpoint`` on. `run` returns when told to stop, everything stored.

    ``partitions`` gives a topic's partition count, making the topic where it is missing; ``pinned`` tells all topics
    that it was asked for. Where checkpoints are atomic, records and checkpoint are committed after ``commit_seconds``, at
    the end of a source transaction. ``heartbeat`` gives the records of a heartbeat that is due. For
    ``stale_if_incompatible`` see `RowSchemas`. The source is started here; its owner closes it.
    """

    def __init__(
        self,
        *,
        connector: str,
        prefix: str,
        source: Source,
        encoder: EventEncoder,
        writer: TopicWriter,
        checkpoints: CheckpointTopic,
        checkpoint: SourceCheckpoint,
        readers: Readers,
        partitions: Callable[[str], int],
        pinned: Callable[[], Mapping[str, Pin]],
        most_rows: int = MOST_ROWS,
        commit_seconds: float = 0.1,
        heartbeat: Callable[[], Sequence[Record]] = tuple,
        stale_if_incompatible: bool = False,
    ) -> None:
        self._prefix = prefix
        self._source = source
        self._encoder = encoder
        self._readers = readers
        self._heartbeat = heartbeat
        self._generation = checkpoint.generation
        self._judge = FenceJudge(source.snapshot(), checkpoint.unseen, checkpoint.floor)
        self._delivery = Delivery(
            connector=connector,
            source=source,
            encoder=encoder,
            writer=writer,
            checkpoints=checkpoints,
            checkpoint=checkpoint,
            partitions=partitions,
            pinned=pinned,
            judge=self._judge,
            watermark_topic=f"{prefix}.watermark",
            commit_seconds=commit_seconds,
        )
        self._backfill = Backfill(
            readers,
            self._judge,
            checkpoint.generation,
            checkpoint.backfills,
            checkpoint.signals,
            self._old_transactions_ended,
            checkpoint.admitted,
            most_rows=most_rows,
        )
        self._skipped = ""
        self._captured = set(checkpoint.backfills)
        self._schema_changes = SchemaChanges()
        stale = [t for t, progress in checkpoint.backfills.items() if progress.state == "stale"]
        self._row_schemas = RowSchemas(encoder, stale, tolerant=stale_if_incompatible)
        self._look_due = 0.0
        self._floor_passed = -1
        self._floor_look_due = 0.0
        self.statistics = CaptureStatistics()

    def run(self, stop: Callable[[], bool], on_stream: Callable[[], None] = lambda: None) -> None:
        """Capture until ``stop`` says so. What was sent is acknowledged, stored and confirmed on return.

        ``on_stream`` is called once the source streams: until then it may be another's, or away.
        """
        try:
            self._begin()
            on_stream()
            while not stop():
                self._turn()
            self._delivery.drain()
        finally:
            self._delivery.close()
            self._readers.close()

    @property
    def stored(self) -> SourceCheckpoint:
        """The checkpoint that is durable."""
        return self._delivery.stored

    @property
    def copied(self) -> bool:
        """Whether it is stored that every table is copied and nothing is to be read again."""
        stored = self._delivery.stored
        return not stored.signals and all(
            progress.state == "done" for progress in stored.backfills.values()
        )

    def _begin(self) -> None:
        self._open_copies()
        self._source.start(self._delivery.stored.lsn, self._delivery.stored.memos)

    def _turn(self) -> None:
        busy = self._delivery.busy or self._backfill.busy
        patience = _PATIENCE_WHEN_BUSY if busy else _PATIENCE
        items = self._source.read(patience)
        if not items and not self._delivery.outstanding:
            self.statistics.commit_us = 0
        if items:
            reach("capture.after-read")
            self._take(items)
            reach("capture.after-write")
        self._backfill.step()
        self._amend()
        self._delivery.write(self._heartbeat())
        self._delivery.settle()
        self._look()

    # --- from the log to the topics --------------------------------------------------------------------------

    def _take(self, items: Sequence[Item]) -> None:
        run: list[Change] = []
        for item in items:
            if type(item) is Change:
                run.append(item)
                continue
            if run:
                self._changes(run)
                run = []
            match item:
                case Begin():
                    self._encoder.begin(item.xid, item.commit_lsn, item.commit_us)
                    self._judge.begin(item.xid, item.commit_lsn)
                    self._skipped = self._delivery.stored.skips(item.commit_lsn)
                    self._delivery.begin(item.commit_lsn)
                    self.statistics.commit_us = item.commit_us
                case Commit():
                    self._delivery.write(self._encoder.end())
                    self._mark(Step(item.end_lsn, item.commit_lsn, settled=True))
                    self._judge.reached(item.end_lsn)
                    self.statistics.transactions += 1
                    self._delivery.end()
                    self._follow_changes(item.end_lsn)
                    self._delivery.between()
                case Truncate():
                    self._judge.truncated(item.table.id)
                    if "t" not in self._skipped and self._row_schemas.take(item.table):
                        self._delivery.write(self._encoder.truncate(item))
                case SchemaChange():
                    self._schema_change(item)
                case Message():
                    self._message(item)
                case Progress():
                    self._mark(Step(item.lsn, settled=True))
                    self._judge.reached(item.lsn)
        if run:
            self._changes(run)

    def _changes(self, changes: list[Change]) -> None:
        self._judge.changed(changes)
        sent = self._row_schemas.sent(changes)
        self._delivery.write(self._encoder.changes(sent))
        self.statistics.events += len(sent)
        moved: dict[TableId, list[Change]] = {}
        for change in sent:
            if change.unchanged and change.other_key is not None and change.key is not None:
                moved.setdefault(change.table.id, []).append(change)
        for table, rows in moved.items():
            self._read_moved_rows(table, rows)

    def _read_moved_rows(self, table: TableId, rows: Sequence[Change]) -> None:
        """Rows got new keys and the log does not carry them whole: they are read again under a fence."""
        # The name says which rows, so that a replay which cuts the transaction elsewhere does not reuse it.
        name = f"moved-{rows[0].lsn}-{rows[0].total_order}-{rows[-1].total_order}"
        parts = self._backfill.read_again(name, table, (row.key for row in rows if row.key))
        self._mark(Step(self._delivery.lsn, new_signals=parts, settled=True))

    def _message(self, message: Message) -> None:
        if not message.prefix.startswith(OUR_MESSAGES):
            if not message.transactional:
                self._delivery.at(message.lsn - 1)
            self._delivery.write(self._encoder.message(message))
            if not message.transactional:
                self._mark(Step(message.lsn, settled=True))
            return
        request = request_of(message, self._prefix)
        if isinstance(request, Fence):
            self._fence(request, message.lsn)
        elif request is not None:
            self._signal(request, message.lsn)

    # --- tables that change ----------------------------------------------------------------------------------

    def _schema_change(self, change: SchemaChange) -> None:
        self._schema_changes.add(change)
        if change.what == "anew" and change.shape is not None:
            self._judge.truncated(change.table)
            if self._row_schemas.take(change.shape):
                truncate = Truncate(change.shape, change.lsn, change.total_order)
                self._delivery.write(self._encoder.truncate(truncate))

    def _follow_changes(self, lsn: int) -> None:
        """Behind a commit, whatever it has changed."""
        changed = self._schema_changes.take()
        joining = [
            table
            for table, followed in changed
            if followed.joins and (followed.replaced or table not in self._captured)
        ]
        for table, followed in changed:
            if table in self._captured and table not in joining:
                self._follow(table, followed, lsn)
        self._tell_stale(lsn)
        if joining:
            self._take_in(joining)

    def _follow(self, table: TableId, followed: Followed, lsn: int) -> None:
        """Behind a commit that changed the table."""
        if followed.gone:
            log.warning("%s is gone: replicas keep its last rows, as stale", table)
            self._tell(table, lsn, phase="stale")
            self._forget(table)
            return
        if self._row_schemas.stale(table):
            return
        if followed.shape is not None and self._row_schemas.take(followed.shape):
            self._tell(table, lsn, shape=followed.shape, memo=followed.memo)
        if followed.stale:
            log.warning("%s lost rows without events: cdc verify run --repair removes them", table)
            self._tell(table, lsn, phase="stale")
        if followed.rewritten and not self._row_schemas.stale(table):
            log.warning("%s has values that no event tells: it is copied anew", table)
            self._admit(self._backfill.open(table, lsn))

    def _tell(
        self,
        table: TableId,
        lsn: int,
        *,
        phase: Literal["", "stale"] = "",
        shape: Table | None = None,
        memo: str = "",
        progress: Mapping[TableId, BackfillProgress] = _NONE,
    ) -> None:
        name = f"schema-{table}-{lsn}{phase}"
        mark = Watermark(name, "mark", table, self._generation, lsn, {}, phase=phase, shape=shape)
        memos = {table: memo} if memo else {}
        self._mark(Step(lsn, watermark=mark, memos=memos, progress=progress))

    def _tell_stale(self, lsn: int) -> None:
        for table in self._row_schemas.newly_stale():
            self._tell(table, lsn, phase="stale", progress=self._backfill.stale(table))

    def _forget(self, table: TableId) -> None:
        self._captured.discard(table)
        self._backfill.give_up(table)
        self._amend()

    def _take_in(self, tables: Sequence[TableId]) -> None:
        """Tables join in the way they do at a start: publication first, then a copy."""
        for table in tables:
            if table in self._captured:
                self._forget(table)
        self._delivery.drain()
        raise Unreachable(
            f"{', '.join(map(str, tables))}: new among the tables to capture",
            "capture starts anew, with them",
        )

    # --- fences and signals ----------------------------------------------------------------------------------

    def _fence(self, fence: Fence, lsn: int) -> None:
        self._judge.reached(lsn - 1)
        if fence.kind in ("backfill", "repair"):
            self._admit(self._backfill.at_fence(fence, lsn))
        else:
            void = self._judge.judge(fence).void
            mark = Watermark(
                fence.id, fence.kind, fence.table, self._generation, lsn, {}, void=void
            )
            self._mark(Step(lsn, watermark=mark))
        self._judge.reached(lsn)

    def _signal(self, signal: Signal, lsn: int) -> None:
        keys = {table.id: table.key for table in self._source.tables()}
        if signal.table not in keys:
            log.warning("signal %s is ignored: %s is not captured", signal.id, signal.table)
        elif not keys[signal.table]:
            log.warning(
                "signal %s is ignored: %s has no key to be read by", signal.id, signal.table
            )
        elif signal.type == "add":
            self._add(signal, lsn)
        elif signal.type == "backfill":
            self._row_schemas.again(signal.table)
            self._admit(self._backfill.open(signal.table, lsn, signal.id))
        elif not self._row_schemas.stale(signal.table):
            self._mark(Step(lsn, new_signals=self._backfill.take(signal), settled=True))

    def _add(self, signal: Signal, lsn: int) -> None:
        """A table joins: changes that were made before the publication held it come with its copy."""
        if signal.table in self._delivery.stored.backfills:
            log.info("%s is captured already", signal.table)
            return
        log.info("%s joins", signal.table)
        self._captured.add(signal.table)
        self._judge.raise_floor(self._source.snapshot().xmax)
        self._admit(self._backfill.open(signal.table, lsn, signal.id))

    def _admit(self, admission: Admission) -> None:
        """Rows of a fence are a transaction of their own, just below the fence."""
        mark = admission.watermark
        if mark.shape is not None and not self._row_schemas.take(mark.shape):
            mark = replace(mark, shape=None)
        if admission.changes or admission.withdrawn:
            self._encoder.begin(0, mark.lsn - 1, time.time_ns() // 1000, "incremental")
        self._delivery.at(mark.lsn - 1)
        if admission.withdrawn:
            self._delivery.write(self._encoder.withdraw())
        if admission.changes:
            sent = self._row_schemas.sent(admission.changes)
            self._delivery.write(self._encoder.changes(sent))
            self._delivery.write(self._encoder.end())
            self.statistics.backfilled += len(sent)
        if mark.phase in ("open", "final"):
            log.info("backfill of %s: %s", mark.table, "begins" if mark.phase == "open" else "done")
        self._mark(
            Step(
                mark.lsn,
                watermark=mark,
                progress=admission.progress,
                new_signals=admission.new_signals,
                finished=admission.finished,
            )
        )
        self._tell_stale(mark.lsn)

    def _amend(self) -> None:
        """Reads that can never be made as they were asked for change the checkpoint, from here on in the log."""
        for amendment in self._backfill.amendments():
            self._mark(
                Step(
                    self._delivery.lsn,
                    progress=amendment.progress,
                    finished=amendment.finished,
                    gone=amendment.gone,
                    settled=True,
                )
            )

    def _open_copies(self) -> None:
        """Tables that wait for their first copy: what the log brings from here on belongs to a copy under way."""
        for table, entry in self._delivery.stored.backfills.items():
            if entry.state == "waiting":
                self._admit(self._backfill.open(table, self._delivery.stored.lsn))

    def _old_transactions_ended(self) -> bool:
        """Whether transactions that may hold rows which the slot never delivers have all ended."""
        floor = self._judge.floor
        now = time.monotonic()
        if self._floor_passed < floor and now >= self._floor_look_due:
            self._floor_look_due = now + _LOOK_SECONDS
            if self._source.snapshot().xmin >= floor:
                self._floor_passed = floor
                self.statistics.waiting = ""
            elif blocker := self._source.waiting_for(floor):
                if not self.statistics.waiting:
                    log.warning("copies wait for a transaction older than the slot: %s", blocker)
                self.statistics.waiting = (
                    f"copies wait for a transaction older than the slot: {blocker}"
                )
        return self._floor_passed >= floor

    def _look(self) -> None:
        """Ask the source which transactions every reader sees by now, so that the judge may forget them."""
        now = time.monotonic()
        if now >= self._look_due and not self._judge.all_settled:
            self._judge.settle(self._source.horizon())
            self._look_due = now + _LOOK_SECONDS

    def _mark(self, step: Step) -> None:
        self.statistics.lsn = max(self.statistics.lsn, step.lsn)
        self._delivery.mark(step)
