"""A source, its log, capture, topics, a sink and a replica in memory, moved on by chance between any two calls.

Commits enter the log in one order and become visible in another; a transaction may be on the topics, and in the
replica, while no snapshot shows it. A key stays locked until its writer is visible, as in PostgreSQL.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from cdc.checkpoint import SinkCheckpoint
from cdc.errors import Rejected
from cdc.event import Delivered, Record, TransactionMark
from cdc.fence import SIGNAL_PREFIX, Fence, Signal, Snapshot, Watermark
from cdc.position import Position, TopicPartition
from cdc.protocols import Bucket, Hashes, ReplicaState, TopicInfo
from cdc.table import Column, KeyRange, Table, TableId

PREFIX = "shop"
TABLE = Table(
    TableId("public", "items"),
    (
        Column("id", "long", nullable=False),
        Column("a", "long", nullable=False),
        Column("b", "string", nullable=True),
    ),
    ("id",),
)
TOPIC = f"{PREFIX}.{TABLE.id}"
PARTITIONS = 3

Row = dict[str, object]
Rows = dict[bytes, Row]
Write = tuple[bytes, Row | None, tuple[str, ...]]
"""Key, row after (None: deleted), unchanged columns. The key ``*`` with None: TRUNCATE."""

ALL = b"*"


def key_of(number: int) -> bytes:
    return b"%06d" % number


@dataclass
class Transaction:
    xid: int
    writes: list[Write] = field(default_factory=list)
    logged: int = 0
    """LSN of its commit record; 0 before."""


@dataclass
class World:
    """``cold`` keys are never written once the world runs; ``b`` of any key is never changed by an update."""

    random: random.Random
    keys: int = 60
    hot: int = 25
    busy: bool = True
    truncates: bool = True
    capture_runs: bool = True
    sink_runs: bool = True

    def __post_init__(self) -> None:
        self.source: Rows = {}
        self.replica: Rows = {}
        self.log: list[tuple[int, Transaction | Fence | Signal]] = []
        self.running: dict[int, Transaction] = {}
        self.limbo: list[Transaction] = []
        self.next_xid = 700
        self.lsn = 1000
        self.captured = 0
        self.decoded: dict[int, Transaction] = {}
        self.topic: list[list[Delivered]] = [[] for _ in range(PARTITIONS)]
        self.waiting_watermarks: list[Watermark] = []
        self.watermarks: list[Watermark] = []
        self.outbox: list[tuple[Position, list[Delivered]] | Watermark] = []
        self.applied = 0
        self.position = Position(1, 0, 0)
        for number in range(self.keys):
            row: Row = {"id": number, "a": 0, "b": f"b{number}"}
            self.source[key_of(number)] = dict(row)
            self.replica[key_of(number)] = dict(row)

    # --- what happens by itself ------------------------------------------------------------------------------

    def steps(self, count: int) -> None:
        for _ in range(self.random.randrange(count)):
            self.step()

    def step(self) -> None:
        choices = [self._commit, self._show, self._show]
        if self.busy:
            choices += [self._begin, self._write, self._write]
        if self.capture_runs:
            choices += [self._capture, self._capture, self._publish]
        if self.sink_runs:
            choices += [self._sink, self._sink]
        self.random.choice(choices)()

    def settle(self) -> None:
        """Let everything arrive."""
        while (
            self.running
            or self.limbo
            or self.captured < len(self.log)
            or self.applied < len(self.outbox)
        ):
            self._commit()
            self._show()
            self._capture()
            self._sink()

    def snapshot(self) -> Snapshot:
        unseen = {*self.running, *(t.xid for t in self.limbo)}
        return Snapshot(min(unseen, default=self.next_xid), self.next_xid, frozenset(unseen))

    def _begin(self) -> None:
        if len(self.running) < 4:
            self.running[self.next_xid] = Transaction(self.next_xid)
            self.next_xid += 1

    def _write(self) -> None:
        if not self.running:
            return
        transaction = self.random.choice(list(self.running.values()))
        locked = {
            key
            for t in (*self.running.values(), *self.limbo)
            if t is not transaction
            for key, *_ in t.writes
        }
        if ALL in locked:
            return
        if (
            self.truncates
            and self.random.random() < 0.002
            and not locked
            and not transaction.writes
        ):
            # It would empty the cold keys too: they come back in the same transaction.
            transaction.writes.append((ALL, None, ()))
            for number in range(self.hot, self.keys):
                if row := self.source.get(key_of(number)):
                    transaction.writes.append((key_of(number), dict(row), ()))
            return
        key = key_of(self.random.randrange(self.hot))
        if key in locked:
            return
        row = self._own_view(transaction, key)
        number = self.random.randrange(1_000_000)
        if row is None:
            transaction.writes.append((key, {"id": int(key), "a": number, "b": f"b{int(key)}"}, ()))
        elif self.random.random() < 0.3:
            transaction.writes.append((key, None, ()))
        else:
            unchanged = ("b",) if self.random.random() < 0.7 else ()
            transaction.writes.append((key, {**row, "a": number}, unchanged))

    def _own_view(self, transaction: Transaction, key: bytes) -> Row | None:
        row = self.source.get(key)
        for written, after, _ in transaction.writes:
            if written in (key, ALL):
                row = after
        return row

    def _commit(self) -> None:
        if not self.running:
            return
        transaction = self.running.pop(self.random.choice(list(self.running)))
        if not transaction.writes or self.random.random() < 0.1:
            return  # rolled back
        self.lsn += 8
        # Now and then a commit stands at the very LSN at which the fence before it ended.
        if self.log and isinstance(self.log[-1][1], Fence) and self.random.random() < 0.5:
            self.lsn = self.log[-1][0]
        transaction.logged = self.lsn
        self.log.append((self.lsn, transaction))
        self.limbo.append(transaction)

    def _show(self) -> None:
        if not self.limbo:
            return
        transaction = self.limbo.pop(self.random.randrange(len(self.limbo)))
        _apply_writes(self.source, transaction.writes)

    # --- capture and sink ------------------------------------------------------------------------------------

    def emit(self, what: Fence | Signal) -> int:
        self.lsn += 8
        self.log.append((self.lsn, what))
        return self.lsn

    def _capture(self) -> None:
        if self.captured == len(self.log):
            return
        lsn, entry = self.log[self.captured]
        self.captured += 1
        if isinstance(entry, Transaction):
            self.decoded[entry.xid] = entry
            self._send(Position(1, lsn, 0), entry.xid, [*entry.writes])
        elif isinstance(entry, Signal):
            rows = {
                key: dict(row) for key in entry.keys if (row := self.source.get(key)) is not None
            }
            self._repairs[entry.id] = (entry.keys, rows)
            self.emit(Fence(entry.id, "repair", PREFIX, TABLE.id, self.snapshot()))
        elif entry.kind == "repair":
            self._admit(entry, lsn)
        else:
            self._mark(entry, lsn, self._void(entry))

    _repairs: dict[str, tuple[Sequence[bytes], Rows]] = field(default_factory=dict)

    def _admit(self, fence: Fence, lsn: int) -> None:
        keys, rows = self._repairs.pop(fence.id)
        touched = {
            key
            for t in self.decoded.values()
            if not fence.snapshot.sees(t.xid)
            for key, *_ in t.writes
        }
        again = tuple(key for key in keys if key in touched or ALL in touched)
        self._send(
            Position(1, lsn - 1, 0), 0, [(k, rows.get(k), ()) for k in keys if k not in again]
        )
        if again:
            rows = {key: dict(row) for key in again if (row := self.source.get(key)) is not None}
            self._repairs[fence.id] = (again, rows)
            self.emit(Fence(fence.id, "repair", PREFIX, TABLE.id, self.snapshot()))
        else:
            self._mark(fence, lsn, "")

    def _void(self, fence: Fence) -> str:
        for transaction in self.decoded.values():
            if not fence.snapshot.sees(transaction.xid) and transaction.logged < fence.low:
                return f"transaction {transaction.xid} is in limbo"
        return ""

    def _mark(self, fence: Fence, lsn: int, void: str) -> None:
        mark = Watermark(fence.id, fence.kind, TABLE.id, 1, lsn, {}, void=void)
        self.waiting_watermarks.append(mark)

    def _publish(self) -> None:
        """Late, so that the ends may lie beyond the fence."""
        if self.waiting_watermarks and self.random.random() < 0.5:
            mark = self.waiting_watermarks.pop(0)
            ends = {(TOPIC, number): len(records) for number, records in enumerate(self.topic)}
            ends[f"{PREFIX}.transaction", 0] = 0
            mark = Watermark(mark.fence, mark.kind, mark.table, 1, mark.lsn, ends, mark.void)
            self.watermarks.append(mark)
            self.outbox.append(mark)

    def _send(self, at: Position, xid: int, writes: list[Write]) -> None:
        sent: list[Delivered] = []
        for number, (key, after, unchanged) in enumerate(writes, 1):
            position = Position(1, at.commit_lsn, number)
            partitions = range(PARTITIONS) if key == ALL else [int(key) % PARTITIONS]
            for partition in partitions:
                shown = dict(after) if after is not None else None
                for column in unchanged:
                    assert shown is not None
                    shown[column] = "__unavailable"
                event = Delivered(
                    collection=str(TABLE.id),
                    table=TABLE,
                    op="t" if key == ALL else "d" if after is None else "u" if xid else "r",
                    position=position,
                    xid=xid & 0xFFFFFFFF,
                    key=None if key == ALL else key,
                    before=None,
                    after=None if shown is None else json.dumps(shown).encode(),
                    unchanged=unchanged,
                    other_key=None,
                    topic=TOPIC,
                    partition=partition,
                    offset=len(self.topic[partition]),
                    size=100,
                )
                self.topic[partition].append(event)
                sent.append(event)
        self.outbox.append((at, sent))

    def _sink(self) -> None:
        if self.applied == len(self.outbox):
            return
        item = self.outbox[self.applied]
        self.applied += 1
        if isinstance(item, Watermark):
            self.position = max(self.position, Position.at_fence(1, item.lsn))
            return
        for event in item[1]:
            if event.op == "t":
                if event.partition == 0:
                    self.replica.clear()
            elif event.after is None:
                self.replica.pop(event.key or b"", None)
            else:
                after = json.loads(event.after)
                for column in event.unchanged:
                    after[column] = self.replica.get(event.key or b"", {}).get(column)
                self.replica[event.key or b""] = after
        if item[1]:
            self.position = max(self.position, item[1][-1].position)


def _apply_writes(rows: Rows, writes: Sequence[Write]) -> None:
    for key, after, _ in writes:
        if key == ALL:
            rows.clear()
        elif after is None:
            rows.pop(key, None)
        else:
            rows[key] = dict(after)


def _hash(key: bytes, row: Row) -> tuple[int, int]:
    digest = hashlib.blake2b(
        key + json.dumps(row, sort_keys=True).encode(), digest_size=16
    ).digest()
    return int.from_bytes(digest[:8]), int.from_bytes(digest[8:])


class Reader:
    """`cdc.protocols.RangeReader` over a copy of the rows."""

    def __init__(self, rows: Rows) -> None:
        self._rows = {key: dict(row) for key, row in sorted(rows.items())}

    def _range(self, key_range: KeyRange) -> list[bytes]:
        after, upto = key_range
        return [
            k for k in self._rows if (after is None or k > after) and (upto is None or k <= upto)
        ]

    def digest(self, key_range: KeyRange, bucket_rows: int, row_limit: int) -> Sequence[Bucket]:
        keys = self._range(key_range)
        ends: list[bytes | None] = list(keys[bucket_rows - 1 : row_limit : bucket_rows])
        if len(ends) < row_limit // bucket_rows:
            ends.append(key_range.upto)
        return self.digest_at(key_range, ends)

    def digest_at(self, key_range: KeyRange, ends: Sequence[bytes | None]) -> Sequence[Bucket]:
        buckets = []
        after = key_range.after
        for end in ends:
            hashes = [_hash(key, self._rows[key]) for key in self._range(KeyRange(after, end))]
            sums = (sum(h[0] for h in hashes) % 2**64, sum(h[1] for h in hashes) % 2**64)
            buckets.append(Bucket(end, len(hashes), sums))
            after = end
        return buckets

    def hashes(self, key_range: KeyRange) -> Hashes:
        keys = self._range(key_range)
        return Hashes(keys, [_hash(key, self._rows[key]) for key in keys])

    def rows(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        return {key: json.dumps(self._rows[key]).encode() for key in keys if key in self._rows}

    def texts(self, keys: Sequence[bytes]) -> Mapping[bytes, Mapping[str, str | None]]:
        return {
            key: {name: str(value) for name, value in self._rows[key].items()}
            for key in keys
            if key in self._rows
        }


class Sides:
    """`SourceSide`, `ReplicaSide`, `TopicReader` and `EventDecoder` of a world, which moves on at every call."""

    def __init__(self, world: World, pace: int = 30) -> None:
        self.world = world
        self._pace = pace

    def _move(self) -> None:
        self.world.steps(self._pace)

    def close(self) -> None:
        pass


class Source(Sides):
    @contextmanager
    def read(self, table: Table, fence: str, low: int) -> Iterator[tuple[Reader, Snapshot]]:
        self._move()
        snapshot = self.world.snapshot()
        reader = Reader(self.world.source)
        self._move()
        yield reader, snapshot
        self.world.emit(Fence(fence, "verify", PREFIX, table.id, snapshot, low))
        self._move()

    def emit(self, prefix: str, content: bytes) -> int:
        assert prefix == SIGNAL_PREFIX
        return self.world.emit(Signal.from_message(content))

    def mark(self, fence: Fence) -> int:
        self._move()
        return self.world.emit(fence)

    def snapshot(self) -> Snapshot:
        return self.world.snapshot()

    def tables(self) -> Sequence[Table]:
        return [TABLE]

    def incomparable(self, table: Table) -> str:
        return ""

    def not_compared(self, table: Table) -> Sequence[str]:
        return ()

    def estimate(self, table: Table) -> int:
        return self.world.keys


class Replica(Sides):
    state_of_table = "live"

    def state(self, sink: str, source: str) -> ReplicaState:
        self._move()
        return self._state()

    @contextmanager
    def read(self, table: Table, sink: str, source: str) -> Iterator[tuple[Reader, ReplicaState]]:
        self._move()
        reader, state = Reader(self.world.replica), self._state()
        self._move()
        yield reader, state

    def _state(self) -> ReplicaState:
        return ReplicaState(
            SinkCheckpoint(PREFIX, self.world.position, tables={str(TABLE.id): self.state_of_table})  # type: ignore[dict-item]
        )


class Topics(Sides):
    """Records carry their place in the world instead of bytes; the decoder finds it there."""

    def __init__(self, world: World, pace: int = 30) -> None:
        super().__init__(world, pace)
        self._at: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()

    def assign(self, at: Mapping[TopicPartition, int]) -> None:
        self._at.update(at)

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        self._paused.update(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        self._paused.difference_update(partitions)

    def read(self, timeout: float, limit: int = 10_000) -> Sequence[Record]:
        self._move()
        records = []
        for at, offset in self._at.items():
            if at not in self._paused:
                records += [Record(*at, None, b"x", offset=n) for n in range(offset, self._end(at))]
                self._at[at] = self._end(at)
        return records

    def position(self, partition: TopicPartition) -> int:
        return self._at[partition]

    def _end(self, at: TopicPartition) -> int:
        if at.topic == TOPIC:
            return len(self.world.topic[at.partition])
        return len(self.world.watermarks)

    def bounds(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, tuple[int, int]]:
        self._move()
        return {at: (0, self._end(at)) for at in partitions}

    def topics(self) -> Mapping[str, TopicInfo]:
        return {f"{PREFIX}.watermark": TopicInfo("", 1, "delete")}

    def cluster_id(self) -> str:
        return "in memory"


class Decoder:
    """`cdc.protocols.EventDecoder`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def data(self, records: Sequence[Record]) -> list[Delivered | Rejected | None]:
        return [self._world.topic[record.partition][record.offset] for record in records]

    def key(self, record: Record) -> bytes | None:
        raise NotImplementedError

    def transaction(self, record: Record) -> TransactionMark:
        raise NotImplementedError

    def watermark(self, record: Record) -> Watermark:
        return self._world.watermarks[record.offset]

    def values(self, table: Table, row: bytes) -> Mapping[str, object]:
        values: Mapping[str, object] = json.loads(row)
        return values

    def key_values(self, table: Table, key: bytes) -> Mapping[str, object]:
        return {"id": int(key)}
