"""What a source must do: its log, what is asked of it beside the log, and reads with fences behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from cdc.checkpoint import Identity
from cdc.event import Item, Rows
from cdc.fence import Snapshot
from cdc.table import KeyRange, Table, TableId

MOST_READ_BYTES = 8 << 20
"""Of the rows of one fenced read, unless it is told otherwise; one row may be wider."""


class Slot(NamedTuple):
    """What the source says of our replication slot. ``confirmed`` is where it would go on at the earliest."""

    confirmed: int
    active: bool
    lost: str
    """Why it can no longer be used; empty when it can."""


class Horizon(NamedTuple):
    """What every reader of ours can see by now, and where in the log that is known.

    A transaction is *settled* when ``snapshot`` sees it and its xid is below ``readers_xmin``, the lowest xmin that
    any open reading transaction of ours holds: then no fence that stands at or behind ``lsn`` in the log (taken after
    both) carries a snapshot that does not see it.
    """

    snapshot: Snapshot
    readers_xmin: int
    lsn: int

    def settled(self, xid: int) -> bool:
        """Whether no fence to come can carry a snapshot without this transaction (``xid`` in 64 bits)."""
        return xid < self.readers_xmin and self.snapshot.sees(xid)


class Source(Protocol):
    """One source database: its log, read once and in order, and what is asked of it beside the log.

    Errors: Unreachable when the server is away (then ``close`` and open anew), Refused when going on would lose
    changes, ConfigError for what a person has to set right. Not thread-safe.
    """

    def identify(self) -> Identity:
        """Which history the server's log positions belong to, now."""
        ...

    def switch_point(self, timeline: int) -> int:
        """The LSN at which the history left ``timeline`` (an older one than the server's)."""
        ...

    def missing(self) -> frozenset[TableId]:
        """The selected tables that the publication does not hold now: what changes there will never be delivered."""
        ...

    def selects(self, table: TableId) -> bool:
        """Whether the configuration selects a table of this name."""
        ...

    def prepare(self) -> bool:
        """Check settings, grants and tables, and make or extend the publication as configured.

        True when the publication was made or extended: then a table's first chunk has to wait until every
        transaction that was running meanwhile has ended (``snapshot``'s xmin has passed the xmax taken after this).
        Refuses (ConfigError) what could not be captured whole: wal_level, a table that is not there, one without a
        key, an identity that does not carry the key.
        """
        ...

    def tables(self) -> Sequence[Table]:
        """The row schemas of the tables to capture, as the catalog has them now: a hint (the log decides)."""
        ...

    def memberships(self) -> Mapping[TableId, str]:
        """For each table that is delivered a mark that changes when it has not been for a while, or is another table."""
        ...

    def slot(self) -> Slot | None:
        """Our slot, None when there is none."""
        ...

    def create_slot(self, waits: Callable[[str], None] = ...) -> int:
        """Make the slot; every transaction that commits at or after the returned LSN will be delivered.

        While the server waits for older transactions ``waits`` is told whom for, about once a second; what it raises
        ends the attempt.
        """
        ...

    def drop_slot(self) -> None:
        """Drop the slot if it is there."""
        ...

    def memos(self) -> Mapping[TableId, str]:
        """What the log does not tell of each captured table's shape as it is now, for a later `start`."""
        ...

    def start(self, after: int, memos: Mapping[TableId, str]) -> None:
        """Begin to stream: every transaction that ends after ``after``, from its BEGIN on.

        ``memos`` are those that held there: by `memos`, then by each SchemaChange.
        """
        ...

    def read(self, timeout: float) -> Sequence[Item]:
        """What arrived, in log order; empty after ``timeout`` seconds of silence. May split transactions.

        Delivered items repeat only after a new ``start``. Behind a signal that adds a table its changes are delivered.
        """
        ...

    def confirm(self, lsn: int) -> None:
        """Let the source forget what ends at or below ``lsn``. Never moves back; sent at the latest in 10 s."""
        ...

    def keep_alive(self) -> None:
        """Answer the server if an answer is due. To be called from every wait, at least once a second."""
        ...

    def snapshot(self) -> Snapshot:
        """The transactions that are visible now, by a connection beside the stream."""
        ...

    def horizon(self) -> Horizon:
        """The snapshot as above, with the lowest xmin of our own reading transactions, and an LSN taken after both.

        Ours are those whose application_name begins with ``cdc/``; none open: ``readers_xmin`` is ``snapshot.xmax``.
        """
        ...

    def waiting_for(self, xid: int) -> str:
        """Who keeps ``snapshot``'s xmin from passing ``xid``: pid, age and application of the oldest; empty when none."""
        ...

    def heartbeat(self) -> None:
        """Do what the configuration asks for at every heartbeat. What fails there is said in the log, and no more."""
        ...

    def emit(self, prefix: str, content: bytes) -> int:
        """Put a message into the log outside any transaction, flushed; its LSN."""
        ...

    def close(self) -> None:
        """End the stream and every connection. Safe to repeat."""
        ...


class FencedReader(Protocol):
    """Reads tables of a source under snapshots with fences behind them. Lives in a process of its own.

    Each read is a context manager: the rows are there on entry, and the fence is emitted when the block ends without
    an error, still inside the reading transaction. So rows are handed over before their fence can be met.
    The table is locked in ACCESS SHARE mode from before the snapshot until the fence is in the log: no rewrite,
    TRUNCATE or ALTER stands between them.

    Errors: Gone for a table that is not there, or not published, any more; Rejected for keys that are none of the
    table's as it is now; Unreachable when another attempt may succeed (a lock that was not to be had, too).
    """

    def read_range(
        self,
        table: TableId,
        keys: KeyRange,
        limit: int,
        fence: str,
        most_bytes: int = MOST_READ_BYTES,
    ) -> AbstractContextManager[Rows]:
        """The first rows of this range in key order, at most ``limit`` of them.

        It ends with the row that reaches ``most_bytes``, however many were asked for.
        """
        ...

    def read_keys(
        self,
        table: TableId,
        keys: Sequence[bytes],
        fence: str,
        most_bytes: int = MOST_READ_BYTES,
    ) -> AbstractContextManager[Rows]:
        """The rows with these keys, as far as they exist; keys behind about ``most_bytes`` of rows are left unread."""
        ...

    def split(self, table: TableId, parts: int) -> Rows:
        """Keys (with empty rows) that divide the table into about equal parts, in key order; none for a small table.

        An estimate, under no fence: any keys are right, good ones make the parts equal.
        """
        ...

    def close(self) -> None:
        """Safe to repeat."""
        ...


__all__ = [
    "MOST_READ_BYTES",
    "FencedReader",
    "Horizon",
    "Slot",
    "Source",
]
