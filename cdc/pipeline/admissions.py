"""What a read brings into the stream where its fence was met and ties it to that place in the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from cdc.checkpoint import BackfillProgress
from cdc.event import Change, Rows
from cdc.fence import Fence, Signal, Watermark
from cdc.pipeline.admission import Admission, reads
from cdc.pipeline.copies import Copy, Flight
from cdc.pipeline.fences import Judgement
from cdc.pipeline.rereads import OUR_OWN, Rereads
from cdc.table import Table, TableId


class Admissions:
    """Makes them of one capture's reads, whose copies, progress and signals it shares with `Backfill` and moves on.

    ``waiting_of`` gives the ids of a table's signals whose rows have not been read again.
    """

    def __init__(
        self,
        generation: int,
        copies: dict[TableId, Copy],
        progress: dict[TableId, BackfillProgress],
        rereads: Rereads,
        waiting_of: Callable[[TableId], set[str]],
    ) -> None:
        self._generation = generation
        self._copies = copies
        self._progress = progress
        self._rereads = rereads
        self._waiting_of = waiting_of

    def void(self, fence: Fence, lsn: int, why: str) -> Admission:
        """Nothing: the fence ties no read to this place."""
        mark = Watermark(fence.id, fence.kind, fence.table, self._generation, lsn, {}, void=why)
        return Admission([], mark)

    def of_range(
        self, flight: Flight, read: Rows, judgement: Judgement, fence: Fence, lsn: int
    ) -> Admission:
        """A chain's oldest range."""
        table, chain = flight.job.table, flight.chain
        assert chain is not None
        copy = self._copies[table]
        chain.flights.popleft()
        changes = reads(read.table, read.rows, judgement.touched, lsn)
        before = self._progress[table]
        again = self._read_again(table, judgement, (key for key, _ in read.rows), fence.id)
        progress = replace(
            before,
            state="running",
            remaining=copy.entered(chain, flight, read.last),
            rows=before.rows + len(changes),
            key=copy.key,
        )
        if chain.done and copy.chains == [chain]:
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
            of_range=True,
        )

    def of_keys(
        self,
        flight: Flight,
        read: Rows,
        judgement: Judgement,
        lsn: int,
    ) -> Admission:
        """Rows by their keys: what is not there any more is deleted."""
        table = flight.job.table
        changes = reads(read.table, read.rows, judgement.touched, lsn)
        found = {key for key, _ in read.rows} | set(read.unread)
        for key in flight.job.keys or ():
            if key not in found and key not in judgement.touched:
                changes.append(Change(read.table, "d", lsn - 1, len(changes) + 1, key, None, None))
        signals = flight.signals
        name = signals[0].id
        again = self._read_again(table, judgement, flight.job.keys or (), name)
        if read.unread:
            # The first signal stays open for what is left, under its name: whoever waits for it waits on.
            rest = replace(signals[0], keys=read.unread)
            self._rereads.go_on(rest)
            again, signals, name = (*again, rest), signals[1:], f"{name}/part"
        ids = frozenset(signal.id for signal in signals)
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
            of_range=False,
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
        of_range: bool,
    ) -> Admission:
        table = shape.id
        if done:
            assert progress is not None
            progress = replace(progress, state="done", remaining=())
            del self._copies[table]
        update = {}
        if progress is not None:
            self._progress[table] = progress
            update = {table: progress}
        copying = done or table in self._copies
        mark = Watermark(
            name,
            "backfill" if copying and of_range else "repair",
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
        return self._rereads.take(Signal(f"again-{name}", "repair", OUR_OWN, table, keys))
