"""A source in miniature: commits reach the log in one order and become visible in another, as PostgreSQL's do.

A transaction holds its rows' locks until it is visible, so no two invisible ones touch the same row. Reads see a
snapshot; their fences enter the log later, and reads of several processes not in the order in which they were asked
for. Rows have two columns; an update may leave the second one out of the log, also when it changes the key.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cdc.checkpoint import Identity
from cdc.errors import Gone, Unreachable
from cdc.event import Begin, Change, Commit, Item, Message, Op, Progress, Rows, Truncate
from cdc.fence import FENCE_PREFIX, SIGNAL_PREFIX, Fence, FenceKind, Signal, Snapshot
from cdc.pipeline.reading import Job, Read
from cdc.protocols import Horizon, Slot
from cdc.table import Column, Table, TableId

ORDERS = Table(
    TableId("public", "orders"),
    (Column("id", "int", False), Column("a", "int", False), Column("b", "int", True)),
    ("id",),
)
GONE = TableId("public", "gone")
PREFIX = "p"

Row = tuple[int, int]


def key_of(number: int) -> bytes:
    return b"%04d" % number


def row_of(row: Row) -> bytes:
    return b"%d,%d" % row


def parsed(row: bytes) -> Row:
    a, b = row.split(b",")
    return int(a), int(b)


class _Write(NamedTuple):
    """``row`` is None for a delete; ``moved_from`` is the key that the row had until now."""

    key: int
    row: Row | None
    whole: bool = True
    moved_from: int | None = None


@dataclass
class _Open:
    xid: int
    writes: list[_Write] = field(default_factory=list)


@dataclass
class _Reading:
    job: Job
    snapshot: Snapshot


class Compared(NamedTuple):
    """A fenced read for verification: ``low`` is the place in the log from which on its reader follows the topics."""

    fence: str
    snapshot: Snapshot
    low: int


class SimulatedSource:
    """Steps are chosen by ``random``. It is the `Source` and the `Readers` of one capture at a time."""

    def __init__(
        self, chooser: random.Random, keys: int = 12, readers: int = 2, *, moving: bool = True
    ) -> None:
        self.random = chooser
        self.keys = keys
        self.log: list[Item] = []
        self.lsn = 8  # where the next record starts
        self.next_xid = 100
        self.open: list[_Open] = []
        self.committed: list[_Open] = []  # in the log, not visible yet
        self.visible: dict[int, Row] = {}
        self.locked: set[int] = set()
        self.decoded: dict[int, Row] = {}
        self.states: dict[int, dict[int, Row]] = {}  # by commit LSN, what the log says
        self.commits: list[tuple[int, int]] = []  # (xid, commit LSN)
        self.reading: list[_Reading] = []
        self.arrived: list[Read] = []
        self.comparing: list[Compared] = []
        self.compared: list[Compared] = []
        self.count = readers
        self.moving = moving
        self.failing_reads = 0.0
        self.slot_at: int | None = None
        self.unpublished: set[TableId] = set()
        self._next = 0
        self._made = 0

    # --- transactions ---------------------------------------------------------------------------------------

    def begin(self) -> None:
        self.open.append(_Open(self.next_xid))
        self.next_xid += 1

    def write(self) -> None:
        if not self.open:
            return
        transaction = self.random.choice(self.open)
        key = self.random.randrange(self.keys)
        if not self._lockable(transaction, key):
            return
        now = self._as_seen_by(transaction, key)
        self.locked.add(key)
        value = self.random.randrange(1000)
        chance = self.random.random()
        if now is None:
            transaction.writes.append(_Write(key, (value, value)))
        elif chance < 0.25:
            transaction.writes.append(_Write(key, None))
        elif chance < 0.55:
            transaction.writes.append(_Write(key, (value, now[1]), whole=False))
        elif chance < 0.7 and self.moving:
            self._move(transaction, key, now, value)
        else:
            transaction.writes.append(_Write(key, (value, value)))

    def _move(self, transaction: _Open, key: int, now: Row, value: int) -> None:
        to = self.random.randrange(self.keys)
        if to == key or not self._lockable(transaction, to) or self._as_seen_by(transaction, to):
            return
        self.locked.add(to)
        whole = self.random.random() < 0.3
        transaction.writes.append(_Write(key, None))
        transaction.writes.append(_Write(to, (value, value if whole else now[1]), whole, key))

    def _lockable(self, transaction: _Open, key: int) -> bool:
        return key not in self.locked or any(write.key == key for write in transaction.writes)

    def _as_seen_by(self, transaction: _Open, key: int) -> Row | None:
        now = self.visible.get(key)
        for write in transaction.writes:
            if write.key == key:
                now = write.row
        return now

    def commit(self) -> None:
        """The commit record reaches the log; nobody sees the transaction yet."""
        if not self.open:
            return
        transaction = self.open.pop(self.random.randrange(len(self.open)))
        self.committed.append(transaction)
        if not transaction.writes:
            return
        self.log.append(Begin(self.lsn, transaction.xid, 0))
        for order, write in enumerate(transaction.writes, start=1):
            self.log.append(self._change(transaction, order, write))
            if write.row is None:
                self.decoded.pop(write.key, None)
            else:
                self.decoded[write.key] = write.row
        self._end(transaction.xid)

    def _change(self, transaction: _Open, order: int, write: _Write) -> Change:
        other = None if write.moved_from is None else key_of(write.moved_from)
        op: Op = "d" if write.row is None else "u"
        if op == "u" and (write.moved_from is not None or write.key not in self.decoded):
            op = "c"
        after = None if write.row is None else row_of(write.row)
        unchanged = () if write.whole else ("b",)
        key = key_of(write.key)
        if op == "d":
            following = transaction.writes[order : order + 1]
            if following and following[0].moved_from == write.key:
                other = key_of(following[0].key)
        return Change(ORDERS, op, self.lsn, order, key, None, after, unchanged, other)

    def _end(self, xid: int) -> None:
        commit_lsn = self.lsn
        self.lsn += 8
        self.log.append(Commit(commit_lsn, self.lsn))
        self.states[commit_lsn] = dict(self.decoded)
        self.commits.append((xid, commit_lsn))

    def truncate(self) -> None:
        """Its lock excludes every other writer and reader until it is visible; rows may follow in its transaction."""
        if self.open or self.committed or self.reading:
            return
        xid, self.next_xid = self.next_xid, self.next_xid + 1
        self.log.append(Begin(self.lsn, xid, 0))
        self.log.append(Truncate(ORDERS, self.lsn, 1))
        self.decoded = {}
        if self.random.random() < 0.5:
            self.log.append(Change(ORDERS, "c", self.lsn, 2, key_of(1), None, row_of((5, 5))))
            self.decoded[1] = (5, 5)
        self._end(xid)
        self.visible = dict(self.decoded)

    def abort(self) -> None:
        if self.open:
            transaction = self.open.pop(self.random.randrange(len(self.open)))
            self.locked -= {write.key for write in transaction.writes}

    def show(self) -> None:
        """One of the committed becomes visible; not necessarily the first."""
        if not self.committed:
            return
        transaction = self.committed.pop(self.random.randrange(len(self.committed)))
        for write in transaction.writes:
            self.locked.discard(write.key)
            if write.row is None:
                self.visible.pop(write.key, None)
            else:
                self.visible[write.key] = write.row

    def traffic(self) -> None:
        """One step of those who use the database."""
        steps = [self.begin, self.write, self.commit, self.abort, self.show, self.truncate]
        self.random.choices(steps, weights=[30, 80, 40, 10, 40, 4])[0]()

    def finish(self) -> None:
        """Every transaction ends and is visible."""
        while self.open:
            self.commit()
        while self.committed:
            self.show()

    def snapshot(self) -> Snapshot:
        running = frozenset(t.xid for t in [*self.open, *self.committed])
        return Snapshot(min(running, default=self.next_xid), self.next_xid, running)

    def horizon(self) -> Horizon:
        now = self.snapshot()
        readers = [reading.snapshot.xmin for reading in self.reading]
        readers += [compared.snapshot.xmin for compared in self.comparing]
        return Horizon(now, min(readers, default=now.xmax), self.lsn)

    # --- messages -------------------------------------------------------------------------------------------

    def memberships(self) -> dict[TableId, str]:
        return {}

    def selects(self, table: TableId) -> bool:
        return table == ORDERS.id

    def heartbeat(self) -> None: ...

    def emit(self, prefix: str, content: bytes) -> int:
        self.lsn += 8  # a message's LSN is its record's end: a commit that follows starts there
        self.log.append(Message(prefix, content, self.lsn, transactional=False))
        return self.lsn

    def ask_for_repair(self) -> None:
        self._made += 1
        keys = tuple(key_of(self.random.randrange(self.keys + 3)) for _ in range(3))
        table = GONE if self.random.random() < 0.1 else ORDERS.id
        signal = Signal(f"repair-{self._made}", "repair", PREFIX, table, keys)
        self.emit(SIGNAL_PREFIX, signal.to_message())

    def ask_for_copy(self) -> None:
        self._made += 1
        table = GONE if self.random.random() < 0.1 else ORDERS.id
        signal = Signal(f"backfill-{self._made}", "backfill", PREFIX, table)
        self.emit(SIGNAL_PREFIX, signal.to_message())

    def mark_place(self) -> int:
        """A fence that closes no read; its place in the log."""
        self._made += 1
        fence = Fence(f"mark-{self._made}", "mark", PREFIX, None, self.snapshot())
        return self.emit(FENCE_PREFIX, fence.to_message())

    def compare(self) -> None:
        """A verification reads: it follows the topics from now on, and its fence comes later."""
        self._made += 1
        low = self.emit("cdc.nothing", b"")
        self.comparing.append(Compared(f"verify-{self._made}", self.snapshot(), low))

    def fence_comparison(self) -> None:
        if self.comparing:
            compared = self.comparing.pop(self.random.randrange(len(self.comparing)))
            fence = Fence(
                compared.fence, "verify", PREFIX, ORDERS.id, compared.snapshot, compared.low
            )
            self.emit(FENCE_PREFIX, fence.to_message())
            self.compared.append(compared)

    def in_limbo(self, compared: Compared) -> list[int]:
        """Transactions before ``low`` that the read did not see: with one of these its fence ties nothing."""
        return [
            xid
            for xid, commit_lsn in self.commits
            if commit_lsn < compared.low and not compared.snapshot.sees(xid)
        ]

    # --- reads (`cdc.pipeline.reading.Readers`) ------------------------------------------------------------------

    def idle(self) -> bool:
        return len(self.reading) < self.count

    def give(self, job: Job) -> None:
        if job.table != ORDERS.id:
            self.arrived.append(Read(job, None, Gone(f"there is no table {job.table}")))
            return
        if self.random.random() < self.failing_reads:
            self.arrived.append(Read(job, None, Unreachable("a lock was not to be had")))
            return
        if job.parts:
            numbers = sorted({self.random.randrange(self.keys) for _ in range(job.parts - 1)})
            self.arrived.append(Read(job, Rows(ORDERS, [(key_of(n), b"") for n in numbers], None)))
            return
        rows = sorted(self.visible.items())
        if job.keys is not None:
            asked = job.keys
            if len(asked) > 1 and self.random.random() < 0.2:  # its rows are wide
                asked = asked[: self.random.randrange(1, len(asked))]
            rows = [(key, row) for key, row in rows if key_of(key) in asked]
            unread = job.keys[len(asked) :]
            found = Rows(ORDERS, [(key_of(k), row_of(r)) for k, r in rows], None, unread)
        else:
            after, upto = job.range
            rows = [
                (k, r)
                for k, r in rows
                if (after is None or key_of(k) > after) and (upto is None or key_of(k) <= upto)
            ]
            cut = rows[: min(job.limit, 3)]
            last = key_of(cut[-1][0]) if len(cut) < len(rows) else None
            found = Rows(ORDERS, [(key_of(k), row_of(r)) for k, r in cut], last)
        self.reading.append(_Reading(job, self.snapshot()))
        self.arrived.append(Read(job, found))

    def collect(self, met: str = "") -> list[Read]:
        arrived, self.arrived = self.arrived, []
        return arrived

    def emit_fence(self) -> None:
        """One of the reads lets its fence go and ends."""
        if self.reading:
            self._let_go(self.reading.pop(self.random.randrange(len(self.reading))))

    def _let_go(self, reading: _Reading) -> None:
        kind: FenceKind = "backfill" if reading.job.keys is None else "repair"
        fence = Fence(reading.job.fence, kind, PREFIX, reading.job.table, reading.snapshot)
        self.emit(FENCE_PREFIX, fence.to_message())

    def close(self) -> None:
        """Reader processes end; a fence may have been on its way."""
        for reading in self.reading:
            if self.random.random() < 0.5:
                self._let_go(reading)
        self.reading.clear()
        self.arrived.clear()

    # --- the log (`cdc.protocols.Source`) ------------------------------------------------------------------------

    def identify(self) -> Identity:
        return Identity("1", 1, "db")

    def switch_point(self, timeline: int) -> int:
        raise NotImplementedError(timeline)

    def missing(self) -> frozenset[TableId]:
        return frozenset(self.unpublished)

    def prepare(self) -> bool:
        changed = bool(self.unpublished)
        self.unpublished.clear()
        return changed

    def tables(self) -> Sequence[Table]:
        """One of them is dropped before anybody can read it, over and over again."""
        return [ORDERS, Table(GONE, ORDERS.columns, ORDERS.key)]

    def slot(self) -> Slot | None:
        return None if self.slot_at is None else Slot(self.slot_at, False, "")

    def create_slot(self, waits: Callable[[str], None] = lambda _: None) -> int:
        """Transactions that run now end first; those in limbo stay there."""
        while self.open:
            self.commit()
        self.slot_at = self.lsn
        return self.lsn

    def drop_slot(self) -> None:
        self.slot_at = None

    def memos(self) -> Mapping[TableId, str]:
        return {}

    def start(self, after: int, memos: Mapping[TableId, str]) -> None:
        assert self.slot_at is not None
        assert after >= self.slot_at, "the slot has moved past what is stored"
        begun = 0
        self._next = len(self.log)
        for index, item in enumerate(self.log):
            if isinstance(item, Begin):
                begun = index
            if isinstance(item, Commit) and item.end_lsn > after:
                self._next = begun
                return
            if isinstance(item, Message) and item.lsn > after:
                self._next = index
                return

    def read(self, timeout: float) -> Sequence[Item]:
        items = self.log[self._next : self._next + self.random.randint(0, 6)]
        self._next += len(items)
        quiet = not self.log or isinstance(self.log[-1], Commit | Message | Progress)
        if quiet and self.read_to_its_end and not items and self.random.random() < 0.5:
            return [Progress(self.lsn)]
        return items

    @property
    def read_to_its_end(self) -> bool:
        return self._next == len(self.log)

    def confirm(self, lsn: int) -> None:
        assert self.slot_at is not None
        assert lsn <= self.lsn
        self.slot_at = max(self.slot_at, lsn)

    def keep_alive(self) -> None:
        """Nobody loses patience."""

    def waiting_for(self, xid: int) -> str:
        return str(xid)
