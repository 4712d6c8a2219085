"""A source in miniature: commits reach the log in one order and become visible in another, as PostgreSQL's do.

A transaction holds its rows' locks until it is visible, so no two invisible ones touch the same row. Reads see a
snapshot; their fences enter the log later. Rows have two columns; an update may leave the second one out of the log.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from cdc.event import Begin, Change, Commit, Item, Message, Rows
from cdc.fence import FENCE_PREFIX, Fence, FenceKind, Snapshot
from cdc.pipeline.reading import Job, Read
from cdc.protocols import Horizon
from cdc.table import Column, Table, TableId

ORDERS = Table(
    TableId("public", "orders"),
    (Column("id", "int", False), Column("a", "int", False), Column("b", "int", True)),
    ("id",),
)

Row = tuple[int, int]


def key_of(number: int) -> bytes:
    return b"%04d" % number


def row_of(row: Row) -> bytes:
    return b"%d,%d" % row


def parsed(row: bytes) -> Row:
    a, b = row.split(b",")
    return int(a), int(b)


@dataclass
class _Open:
    xid: int
    writes: list[tuple[int, Row | None, bool]] = field(default_factory=list)


@dataclass
class _Reading:
    job: Job
    snapshot: Snapshot
    rows: Rows


class SimulatedSource:
    """Steps are chosen by ``random``; the log is read by index."""

    def __init__(self, chooser: random.Random, keys: int = 12) -> None:
        self.random = chooser
        self.keys = keys
        self.log: list[Item] = []
        self.lsn = 8  # where the next record starts
        self.next_xid = 100
        self.open: list[_Open] = []
        self.committed: list[_Open] = []  # in the log, not visible yet
        self.visible: dict[int, Row] = {}
        self.locked: set[int] = set()
        self.reading: list[_Reading] = []
        self.arrived: list[Read] = []

    # --- transactions ---------------------------------------------------------------------------------------

    def begin(self) -> None:
        self.open.append(_Open(self.next_xid))
        self.next_xid += 1

    def write(self) -> None:
        if not self.open:
            return
        transaction = self.random.choice(self.open)
        key = self.random.randrange(self.keys)
        mine = {k for k, _, _ in transaction.writes}
        if key in self.locked and key not in mine:
            return
        now = self.visible.get(key)
        for k, row, _ in transaction.writes:
            if k == key:
                now = row
        self.locked.add(key)
        value = self.random.randrange(1000)
        if now is None:
            transaction.writes.append((key, (value, value), True))
        elif self.random.random() < 0.3:
            transaction.writes.append((key, None, True))
        elif self.random.random() < 0.5:
            transaction.writes.append((key, (value, now[1]), False))  # b is unchanged, not logged
        else:
            transaction.writes.append((key, (value, value), True))

    def commit(self) -> None:
        """The commit record reaches the log; nobody sees the transaction yet."""
        if not self.open:
            return
        transaction = self.open.pop(self.random.randrange(len(self.open)))
        self.committed.append(transaction)
        if not transaction.writes:
            return
        commit_lsn = self.lsn
        self.log.append(Begin(commit_lsn, transaction.xid, 0))
        seen: dict[int, bool] = {}
        for order, (key, row, whole) in enumerate(transaction.writes, start=1):
            exists = seen.get(key, key in self.visible)
            seen[key] = row is not None
            op = "d" if row is None else "u" if exists else "c"
            self.log.append(
                Change(
                    ORDERS,
                    "d" if op == "d" else "u" if op == "u" else "c",
                    commit_lsn,
                    order,
                    key_of(key),
                    None,
                    None if row is None else row_of(row),
                    () if whole else ("b",),
                )
            )
        self.lsn += 8
        self.log.append(Commit(commit_lsn, self.lsn))

    def abort(self) -> None:
        if self.open:
            transaction = self.open.pop(self.random.randrange(len(self.open)))
            self.locked -= {key for key, _, _ in transaction.writes}

    def show(self) -> None:
        """One of the committed becomes visible; not necessarily the first."""
        if not self.committed:
            return
        transaction = self.committed.pop(self.random.randrange(len(self.committed)))
        for key, row, _ in transaction.writes:
            self.locked.discard(key)
            if row is None:
                self.visible.pop(key, None)
            else:
                self.visible[key] = row

    def snapshot(self) -> Snapshot:
        running = frozenset(t.xid for t in [*self.open, *self.committed])
        return Snapshot(min(running, default=self.next_xid), self.next_xid, running)

    def horizon(self) -> Horizon:
        now = self.snapshot()
        readers = min((r.snapshot.xmin for r in self.reading), default=now.xmax)
        return Horizon(now, readers, self.lsn)

    # --- reads (this object is `cdc.pipeline.reading.Readers` too) ------------------------------------------------

    def idle(self) -> bool:
        return len(self.reading) < 2

    def give(self, job: Job) -> None:
        rows = sorted(self.visible.items())
        if job.keys is not None:
            rows = [(key, row) for key, row in rows if key_of(key) in job.keys]
            found = Rows(ORDERS, [(key_of(k), row_of(r)) for k, r in rows], None)
        else:
            rows = [(k, r) for k, r in rows if job.after is None or key_of(k) > job.after]
            cut = rows[: min(job.limit, 3)]
            last = key_of(cut[-1][0]) if len(cut) < len(rows) else None
            found = Rows(ORDERS, [(key_of(k), row_of(r)) for k, r in cut], last)
        self.reading.append(_Reading(job, self.snapshot(), found))
        self.arrived.append(Read(job, found))

    def collect(self, met: str = "") -> list[Read]:
        arrived, self.arrived = self.arrived, []
        return arrived

    def close(self) -> None:
        self.reading.clear()

    def emit_fence(self) -> None:
        """The oldest read lets its fence go and ends."""
        if self.reading:
            reading = self.reading.pop(0)
            kind: FenceKind = "backfill" if reading.job.keys is None else "repair"
            fence = Fence(reading.job.fence, kind, "p", reading.job.table, reading.snapshot)
            self.lsn += (
                8  # the message's LSN is its record's end: a commit that follows starts there
            )
            self.log.append(Message(FENCE_PREFIX, fence.to_message(), self.lsn, False))

    def finish(self) -> None:
        """Every transaction ends and is visible."""
        while self.open:
            self.commit()
        while self.committed:
            self.show()
