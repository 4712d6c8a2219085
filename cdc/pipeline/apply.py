"""The trip of a change from its topic to the replica, in whole source transactions (``apply.mode=transaction``).

One task reads all that it selects of one source. Everything it needs to go on stands in the replica, in the same
store transaction as the rows: so whatever breaks, it claims the checkpoint again and continues from what that says.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cdc.checkpoint import ParkedKey, SinkCheckpoint, TableState
from cdc.errors import Failed, Refused, Unreachable
from cdc.pipeline.commit_size import CommitSize
from cdc.pipeline.intake import Intake
from cdc.pipeline.missing_rows import MissingRows
from cdc.pipeline.parked import ParkedKeys
from cdc.pipeline.parking import Parking
from cdc.pipeline.records_again import RecordsAgain
from cdc.pipeline.replica_writer import ReplicaWriter, Writing
from cdc.pipeline.retry import Backoff
from cdc.pipeline.selection import Selection
from cdc.pipeline.subscription import find_start
from cdc.pipeline.transactions import Group, Reread
from cdc.pipeline.unreadable import UnreadableRecord
from cdc.position import Position
from cdc.protocols import DeadLetterTopic, EventDecoder, Shape, Store, TopicReader
from cdc.telemetry import METRICS

log = logging.getLogger(__name__)

_IDLE_READ = 0.1  # seconds; a reader returns as soon as something is there
_BUSY_READ = 0.01
_SAVE_OFFSETS = 1.0  # seconds after which offsets that moved without a transaction are saved
_LOOK = 1.0


@dataclass(frozen=True, slots=True)
class ApplySettings:
    """How much one sink task holds and commits at once.

    ``memory_bytes`` bounds the events in memory. A commit is cut at ``commit_bytes``, or at less where that many would
    take longer than ``commit_seconds`` and round trips are not what takes the time (`cdc.pipeline.commit_size`). ``stall_seconds`` is the silence after which a gap is looked for; ``backoff``
    the first and the longest pause, in seconds, between two attempts to reach a server.
    """

    memory_bytes: int = 64 << 20
    commit_bytes: int = 16 << 20
    commit_seconds: float = 0.25
    stall_seconds: float = 2.0
    backoff: tuple[float, float] = (0.1, 10.0)


@dataclass(slots=True)
class ApplyStatus:
    """How far one sink task is. ``position`` is in the replica; counters begin with the process.

    ``oldest_ms`` is when the source committed the oldest transaction that has arrived and is not in the replica yet
    (milliseconds since 1970); 0 when there is none. ``faults`` are rows that were not in the replica, or other ones;
    ``parked`` counts parked keys by collection. Not ``dated``: nothing tells when the source committed what came.
    """

    state: Literal["starting", "running", "away", "stopped"] = "starting"
    position: Position | None = None
    events: int = 0
    transactions: int = 0
    commits: int = 0
    bytes_held: int = 0
    streaming: bool = False
    tables: dict[str, TableState] = field(default_factory=dict)
    trouble: str = ""
    remedy: str = ""
    oldest_ms: int = 0
    faults: MissingRows = field(default_factory=MissingRows)
    dated: bool = True
    parked: Mapping[str, int] = field(default_factory=dict)

    def lag_seconds(self, now: float) -> float | None:
        """How long the replica has been behind the source at ``now`` (seconds since 1970), as far as is known.

        0 when all that has arrived is applied, however long nothing came; None while that cannot be told.
        """
        if self.oldest_ms:
            return max(0.0, now - self.oldest_ms / 1000)
        return 0.0 if self.state == "running" and self.dated else None


class Applier:
    """Applies one source to one replica, for ``sink`` (its name keys the checkpoint).

    ``open_reader`` is called again after every outage; ``open_store`` once, so that the store knows who claimed it
    before. ``dead_letters`` takes what can never be applied (``errors.tolerance=all``); without it such a record stops
    the task. ``on_progress`` is called after each
    commit and each change of state, with the one status object that also stands in ``status``.
    """

    def __init__(
        self,
        sink: str,
        selection: Selection,
        open_reader: Callable[[], TopicReader],
        open_store: Callable[[], Store],
        decoder: EventDecoder,
        settings: ApplySettings | None = None,
        on_progress: Callable[[ApplyStatus], None] | None = None,
        *,
        dead_letters: DeadLetterTopic | None = None,
    ) -> None:
        self._sink = sink
        self._selection = selection
        self._open_reader = open_reader
        self._open_store = open_store
        self._decoder = decoder
        self._settings = settings or ApplySettings()
        self._dead_letters = dead_letters
        self._on_progress = on_progress or (lambda _: None)
        self.status = ApplyStatus()

    def run(self, stop: Callable[[], bool]) -> None:
        """Apply until ``stop`` says so; then what is complete is committed, and the rest is left to the next start.

        Servers that are away are awaited, for ever. Raises Fenced, Refused, Failed and ConfigError at once.
        """
        backoff = Backoff(*self._settings.backoff)
        again: Reread | None = None
        store = self._open_store()
        while not stop():
            commits = self.status.commits
            try:
                self._run_until_trouble(store, stop, again)
            except Reread as reread:
                again = reread
                log.info("reading again from the replica's checkpoint: %s", reread)
            except Unreachable as error:
                again = None
                if self.status.commits > commits:
                    backoff.reset()
                self._away(error)
                backoff.pause(stop)
        self._report("stopped")

    def _parking(self, parked: Sequence[ParkedKey]) -> Parking | None:
        """What sets aside and keeps aside; None where nothing may be. Failed where something is, all the same."""
        if self._dead_letters is not None:
            return Parking(self._sink, parked, self._dead_letters, RecordsAgain(self._open_reader))
        if parked:
            raise Failed(
                f"{len(parked)} keys are parked, the first one of {parked[0].collection}: their changes cannot be"
                " applied in order under errors.tolerance=none",
                "set errors.tolerance=all, or bring them back before: cdc deadletter replay",
            )
        return None

    def _run_until_trouble(
        self, store: Store, stop: Callable[[], bool], again: Reread | None
    ) -> None:
        try:
            reader = self._open_reader()
            try:
                session = _Session(self, store, reader, again)
                self._report("running")
                session.run(stop)
            finally:
                reader.close()
        finally:
            store.close()
            if self._dead_letters is not None:
                self._dead_letters.close()

    def _away(self, error: Unreachable) -> None:
        if self.status.state != "away" or self.status.trouble != error.what:
            log.warning("waiting: %s", error)
        self._report("away", error)

    def _report(
        self,
        state: Literal["starting", "running", "away", "stopped"],
        trouble: Unreachable | None = None,
    ) -> None:
        if state == "running" and self.status.state == "away":
            log.info("going on: what was away is back")
        self.status.state = state
        self.status.trouble = trouble.what if trouble else ""
        self.status.remedy = trouble.remedy if trouble else ""
        self._on_progress(self.status)


class _Session:
    """From one claim of the checkpoint to the next."""

    def __init__(
        self, applier: Applier, store: Store, reader: TopicReader, again: Reread | None
    ) -> None:
        self._settings = applier._settings  # noqa: SLF001 - the applier's own inside
        self._status = applier.status
        self._on_progress = applier._on_progress  # noqa: SLF001
        selection = applier._selection  # noqa: SLF001
        decoder = applier._decoder  # noqa: SLF001
        self._store = store
        checkpoint = store.claim(applier._sink, selection.prefix)  # noqa: SLF001
        self._parking = applier._parking(checkpoint.parked)  # noqa: SLF001
        start = find_start(reader, decoder, selection, checkpoint)
        self._source = selection.prefix
        self._cluster_id = reader.cluster_id()
        self._position = checkpoint.position
        self._status.position = checkpoint.position
        self._status.tables = dict(checkpoint.tables)
        self._status.faults.claimed()
        self._tell_parked(ParkedKeys(checkpoint.parked).by_collection())
        self._intake = Intake(
            reader,
            decoder,
            selection,
            checkpoint,
            start,
            self._settings.memory_bytes,
            again,
            tolerant=self._parking is not None,
        )
        self._new_since: Mapping[str, int] = start.new_since
        self._joining: Mapping[str, TableState] = dict.fromkeys(start.new_since, "backfilling")
        self._commit_size = CommitSize(self._settings.commit_bytes, self._settings.commit_seconds)
        self._handed_over: deque[Writing] = deque()
        self._last_saved = self._last_looked = self._last_news = time.monotonic()

    def run(self, stop: Callable[[], bool]) -> None:
        self._writer = ReplicaWriter(self._store, self._parking)
        try:
            if self._new_since:
                self._write(None, self._position, self._joining)
            while not stop():
                self._turn()
            self._drain()
        finally:
            self._writer.close()

    def _turn(self) -> None:
        """Hand over what is complete, then take in more."""
        assembler = self._intake.assembler
        self._settle(0.0)
        self._hand_over()
        if assembler.lent_size and assembler.nearly_full:
            # What is read now would mostly find no room, and be read again: the writer makes some first.
            self._settle(_IDLE_READ)
            return
        came = self._intake.read(_BUSY_READ if assembler.lent_size else _IDLE_READ)
        self._intake.readmit()
        self._look_around(came)
        self._note_oldest(came)

    def _note_oldest(self, came: bool) -> None:  # noqa: FBT001 - one call, above
        """Between two readings of a backlog everything may be applied: only silence says that nothing is left."""
        waiting = (writing.oldest_ms for writing in self._handed_over if writing.oldest_ms)
        head = self._intake.assembler.head
        oldest = next(waiting, head.commit_ms if head is not None else 0)
        if oldest or not (came or self._handed_over):
            self._status.oldest_ms = oldest

    def _hand_over(self) -> None:
        """To the writer: complete transactions with their checkpoint, or a part of one that is too large to hold."""
        intake = self._intake
        assembler = intake.assembler
        if not self._writer.ready():
            return
        intake.account()
        group = assembler.take(self._commit_size.bytes)
        if group is None and assembler.pressed:
            intake.presume()
            part = assembler.take_part()
            if part is not None:
                unreadable = intake.unreadable.take(assembler.holds)
                self._give(Writing(part.events, part.size, 0, None, unreadable=unreadable))
        if assembler.streaming:
            return
        position, tables = intake.watermarks.take(assembler)
        position = max(
            (p for p in (self._position, group and group.position, position) if p), default=None
        )
        unreadable = intake.unreadable.take(assembler.holds)
        if group or tables or unreadable or position != self._position or self._offsets_due():
            self._write(group, position, tables, intake.watermarks.take_shapes(), unreadable)

    def _write(
        self,
        group: Group | None,
        position: Position | None,
        tables: Mapping[str, TableState],
        shapes: Sequence[Shape] = (),
        unreadable: Sequence[UnreadableRecord] = (),
    ) -> None:
        checkpoint = SinkCheckpoint(
            source=self._source,
            position=position,
            cluster_id=self._cluster_id,
            offsets=self._intake.offsets.changed(),
            tables=tables,
            since=self._new_since,
        )
        self._position = position
        self._new_since = {}
        self._last_saved = time.monotonic()
        group = group or Group([], 0, 0, None)
        self._give(
            Writing(
                group.events,
                group.size,
                group.transactions,
                checkpoint,
                shapes,
                group.oldest_ms,
                unreadable,
            )
        )

    def _give(self, writing: Writing) -> None:
        self._handed_over.append(writing)
        self._writer.hand_over(writing)

    def _settle(self, timeout: float) -> None:
        """Account for what the writer has finished; raises what the store raised."""
        for writing in self._writer.finished(timeout):
            self._last_news = time.monotonic()
            self._handed_over.popleft()
            self._intake.assembler.give_back(writing.size)
            self._status.events += len(writing.events)
            self._status.transactions += writing.transactions
            self._status.bytes_held = self._intake.assembler.used
            self._status.streaming = self._intake.assembler.streaming
            if writing.checkpoint is not None:
                self._status.commits += 1
                self._status.position = writing.checkpoint.position
                self._status.tables.update(writing.checkpoint.tables)
                self._tell_parked(writing.parked)
                self._status.faults.look(self._store)
                self._commit_size.learn(writing.size, writing.seconds)
                self._on_progress(self._status)

    def _tell_parked(self, parked: Mapping[str, int]) -> None:
        for table in self._status.parked.keys() | parked.keys():
            METRICS.gauge(
                "cdc_sink_parked_keys", "Keys kept out of the replica.", {"table": table}
            ).set(parked.get(table, 0))
        self._status.parked = parked

    def _offsets_due(self) -> bool:
        """Tombstones and records of no concern move offsets too, though no transaction follows."""
        due = time.monotonic() - self._last_saved >= _SAVE_OFFSETS
        if due:
            self._last_saved = time.monotonic()
        return due and self._intake.offsets.any_changed()

    def _look_around(self, came: bool) -> None:  # noqa: FBT001 - one call, above
        now = time.monotonic()
        if came or self._intake.assembler.lent_size:
            self._last_news = now
        elif now - self._last_news >= self._settings.stall_seconds:
            self._last_news = now
            if missing := self._intake.stalled():
                raise Refused(
                    f"incomplete transaction: rows of {missing} are missing, later ones are there",
                    "compare the topic's retention and cleanup.policy; then cdc table backfill and verify",
                )
        if now - self._last_looked >= _LOOK:
            self._last_looked = now
            self._intake.look_for_topics()

    def _drain(self) -> None:
        """Commit what is complete, wait for the writer; a part of a transaction is rolled back with it."""
        assembler = self._intake.assembler
        while True:
            self._last_saved = 0.0
            self._hand_over()
            self._settle(_IDLE_READ if assembler.lent_size or not self._writer.ready() else 0.0)
            if self._writer.idle and (assembler.streaming or not self._more()):
                return

    def _more(self) -> bool:
        return self._intake.assembler.head_is_complete or self._intake.offsets.any_changed()
