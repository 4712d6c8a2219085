"""Brings the rows that the log does not hold: first copies, and rows to be read again.

Range by range, each under a fence: what the read saw enters the stream at the fence's place in the log, except keys
that transactions outside its snapshot touched, which are the log's (or, where the log alone does not give the whole
row, are read again). No long transaction, no lock but ACCESS SHARE for a range's time, and the stream goes on.
Everything here is bookkeeping: reads happen in other processes, sending happens in capture.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from cdc.checkpoint import BackfillProgress
from cdc.errors import CdcError, Gone, Rejected, Unreachable
from cdc.fence import Fence, Signal, Watermark
from cdc.pipeline.admission import Admission, Amendment
from cdc.pipeline.admissions import Admissions
from cdc.pipeline.copies import Chain, Copy, Flight, key_shape
from cdc.pipeline.fences import FenceJudge
from cdc.pipeline.reading import Job, Read, Readers
from cdc.pipeline.rereads import OUR_OWN, Rereads, too_many
from cdc.table import KeyRange, Table, TableId

log = logging.getLogger(__name__)

MOST_ROWS = 20_000
"""Rows of one range, unless it is told otherwise."""
_RETRY_SECONDS = 1.0


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
        self._copies: dict[TableId, Copy] = {}
        self._rereads = Rereads(s for s in signals if s.type == "repair")
        self._admissions = Admissions(
            generation, self._copies, self._progress, self._rereads, self._waiting_of
        )
        self._reread_last = False
        self._flights: dict[str, Flight] = {}
        self._shapes: dict[TableId, Table] = {}
        self._amendments: deque[Amendment] = deque()
        self._not_before = 0.0
        self._run = uuid.uuid4().hex[:12]
        self._asked = 0
        for table, entry in self._progress.items():
            if entry.state not in ("done", "stale"):
                self._copies[table] = Copy.resumed(table, entry, readers.count)

    @property
    def busy(self) -> bool:
        """Whether anything is left to read."""
        return bool(self._copies or self._rereads or self._flights)

    def open(self, table: TableId, lsn: int, signal: str = "") -> Admission:
        """Begin (or begin again) the copy of a table at this place of the log."""
        progress = BackfillProgress("running", opened=lsn, signal=signal)
        self._begin(table, progress)
        name = signal or f"open-{table}-{lsn}"
        mark = Watermark(name, "backfill", table, self._generation, lsn, {}, phase="open")
        return Admission([], mark, {table: progress})

    def take(self, signal: Signal) -> tuple[Signal, ...]:
        """Rows to be read again, in parts that are read at once; the last part keeps the signal's id.

        The checkpoint must hold the parts until an admission says that they are finished.
        """
        return self._rereads.take(signal)

    def read_again(self, name: str, table: TableId, keys: Iterable[bytes]) -> tuple[Signal, ...]:
        """Rows that the log does not give whole, by our own wish; see `take`.

        When too many wait already, the table is copied anew instead: an amendment says so, and nothing is returned.
        """
        signal = Signal(name, "repair", OUR_OWN, table, tuple(keys))
        waiting = [s for s in self._waiting_signals(table) if s.source == OUR_OWN]
        if not too_many((signal, *waiting)):
            return self.take(signal)
        log.warning("%s is copied from its first key: too many of its keys have changed", table)
        answered = frozenset(s.id for s in waiting)
        self._rereads.forget(answered)
        for fence, flight in list(self._flights.items()):
            if flight.chain is None and answered.issuperset(s.id for s in flight.signals):
                del self._flights[fence]
                self._judge.unwatch(table)
        self._amendments.append(Amendment(progress=self.copy_again(table), finished=answered))
        return ()

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
        progress = replace(before, state="running", remaining=(KeyRange(),), key="")
        self._begin(table, progress)
        return {table: progress}

    def _begin(self, table: TableId, progress: BackfillProgress) -> None:
        self._drop_copy(table)
        self._progress[table] = progress
        self._copies[table] = Copy.resumed(table, progress, self._readers.count)

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
            return self._admissions.void(fence, lsn, void)
        if flight.chain is not None:
            return self._admissions.of_range(flight, flight.rows, judgement, fence, lsn)
        return self._admissions.of_keys(flight, flight.rows, judgement, lsn)

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
        signals = self._rereads.next()
        keys = tuple(dict.fromkeys(key for signal in signals for key in signal.keys))
        table = signals[0].table
        job = Job(self._fence_id(signals[0].id), table, keys=keys)
        self._give(Flight(job, self._judge.watch(table), signals))

    def _ask_range(self) -> bool:
        for copy in self._copies.values():
            if copy.splitting:
                continue
            if copy.unsplit:
                copy.splitting = self._fence_id(f"split-{copy.table}")
                self._readers.give(Job(copy.splitting, copy.table, parts=self._readers.count))
                return True
            for chain in copy.chains:
                if chain.may_read():
                    self._ask_range_of(copy, chain)
                    return True
        return False

    def _ask_range_of(self, copy: Copy, chain: Chain) -> None:
        limit = min(chain.limit, self._most_rows)
        job = Job(self._fence_id(str(copy.table)), copy.table, chain.next_range, limit)
        flight = Flight(job, self._judge.watch(copy.table), chain=chain)
        chain.flights.append(flight)
        self._give(flight)

    def _give(self, flight: Flight) -> None:
        self._flights[flight.job.fence] = flight
        self._readers.give(flight.job)

    def _arrived(self, read: Read) -> None:
        if read.job.parts:
            self._split(read)
            return
        flight = self._flights.get(read.job.fence)
        if flight is None:
            return  # given up meanwhile
        if read.rows is None:
            assert read.error is not None
            self._failed(flight, read.error)
            return
        flight.rows = read.rows._replace(table=self._intern(read.rows.table))
        if flight.chain is not None:
            copy = self._copies[flight.job.table]
            key = key_shape(flight.rows.table)
            if flight.job.range != KeyRange() and copy.key != key:
                self._failed(flight, Rejected("its key has changed"))
                return
            copy.key = key
            flight.chain.arrived(read.rows, self._most_rows)

    def _split(self, read: Read) -> None:
        """The keys to divide a copy at, or why there are none."""
        copy = self._copies.get(read.job.table)
        if copy is None or copy.splitting != read.job.fence:
            return  # it began again, or is given up
        copy.splitting = ""
        if read.rows is not None:
            copy.split([key for key, _ in read.rows.rows], key_shape(read.rows.table))
            return
        assert read.error is not None
        match read.error:
            case Unreachable():
                self._not_before = time.monotonic() + _RETRY_SECONDS
            case Gone() as gone:
                self._gone(copy.table, gone)
            case _:
                raise read.error

    def _failed(self, flight: Flight, error: CdcError) -> None:
        """No fence follows, or one that is void."""
        table = flight.job.table
        del self._flights[flight.job.fence]
        self._judge.unwatch(table)
        match error:
            case Unreachable():
                self._not_before = time.monotonic() + _RETRY_SECONDS
                self._ask_again(flight)
            case Gone():
                self._gone(table, error)
            case Rejected():
                log.warning("%s is copied from its first key: %s", table, error.what)
                finished = frozenset(signal.id for signal in flight.signals)
                self._amendments.append(
                    Amendment(progress=self.copy_again(table), finished=finished)
                )
            case _:
                raise error

    def _gone(self, table: TableId, error: Gone) -> None:
        log.warning(
            "%s; it is not copied any further (when it is there again, restart the connector)",
            error.what,
        )
        self.give_up(table)

    def give_up(self, table: TableId) -> None:
        """Nothing of the table is read any more; an amendment says so."""
        self._leave(table)
        self._progress.pop(table, None)
        self._amendments.append(Amendment(gone=frozenset({table})))

    def stale(self, table: TableId) -> Mapping[TableId, BackfillProgress]:
        """Nothing of the table is read until its copy is opened again; its progress from here."""
        self._leave(table)
        self._progress[table] = BackfillProgress("stale")
        return {table: self._progress[table]}

    def _leave(self, table: TableId) -> None:
        self._drop_copy(table)
        for fence, flight in list(self._flights.items()):
            if flight.job.table == table:
                del self._flights[fence]
                self._judge.unwatch(table)
        self._rereads.forget({signal.id for signal in self._rereads.of(table)})

    def _ask_again(self, flight: Flight) -> None:
        if flight.chain is None:
            self._rereads.put_back(flight.signals)
        elif flight in flight.chain.flights:
            self._drop_flights(flight.chain, first=flight)
            flight.chain.back_to(flight)
            self._copies[flight.job.table].owed = None

    def _overtaken(self, flight: Flight) -> str:
        """A chain's ranges enter in the order of their keys, whatever the order in which readers let their fences go."""
        if flight.chain is None or flight.chain.flights[0] is flight:
            return ""
        return "the range before this one has not entered yet"

    def _drop_copy(self, table: TableId) -> None:
        copy = self._copies.pop(table, None)
        for chain in copy.chains if copy is not None else ():
            self._drop_flights(chain)

    def _drop_flights(self, chain: Chain, first: Flight | None = None) -> None:
        """Give up the reads of this chain, or those from ``first`` on."""
        while chain.flights:
            flight = chain.flights.pop()
            if self._flights.pop(flight.job.fence, None) is not None:
                self._judge.unwatch(flight.job.table)
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
            return self._admissions.void(fence, lsn, "its read was given up")
        void = self._admissions.void(fence, lsn, "its read was made before a restart")
        return replace(void, withdrawn=lsn not in self._admitted)

    def _waiting_of(self, table: TableId) -> set[str]:
        return {signal.id for signal in self._waiting_signals(table)}

    def _waiting_signals(self, table: TableId) -> list[Signal]:
        """Signals whose rows have not been read again."""
        under_way = (signal for flight in self._flights.values() for signal in flight.signals)
        return [*self._rereads.of(table), *(s for s in under_way if s.table == table)]
