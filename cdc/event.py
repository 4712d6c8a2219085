"""What happens to rows: the items of a source's log, and the events that sinks take from topics.

Rows and keys are carried as encoded Avro records (without framing), described by their ``Table``: a source makes the
bytes, the envelope is put around them, a store takes the bytes or asks for decoded values.
The tuples of the hot path are NamedTuples on purpose: they are made by the million.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from cdc.position import Position
from cdc.table import Table, TableId

Op = Literal["r", "c", "u", "d", "t", "m"]
"""Debezium's: read (backfill), create, update, delete, truncate, message."""


class Begin(NamedTuple):
    """A committed transaction begins in the log; its events follow, contiguous, up to its Commit.

    ``xid`` is the top-level one, in 32 bits. ``commit_us`` is the commit's time, microseconds since 1970, UTC.
    """

    commit_lsn: int
    xid: int
    commit_us: int


class Change(NamedTuple):
    """One row changed.

    ``before`` is a whole row under replica identity full; else a row of which only the key columns mean anything, or
    None. ``after`` is None for a delete. ``unchanged`` names columns of ``after`` that the log did not carry.
    A changed key comes as ``d`` (``other_key``: the new key) and ``c`` (``other_key``: the old one), at two numbers.
    """

    table: Table
    op: Op
    lsn: int
    total_order: int
    key: bytes | None
    before: bytes | None
    after: bytes | None
    unchanged: tuple[str, ...] = ()
    other_key: bytes | None = None


class Truncate(NamedTuple):
    """One table emptied; a statement over several tables comes as several of these."""

    table: Table
    lsn: int
    total_order: int


class Message(NamedTuple):
    """A logical decoding message. ``lsn`` is the end of its record, which can equal the next commit's start.

    One that is not transactional stands between transactions, never inside one. ``total_order`` is 0 there.
    """

    prefix: str
    content: bytes
    lsn: int
    transactional: bool
    total_order: int = 0


class SchemaChange(NamedTuple):
    """A table was changed by the current transaction, as a source tells that can.

    - ``shape``: its rows have the row schema ``shape`` from here on.
    - ``rewritten``: values changed or rows came, for which the log holds no events.
    - ``stale``: rows went without events.
    - ``anew``: another table has its name; the former one's rows are gone. ``total_order`` is free for that.
    - ``gone``: it was dropped, renamed, or is captured no more.
    - ``joins``: it is one of those to capture, and was not before.

    ``memo`` is what the source wants to be told of the shape when it starts behind this commit.
    """

    table: TableId
    what: Literal["shape", "rewritten", "stale", "anew", "gone", "joins"]
    lsn: int
    total_order: int
    shape: Table | None = None
    memo: str = ""


class Commit(NamedTuple):
    """The transaction ended. Confirming ``end_lsn`` to the source keeps it from being sent again."""

    commit_lsn: int
    end_lsn: int


class Progress(NamedTuple):
    """The log holds nothing for us below ``lsn`` that was not delivered already (a server's keepalive)."""

    lsn: int


Item = Begin | Change | Truncate | Message | SchemaChange | Commit | Progress


class Record(NamedTuple):
    """A record for a topic, or from one. ``offset`` is -1 on the way out."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    offset: int = -1


class Delivered(NamedTuple):
    """A data event as a sink met it.

    ``table`` is the row schema that wrote it; ``xid`` is 0 for rows that a fence brought.
    ``collection`` is the topic's name without its prefix: ``schema.table``.
    """

    collection: str
    table: Table
    op: Op
    position: Position
    xid: int
    key: bytes | None
    before: bytes | None
    after: bytes | None
    unchanged: tuple[str, ...]
    other_key: bytes | None
    topic: str
    partition: int
    offset: int
    size: int


class TransactionMark(NamedTuple):
    """BEGIN or END of a transaction as it stands on the transaction topic.

    ``counts`` says for each collection (``schema.table``) how many events were sent; empty at BEGIN.
    ``commit_ms`` is when the source committed it, milliseconds since 1970; 0 where the writer does not say.
    """

    ended: bool
    xid: int
    commit_lsn: int
    counts: tuple[tuple[str, int], ...]
    offset: int
    commit_ms: int = 0


class DeadLetter(NamedTuple):
    """A record that a sink could not apply, as it came, and why.

    ``kind`` is the error's class, or ``parked`` for a later change of a key that was parked before. ``position`` is
    None when the record could not be read that far. ``at_ms``: when the sink met it, milliseconds since 1970.
    """

    sink: str
    record: Record
    position: Position | None
    kind: str
    message: str
    remedy: str
    at_ms: int


class Rows(NamedTuple):
    """What a fenced read brought: rows of one table as (key, row) records, in key order where a range was read.

    ``last`` is the last row's key when more may follow, None when the range's end was reached. ``unread`` are keys that
    were asked for by name and not looked for, because the rows before them were wide.
    """

    table: Table
    rows: list[tuple[bytes, bytes]]
    last: bytes | None
    unread: tuple[bytes, ...] = ()


__all__ = [
    "Begin",
    "Change",
    "Commit",
    "DeadLetter",
    "Delivered",
    "Item",
    "Message",
    "Op",
    "Progress",
    "Record",
    "Rows",
    "SchemaChange",
    "TableId",
    "TransactionMark",
    "Truncate",
]
