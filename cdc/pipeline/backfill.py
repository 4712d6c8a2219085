"""Brings the rows that the log does not hold: first copies, and rows to be read again.

Range by range, each under a fence: what the read saw enters the stream at the fence's place in the log, except keys
that transactions outside its snapshot touched, which are the log's (or, where the log alone does not give the whole
row, are read again). No long transaction, no lock but ACCESS SHARE for a range's time, and the stream goes on.
Everything here is bookkeeping: reads happen in other processes, sending happens in capture.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from cdc.checkpoint import BackfillProgress
from cdc.errors import CdcError, Gone, Rejected, Unreachable
from cdc.event import Change, Rows
from cdc.fence import Fence, Signal, Watermark
from cdc.pipeline.fences import FenceJudge, Judgement
from cdc.pipeline.reading import Job, Read, Readers
from cdc.table import Table, TableId

log = logging.getLogger(__name__)

_FIRST_ROWS = 1_000
MOST_ROWS = 20_000
"""Rows of one range, unless it is told otherwise."""
_TARGET_BYTES = 2 << 20
_READS_AHEAD = 2
_KEYS_AT_ONCE = 2_000
_RETRY_SECONDS = 1.0

OUR_OWN = ""
"""The source of signals that capture made for itself: nobody waits for the fence that has their name."""


@dataclass(slots=True)
class _Flight:
    """A read that was asked for and whose fence has not been met; of a range, or of the keys of ``signals``."""

    job: Job
    read_from: int
    signals: tuple[Signal, ...]
    rows: Rows | None = None


@dataclass(slots=True)
class _Copy:
    """The first copy of one table: ranges follow each other by key.

    ``owed`` are the signals whose rows must be read again before the copy is whole, once the last range is in: those
    that were waiting then. Later ones find every row in the replica, so the copy does not wait for them (a table whose
    keys keep changing would be copied for ever). ``key`` is what the keys of its ranges are encoded by.
    """

    table: TableId
    next_after: bytes | None
    exhausted: bool = False
    limit: int = _FIRST_ROWS
    flights: deque[_Flight] = field(default_factory=deque)
    owed: set[str] | None = None
    key: str = ""

    @property
    def whole(self) -> bool:
        """Whether everything that the copy needs has entered the stream."""
        return self.owed is not None and not self.owed

    def may_read(self) -> bool:
        """The next range begins behind the last row of the one before, so that one must have arrived."""
        return (
            not self.exhausted
            and len(self.flights) < _READS_AHEAD
            and all(flight.rows is not None for flight in self.flights)
        )


@dataclass(frozen=True, slots=True)
class Admission:
    """What enters the stream at a fence, and what is true once it is acknowledged.

    ``watermark`` lacks only its end offsets. ``progress`` and the two lists of signals go into the checkpoint.
    ``withdrawn``: an earlier capture may have sent rows at this fence, and not all of them.
    """

    changes: list[Change]
    watermark: Watermark
    progress: Mapping[TableId, BackfillProgress] = field(default_factory=dict)
    new_signals: tuple[Signal, ...] = ()
    finished: frozenset[str] = frozenset()
    withdrawn: bool = False


@dataclass(frozen=True, slots=True)
class Amendment:
    """What reads that can never be made as they were asked for change in the checkpoint.

    ``gone`` are tables that cannot be read any more. ``progress`` are copies that begin again, ``finished`` signals
    that such a copy answers.
    """

    gone: frozenset[TableId] = frozenset()
    progress: Mapping[TableId, BackfillProgress] = field(default_factory=dict)
    finished: frozenset[str] = frozenset()


class Backfill:
    """All reads of one capture.

    ``progress`` and ``signals`` come from the checkpoint. ``may_read`` tells whether transactions that began before
    the slot or the publication could deliver them have ended (`FenceJudge.floor`). ``admitted``: see
    `cdc.checkpoint.SourceCheckpoint`.
    """

    def __init__(
        self,
        readers: Readers,
        judge: FenceJudge,
        generation: int,
        progress: Mapping[TableId, BackfillProgress],
        signals: Iterable[Signal],
        may_read: Callable[[], bool],
        admitted: Iterable[int] = (),
        most_rows: int = MOST_ROWS,
    ) -> None:
        self._most_rows = most_rows
        self._readers = readers
        self._judge = judge
        self._generation = generation
        self._progress = dict(progress)
        self._may_read = may_read
        self._admitted = frozenset(admitted)
        self._copies: dict[TableId, _Copy] = {}
        self._rereads: deque[Signal] = deque(s for s in signals if s.type == "repair")
        self._reread_last = False
        self._flights: dict[str, _Flight] = {}
        self._shapes: dict[TableId, Table] = {}
        self._amendments: deque[Amendment] = deque()
        self._not_before = 0.0
        self._run = uuid.uuid4().hex[:12]
        self._asked = 0
        for table, entry in self._progress.items():
            if entry.state != "done":
                self._copies[table] = _Copy(table, entry.after, key=entry.key)

    @property
    def busy(self) -> bool:
        """Whether anything is left to read."""
        return bool(self._copies or self._rereads or self._flights)

    def open(self, table: TableId, lsn: int, signal: str = "") -> Admission:
        """Begin (or begin again) the copy of a table at this place of the log."""
        progress = BackfillProgress("running", None, lsn, 0, signal)
        self._drop_flights(table)
        self._progress[table] = progress
        self._copies[table] = _Copy(table, None)
        name = signal or f"open-{table}-{lsn}"
        mark = Watermark(name, "backfill", table, self._generation, lsn, {}, phase="open")
        return Admission([], mark, {table: progress})

    def take(self, signal: Signal) -> tuple[Signal, ...]:
        """Rows to be read again, in parts that are read at once; the last part keeps the signal's id.

        The checkpoint must hold the parts until an admission says that they are finished.
        """
        parts = tuple(
            replace(
                signal,
                id=signal.id
                if start + _KEYS_AT_ONCE >= len(signal.keys)
                else f"{signal.id}/{start}",
                keys=signal.keys[start : start + _KEYS_AT_ONCE],
            )
            for start in range(0, len(signal.keys), _KEYS_AT_ONCE)
        )
        self._rereads.extend(parts)
        return parts

    def step(self) -> None:
        """Collect reads that came in, ask for the next ones. Quick; raises what a reader failed of."""
        for read in self._readers.collect():
            self._arrived(read)
        self._ask_next()

    def _ask_next(self) -> None:
        while self.busy and self._readers.idle() and time.monotonic() >= self._not_before:
            if not self._may_read() or not self._ask():
                return

    def amendments(self) -> list[Amendment]:
        """What has come up since the last call; each belongs to the place that the log has been followed to."""
        found = list(self._amendments)
        self._amendments.clear()
        return found

    def copy_again(self, table: TableId) -> Mapping[TableId, BackfillProgress]:
        """Read all of a table, because its rows are more than can be asked for one by one; its progress from here."""
        before = self._progress.get(table) or BackfillProgress("running")
        progress = replace(before, state="running", after=None)
        self._drop_flights(table)
        self._progress[table] = progress
        self._copies[table] = _Copy(table, None)
        return {table: progress}

    def at_fence(self, fence: Fence, lsn: int) -> Admission:
        """Our own fence was met in the log at ``lsn``: its rows enter here, or its read is void."""
        for read in self._readers.collect(fence.id):
            self._arrived(read)
        # A fence comes nearly as soon as its rows: the next range is read while these are sent, not after.
        self._ask_next()
        flight = self._flights.pop(fence.id, None)
        if flight is None or flight.rows is None:
            return self._unknown(fence, lsn)
        self._judge.unwatch(flight.job.table)
        judgement = self._judge.judge(fence, flight.read_from)
        void = judgement.void or self._overtaken(flight)
        if void:
            self._ask_again(flight)
            return self._void(fence, lsn, void)
        if not flight.signals:
            return self._admit_range(flight, flight.rows, judgement, fence, lsn)
        return self._admit_keys(flight, flight.rows, judgement, lsn)

    # --- reads -----------------------------------------------------------------------------------------------

    def _ask(self) -> bool:
        """Ask for rows to be read again, and for ranges, in turn: neither must keep the other waiting for ever."""
        if self._rereads and not (self._reread_last and self._ask_range()):
            self._ask_keys()
            self._reread_last = True
            return True
        self._reread_last = False
        return self._ask_range()

    def _ask_keys(self) -> None:
        """Those of the first signal; with it, those of others of its table that nobody waits for by name."""
        signals = [self._rereads.popleft()]
        keys = dict.fromkeys(signals[0].keys)
        while self._rereads and _may_join(signals[0], self._rereads[0], len(keys)):
            signals.append(self._rereads.popleft())
            keys |= dict.fromkeys(signals[-1].keys)
        table = signals[0].table
        job = Job(self._fence_id(signals[0].id), table, keys=tuple(keys))
        self._give(_Flight(job, self._judge.watch(table), tuple(signals)))

    def _ask_range(self) -> bool:
        for copy in self._copies.values():
            if copy.may_read():
                limit = min(copy.limit, self._most_rows)
                job = Job(self._fence_id(str(copy.table)), copy.table, copy.next_after, limit)
                flight = _Flight(job, self._judge.watch(copy.table), ())
                copy.flights.append(flight)
                self._give(flight)
                return True
        return False

    def _give(self, flight: _Flight) -> None:
        self._flights[flight.job.fence] = flight
        self._readers.give(flight.job)

    def _arrived(self, read: Read) -> None:
        flight = self._flights.get(read.job.fence)
        if flight is None:
            return  # given up meanwhile
        if read.rows is None:
            assert read.error is not None
            self._failed(flight, read.error)
            return
        flight.rows = read.rows._replace(table=self._intern(read.rows.table))
        copy = self._copies.get(flight.job.table)
        if copy is not None and flight in copy.flights:
            key = _key_shape(flight.rows.table)
            if flight.job.after is not None and copy.key != key:
                self._failed(flight, Rejected("its key has changed"))
                return
            copy.key = key
            copy.next_after = read.rows.last
            copy.exhausted = read.rows.last is None
            copy.limit = min(_next_limit(copy.limit, read.rows), self._most_rows)

    def _failed(self, flight: _Flight, error: CdcError) -> None:
        """No fence follows, or one that is void."""
        table = flight.job.table
        del self._flights[flight.job.fence]
        self._judge.unwatch(table)
        match error:
            case Unreachable():
                self._not_before = time.monotonic() + _RETRY_SECONDS
                self._ask_again(flight)
            case Gone():
                log.warning(
                    "%s; it is not copied any further (when it is there again, restart the connector)",
                    error.what,
                )
                self.give_up(table)
            case Rejected():
                log.warning("%s is copied from its first key: %s", table, error.what)
                finished = frozenset(signal.id for signal in flight.signals)
                self._amendments.append(
                    Amendment(progress=self.copy_again(table), finished=finished)
                )
            case _:
                raise error

    def give_up(self, table: TableId) -> None:
        """Nothing of the table is read any more; an amendment says so."""
        self._drop_flights(table)
        for fence, flight in list(self._flights.items()):
            if flight.job.table == table:
                del self._flights[fence]
                self._judge.unwatch(table)
        self._copies.pop(table, None)
        self._progress.pop(table, None)
        self._rereads = deque(signal for signal in self._rereads if signal.table != table)
        self._amendments.append(Amendment(gone=frozenset({table})))

    def _ask_again(self, flight: _Flight) -> None:
        if flight.signals:
            self._rereads.extend(flight.signals)
        elif (copy := self._copies.get(flight.job.table)) is not None and flight in copy.flights:
            # Ranges behind this one began at its last row: they are read again with it.
            self._drop_flights(copy.table, first=flight)
            copy.next_after, copy.exhausted, copy.owed = flight.job.after, False, None

    def _overtaken(self, flight: _Flight) -> str:
        """Ranges enter in the order of their keys, whatever the order in which two readers let their fences go."""
        copy = self._copies.get(flight.job.table)
        if flight.signals or (copy is not None and copy.flights[0] is flight):
            return ""
        return "the range before this one has not entered yet"

    def _drop_flights(self, table: TableId, first: _Flight | None = None) -> None:
        """Give up the reads of this copy, or those from ``first`` on."""
        copy = self._copies.get(table)
        if copy is None:
            return
        while copy.flights:
            flight = copy.flights.pop()
            if self._flights.pop(flight.job.fence, None) is not None:
                self._judge.unwatch(table)
            if flight is first:
                return

    def _fence_id(self, name: str) -> str:
        """Unique for each attempt: the fence of an abandoned one may still be on its way."""
        self._asked += 1
        return f"{name}#{self._run}.{self._asked}"

    def _intern(self, table: Table) -> Table:
        """Tables that crossed a process boundary lost their identity."""
        known = self._shapes.get(table.id)
        if known is None or not known.same_shape(table):
            known = self._shapes[table.id] = table
        return known

    # --- admissions ------------------------------------------------------------------------------------------

    def _unknown(self, fence: Fence, lsn: int) -> Admission:
        """A fence without its read.

        One that this capture asked for has sent nothing. One that an earlier capture asked for may have sent a part of
        its rows, and an END that counts them all: nobody will ever send the others. Unless that one has noted that all
        were on the topics; then it may have called the fence valid, and what it sent stands.
        """
        if fence.id.rpartition("#")[2].startswith(f"{self._run}."):
            return self._void(fence, lsn, "its read was given up")
        void = self._void(fence, lsn, "its read was made before a restart")
        return replace(void, withdrawn=lsn not in self._admitted)

    def _void(self, fence: Fence, lsn: int, why: str) -> Admission:
        mark = Watermark(fence.id, fence.kind, fence.table, self._generation, lsn, {}, void=why)
        return Admission([], mark)

    def _admit_range(
        self, flight: _Flight, read: Rows, judgement: Judgement, fence: Fence, lsn: int
    ) -> Admission:
        table = flight.job.table
        copy = self._copies[table]
        copy.flights.popleft()
        changes = _reads(read.table, read.rows, judgement.touched, lsn)
        before = self._progress[table]
        again = self._read_again(table, judgement, (key for key, _ in read.rows), fence.id)
        progress = replace(
            before,
            state="running",
            after=read.last,
            rows=before.rows + len(changes),
            key=copy.key,
        )
        if read.last is None:
            # The key stays at the last range's start until the copy is done: a restart reads that range again.
            progress = replace(progress, after=flight.job.after)
            copy.owed = self._waiting_of(table)
        return self._finish(
            read.table,
            progress,
            changes,
            done=copy.whole,
            name=fence.id,
            lsn=lsn,
            again=again,
            finished=frozenset(),
        )

    def _admit_keys(
        self,
        flight: _Flight,
        read: Rows,
        judgement: Judgement,
        lsn: int,
    ) -> Admission:
        table = flight.job.table
        changes = _reads(read.table, read.rows, judgement.touched, lsn)
        found = {key for key, _ in read.rows}
        for key in flight.job.keys or ():
            if key not in found and key not in judgement.touched:
                changes.append(Change(read.table, "d", lsn - 1, len(changes) + 1, key, None, None))
        ids = frozenset(signal.id for signal in flight.signals)
        name = flight.signals[0].id
        again = self._read_again(table, judgement, flight.job.keys or (), name)
        copy = self._copies.get(table)
        if copy is not None and copy.owed:
            if copy.owed & ids:
                copy.owed |= {signal.id for signal in again}
            copy.owed -= ids
        return self._finish(
            read.table,
            self._progress.get(table),
            changes,
            done=copy is not None and copy.whole,
            name=name,
            lsn=lsn,
            again=again,
            finished=ids,
        )

    def _finish(
        self,
        shape: Table,
        progress: BackfillProgress | None,
        changes: list[Change],
        *,
        done: bool,
        name: str,
        lsn: int,
        again: tuple[Signal, ...],
        finished: frozenset[str],
    ) -> Admission:
        table = shape.id
        if done:
            assert progress is not None
            progress = replace(progress, state="done", after=None)
            del self._copies[table]
        update = {}
        if progress is not None:
            self._progress[table] = progress
            update = {table: progress}
        copying = done or table in self._copies
        mark = Watermark(
            name,
            "backfill" if copying and not finished else "repair",
            table,
            self._generation,
            lsn,
            {},
            phase="final" if done else "chunk" if copying else "",
            rows=len(changes),
            shape=shape if done else None,
        )
        return Admission(changes, mark, update, again, finished)

    def _read_again(
        self, table: TableId, judgement: Judgement, asked: Iterable[bytes], name: str
    ) -> tuple[Signal, ...]:
        """Keys of this read that the log touched without giving the whole row."""
        incomplete = {key for key, whole in judgement.touched.items() if not whole}
        keys = tuple(key for key in asked if key in incomplete)
        if not keys:
            return ()
        return self.take(Signal(f"again-{name}", "repair", OUR_OWN, table, keys))

    def _waiting_of(self, table: TableId) -> set[str]:
        """Signals whose rows have not been read again."""
        under_way = (signal for flight in self._flights.values() for signal in flight.signals)
        return {s.id for s in (*self._rereads, *under_way) if s.table == table}


def _key_shape(table: Table) -> str:
    return json.dumps([(column.name, column.avro) for column in table.key_columns])


def _may_join(first: Signal, other: Signal, keys: int) -> bool:
    return (
        first.source == OUR_OWN == other.source
        and other.table == first.table
        and keys + len(other.keys) <= _KEYS_AT_ONCE
    )


def _reads(
    table: Table, rows: list[tuple[bytes, bytes]], touched: Mapping[bytes, bool], lsn: int
) -> list[Change]:
    if touched:
        rows = [entry for entry in rows if entry[0] not in touched]
    return [
        Change(table, "r", lsn - 1, order, key, None, row)
        for order, (key, row) in enumerate(rows, start=1)
    ]


def _next_limit(limit: int, read: Rows) -> int:
    """As many rows as make a read of about the target size; grows by no more than four times."""
    if not read.rows:
        return limit
    size = sum(len(row) for _, row in read.rows) / len(read.rows) + 1
    return int(max(1, min(limit * 4, _TARGET_BYTES / size)))
