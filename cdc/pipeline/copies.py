"""A table's first copy as bookkeeping: chains of ranges over its keys, and what stands between it and its end."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from cdc.checkpoint import BackfillProgress
from cdc.event import Rows
from cdc.fence import Signal
from cdc.pipeline.reading import Job
from cdc.table import KeyRange, Table, TableId

_FIRST_ROWS = 1_000
_TARGET_BYTES = 2 << 20
_READS_AHEAD = 2


@dataclass(slots=True)
class Flight:
    """A read that was asked for and whose fence has not been met; of a chain's range, or of the keys of ``signals``."""

    job: Job
    read_from: int
    signals: tuple[Signal, ...] = ()
    chain: Chain | None = None
    rows: Rows | None = None


@dataclass(slots=True, eq=False)
class Chain:
    """Ranges that follow each other over one stretch of the keys.

    ``entered`` is the key up to which its rows have entered the stream, ``next_after`` the one behind which the next
    range begins.
    """

    entered: bytes | None
    upto: bytes | None
    next_after: bytes | None
    exhausted: bool = False
    limit: int = _FIRST_ROWS
    flights: deque[Flight] = field(default_factory=deque)

    @classmethod
    def over(cls, keys: KeyRange) -> Chain:
        """A chain that begins at the stretch's beginning."""
        return cls(keys.after, keys.upto, keys.after)

    @property
    def next_range(self) -> KeyRange:
        """What the next range may reach to."""
        return KeyRange(self.next_after, self.upto)

    @property
    def done(self) -> bool:
        """Whether all of it has entered the stream."""
        return self.exhausted and not self.flights

    def may_read(self) -> bool:
        """The next range begins behind the last row of the one before, so that one must have arrived."""
        return (
            not self.exhausted
            and len(self.flights) < _READS_AHEAD
            and all(flight.rows is not None for flight in self.flights)
        )

    def arrived(self, rows: Rows, most_rows: int) -> None:
        """The newest range has come in."""
        self.next_after = rows.last
        self.exhausted = rows.last is None
        self.limit = min(_next_limit(self.limit, rows), most_rows)

    def back_to(self, flight: Flight) -> None:
        """The flight's range must be read again: those behind it began at its last row, and are read again with it."""
        self.next_after, self.exhausted = flight.job.range.after, False


@dataclass(slots=True)
class Copy:
    """The first copy of one table: each chain copies its stretch of the keys, all at once.

    ``owed`` are the signals whose rows must be read again before the copy is whole, once the last range is in: those
    that were waiting then. Later ones find every row in the replica, so the copy does not wait for them (a table whose
    keys keep changing would be copied for ever). ``key`` is what the keys of its ranges are encoded by.
    ``splitting`` is the job that was asked for keys to divide the table at; until it has come nothing is read.
    """

    table: TableId
    chains: list[Chain]
    unsplit: bool = False
    splitting: str = ""
    owed: set[str] | None = None
    key: str = ""

    @classmethod
    def resumed(cls, table: TableId, progress: BackfillProgress, readers: int) -> Copy:
        """The copy that a checkpoint tells of. It is divided, where there are readers for that, before its first range."""
        return cls(
            table,
            [Chain.over(keys) for keys in progress.remaining],
            unsplit=readers > 1 and progress.remaining == (KeyRange(),),
            key=progress.key,
        )

    @property
    def whole(self) -> bool:
        """Whether everything that the copy needs has entered the stream."""
        return self.owed is not None and not self.owed

    @property
    def flights(self) -> Iterator[Flight]:
        """Its ranges that are under way."""
        return (flight for chain in self.chains for flight in chain.flights)

    def split(self, keys: Sequence[bytes], key: str) -> None:
        """Divide the copy, of which nothing was read, at these keys."""
        bounds = [None, *keys, None]
        self.chains = [Chain.over(KeyRange(after, upto)) for after, upto in pairwise(bounds)]
        self.unsplit, self.splitting = False, ""
        if keys:
            self.key = key

    def entered(self, chain: Chain, flight: Flight, last: bytes | None) -> tuple[KeyRange, ...]:
        """The rows of the chain's oldest range have entered the stream; what remains, for the checkpoint.

        At the end of all, the last range remains: the copy may still wait for rows that are read again, and a restart,
        which does not know for which, reads that range once more.
        """
        if last is not None:
            chain.entered = last
        elif len(self.chains) > 1:
            self.chains.remove(chain)
        else:
            return (flight.job.range,)
        return tuple(KeyRange(chain.entered, chain.upto) for chain in self.chains)


def key_shape(table: Table) -> str:
    """What a table's key records are encoded by."""
    return json.dumps([(column.name, column.avro) for column in table.key_columns])


def _next_limit(limit: int, read: Rows) -> int:
    """As many rows as make a read of about the target size; grows by no more than four times."""
    if not read.rows:
        return limit
    size = sum(len(row) for _, row in read.rows) / len(read.rows) + 1
    return int(max(1, min(limit * 4, _TARGET_BYTES / size)))
