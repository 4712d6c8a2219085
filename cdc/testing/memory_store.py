"""A replica in memory: what it holds outlives its stores, as a database outlives its clients."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

from cdc.checkpoint import SinkCheckpoint
from cdc.errors import Fenced, Refused, Rejected, Unreachable
from cdc.event import Delivered
from cdc.protocols import Shape
from cdc.table import Table
from cdc.testing.rows import row_values

Row = Mapping[str, object]
Rows = dict[str, dict[bytes, Row]]
ReadRow = Callable[[Table, bytes], Row]


@dataclass
class MemoryReplica:
    """Rows by collection and key, checkpoints by (sink, source). Every commit appears at once.

    ``away`` makes every call of its stores raise Unreachable. ``lose_commit`` is for the next commit: it raises
    Unreachable ``before`` or ``after`` it took effect. ``on_commit`` is called with the rows after each one.
    """

    rows: Rows = field(default_factory=dict)
    checkpoints: dict[tuple[str, str], SinkCheckpoint] = field(default_factory=dict)
    epochs: Counter[tuple[str, str]] = field(default_factory=Counter)
    releases: Counter[tuple[str, str]] = field(default_factory=Counter)
    away: bool = False
    lose_commit: Literal["", "before", "after"] = ""
    on_commit: Callable[[Rows, SinkCheckpoint | None], None] | None = None
    commits: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reach(self) -> None:
        """Raise Unreachable while the replica is away."""
        if self.away:
            raise Unreachable("the replica in memory is away")


class MemoryStore:
    """`cdc.protocols.Store` on a `MemoryReplica`. Tables are made by their first event, or by ``ensure``."""

    transactional = True

    def __init__(self, replica: MemoryReplica, read_row: ReadRow = row_values) -> None:
        self.replica = replica
        self.owner: tuple[str, str] = ("", "")
        self.epoch = 0
        self.releases = 0
        self.read_row = read_row
        self.missing: Counter[str] = Counter()
        self.mismatched: Counter[str] = Counter()

    def claim(self, sink: str, source: str) -> SinkCheckpoint:
        self.replica.reach()
        with self.replica.lock:
            if self.owner == (sink, source):
                self.check_epoch()
            self.owner = (sink, source)
            self.replica.epochs[self.owner] += 1
            self.epoch = self.replica.epochs[self.owner]
            self.releases = self.replica.releases[self.owner]
            self.missing.clear()
            self.mismatched.clear()
            return self.replica.checkpoints.get(self.owner) or SinkCheckpoint(source, None)

    def begin(self) -> MemoryTransaction:
        self.replica.reach()
        self.check_epoch()
        return MemoryTransaction(self)

    @contextmanager
    def beside(self, sink: str, source: str) -> Iterator[tuple[SinkCheckpoint, MemoryTransaction]]:
        self.replica.reach()
        other = MemoryStore(self.replica, self.read_row)
        other.owner = (sink, source)
        if other.owner not in self.replica.checkpoints:
            raise Refused("the replica in memory holds no checkpoint of this sink")
        other.epoch = self.replica.epochs[other.owner]
        other.releases = self.replica.releases[other.owner]
        yield self.replica.checkpoints[other.owner], MemoryTransaction(other, beside=True)

    def missing_rows(self) -> Mapping[str, int]:
        return dict(self.missing)

    def mismatched_rows(self) -> Mapping[str, int]:
        return dict(self.mismatched)

    def close(self) -> None:
        """Nothing is kept open."""

    def check_epoch(self) -> None:
        """Raise Fenced when a newer owner has claimed."""
        if self.replica.epochs[self.owner] != self.epoch:
            raise Fenced(f"sink {self.owner[0]} has a newer owner")


class MemoryTransaction:
    """`cdc.protocols.StoreTransaction`: a copy of what it touches, put in place by ``commit``."""

    def __init__(self, store: MemoryStore, *, beside: bool = False) -> None:
        self._store = store
        self._beside = beside
        self._rows: Rows = {}
        self._removed: dict[tuple[str, bytes], Row] = {}
        self._missing: Counter[str] = Counter()
        self._mismatched: Counter[str] = Counter()
        self._checkpoint: SinkCheckpoint | None = None
        self._ended = False

    def apply(self, events: Sequence[Delivered]) -> None:
        self._store.replica.reach()
        for event in events:
            self._apply(self._touched(event.collection), event)

    def attempt(self, events: Sequence[Delivered]) -> Rejected | None:
        before = (
            {collection: dict(rows) for collection, rows in self._rows.items()},
            dict(self._removed),
            self._missing.copy(),
            self._mismatched.copy(),
        )
        try:
            self.apply(events)
        except Rejected as error:
            self._rows, self._removed, self._missing, self._mismatched = before
            return error
        return None

    def ensure(self, shape: Shape) -> None:
        self._store.replica.reach()
        self._touched(str(shape.table.id))

    def save(self, checkpoint: SinkCheckpoint) -> None:
        self._store.replica.reach()
        if self._beside:
            held = self._store.replica.checkpoints[self._store.owner]
            checkpoint = replace(held, parked=(), released=checkpoint.released)
        self._checkpoint = checkpoint

    def commit(self) -> None:
        replica = self._store.replica
        replica.reach()
        lost, replica.lose_commit = replica.lose_commit, ""
        if lost != "before":
            with replica.lock:
                self._store.check_epoch()
                if self._store.releases != replica.releases[self._store.owner]:
                    raise Unreachable("keys were released beside the owner", "claim again")
                self._take_effect(replica)
        self._ended = True
        if lost:
            raise Unreachable("the commit's outcome is unknown")

    def rollback(self) -> None:
        self._ended = True

    def put_in_place(self) -> None:
        """Let the rows appear, without any checkpoint."""
        self._store.replica.rows.update(self._rows)
        self._store.missing.update(self._missing)
        self._store.mismatched.update(self._mismatched)

    def _take_effect(self, replica: MemoryReplica) -> None:
        self.put_in_place()
        replica.commits += 1
        if self._checkpoint is not None:
            saved = self._checkpoint
            before = replica.checkpoints.get(self._store.owner) or SinkCheckpoint(
                saved.source, None
            )
            released = set(saved.released)
            parked = (*(one for one in before.parked if one not in released), *saved.parked)
            tables = {**before.tables, **saved.tables}
            held = {one.collection for one in parked}
            for name, state in tables.items():
                if state in ("live", "parked"):
                    tables[name] = "parked" if name in held else "live"
            replica.checkpoints[self._store.owner] = replace(
                saved,
                offsets={**before.offsets, **saved.offsets},
                tables=tables,
                since={**before.since, **saved.since},
                parked=parked,
                released=(),
            )
            replica.releases[self._store.owner] += self._beside
        if replica.on_commit is not None:
            replica.on_commit(replica.rows, self._checkpoint)

    def _touched(self, collection: str) -> dict[bytes, Row]:
        if collection not in self._rows:
            self._rows[collection] = dict(self._store.replica.rows.get(collection, {}))
        return self._rows[collection]

    def _apply(self, rows: dict[bytes, Row], event: Delivered) -> None:
        if event.op == "t":
            rows.clear()
        elif event.op == "m":
            return
        elif event.key is None:
            raise Rejected(f"{event.collection} has no key", "give the table a primary key")
        elif event.op == "d":
            removed = rows.pop(event.key, None)
            if removed is not None:
                self._removed[event.collection, event.key] = removed
            self._expect(event, removed)
        else:
            self._upsert(rows, event, event.key)

    def _upsert(self, rows: dict[bytes, Row], event: Delivered, key: bytes) -> None:
        if event.after is None:
            raise Rejected(f"{event.collection}: {event.op} without a row")
        new = dict(self._store.read_row(event.table, event.after))
        old = rows.get(key)
        if event.op == "u":
            self._expect(event, old)
        if event.unchanged:
            if old is None and event.other_key is not None:
                moved = (event.collection, event.other_key)
                old = self._removed.get(moved) or rows.get(event.other_key)
            if old is None:
                return  # an event that does not carry the whole row never makes one
            new |= {column: old[column] for column in event.unchanged}
        rows[key] = new

    def _expect(self, event: Delivered, old: Row | None) -> None:
        before = self._store.replica.checkpoints.get(self._store.owner)
        live = before is not None and before.tables.get(event.collection) in (
            "live",
            "parked",
        )
        if not (live and event.xid):
            return
        if old is None:
            self._missing[event.collection] += 1
        elif (
            event.table.identity == "full"
            and event.before is not None
            and dict(old) != dict(self._store.read_row(event.table, event.before))
        ):
            self._mismatched[event.collection] += 1
