"""A source's history for tests of apply: transactions, what capture wrote of them crash by crash, and the truth."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from cdc.event import Op, Record
from cdc.fence import FenceKind
from cdc.position import Position, TopicPartition
from cdc.testing.memory_events import MemoryEvents
from cdc.testing.memory_topics import MemoryTopics
from cdc.testing.rows import make_table

PREFIX = "p"
ITEMS = make_table("s.items", "id", "text")
ORDERS = make_table("s.orders", "id", "text")
TRANSACTIONS = TopicPartition("p.transaction", 0)
WATERMARKS = TopicPartition("p.watermark", 0)

State = dict[str, dict[int, str]]
Change = tuple[str, Op, int, str]


@dataclass
class Source:
    """Writes to ``topics`` as a capture would."""

    partitions: int = 2
    topics: MemoryTopics = field(default_factory=MemoryTopics)

    def __post_init__(self) -> None:
        self.events = MemoryEvents(PREFIX, [ITEMS, ORDERS], self.partitions)

    def create(self) -> None:
        for table in (ITEMS, ORDERS):
            self.topics.create(f"{PREFIX}.{table.id}", self.partitions)
        self.topics.create(TRANSACTIONS.topic)
        self.topics.create(WATERMARKS.topic)

    def records(
        self, lsn: int, *changes: Change, end: bool = True, xid: int = 1, generation: int = 1
    ) -> list[Record]:
        """BEGIN, rows, END of one transaction; ``total_order`` counts from 1."""
        records = [self.events.begin(lsn, xid)]
        counts: dict[str, int] = {}
        for order, (collection, op, key, text) in enumerate(changes, 1):
            position = Position(generation, lsn, order)
            counts[collection] = counts.get(collection, 0) + 1
            if op == "t":
                records += self.events.truncate(collection, position, xid)
                continue
            row: Mapping[str, object] = {"id": key, "text": text}
            records.append(self.events.change(collection, op, row, position, xid=xid))
            if op == "d":
                records.append(self.events.tombstone(collection, row))
        return [*records, self.events.end(lsn, counts, xid)] if end else records

    def write(self, lsn: int, *changes: Change, end: bool = True, xid: int = 1) -> None:
        self.topics.append(self.records(lsn, *changes, end=end, xid=xid))

    def watermark(self, lsn: int, table: str = "", phase: str = "", void: str = "") -> None:
        topics = [TRANSACTIONS.topic] + ([f"{PREFIX}.{table}"] if table else [])
        ends = self.topics.ends(*topics)
        kind: FenceKind = "backfill" if phase else "mark"
        self.topics.append(
            [
                self.events.watermark(
                    lsn,
                    ends,
                    kind=kind,
                    phase=phase,
                    table=table,
                    void=void,
                )
            ]
        )


def applied(state: State, *changes: Change) -> State:
    """The state after one more transaction."""
    after = {collection: dict(rows) for collection, rows in state.items()}
    for collection, op, key, text in changes:
        rows = after.setdefault(collection, {})
        if op == "t":
            rows.clear()
        elif op == "d":
            rows.pop(key, None)
        else:
            rows[key] = text
    return after


@dataclass
class History:
    """Random transactions: ``states`` by commit LSN, and the records of each."""

    chance: random.Random
    source: Source
    transactions: list[tuple[int, list[Change]]] = field(default_factory=list)
    states: dict[int, State] = field(default_factory=dict)

    def grow(self, count: int, most_rows: int, longest_text: int) -> None:
        state: State = self.states[max(self.states)] if self.states else {}
        lsn = max(self.states, default=0)
        for _ in range(count):
            lsn += 8 * self.chance.randint(1, 3)
            rows = self.chance.choice([1, 1, 2, 3, most_rows])
            changes = [self._change(longest_text) for _ in range(rows)]
            state = applied(state, *changes)
            self.transactions.append((lsn, changes))
            self.states[lsn] = state

    def write_with_crashes(self, crashes: int) -> None:
        """Append all to the topics: capture crashes so often, loses what is in flight, starts at an earlier BEGIN.

        At some crashes a transaction is torn that no later capture sends: it is dead, and not in the history.
        """
        done = 0
        for _ in range(crashes):
            stop = self.chance.randint(done, len(self.transactions))
            numbered = [
                (i, r) for i in range(done, stop) for r in self._records(self.transactions[i])
            ]
            numbered += [(stop, record) for record in self._torn(stop)]
            kept = self._survivors([record for _, record in numbered])
            self.source.topics.append(
                r for (_, r), keep in zip(numbered, kept, strict=True) if keep
            )
            safe = min(
                (i for (i, _), keep in zip(numbered, kept, strict=True) if not keep), default=stop
            )
            done = self.chance.randint(done, safe)
        self.source.topics.append(r for t in self.transactions[done:] for r in self._records(t))

    def _torn(self, number: int) -> list[Record]:
        """What was sent of a transaction before its END: of the next one, or of one that is never sent again."""
        if number < len(self.transactions) and self.chance.random() < 0.5:
            records = self._records(self.transactions[number])
        else:
            lsn = self.transactions[number - 1][0] + 4 if number else 4
            records = self.source.records(lsn, *(self._change(50) for _ in range(5)))
        return records[: self.chance.randint(0, len(records) - 1)]

    def _survivors(self, records: list[Record]) -> list[bool]:
        """Each partition keeps a prefix: the crash loses what was not acknowledged, partition by partition."""
        first_lost: dict[TopicPartition, int] = {}
        kept = []
        for index, record in enumerate(records):
            tp = TopicPartition(record.topic, record.partition)
            if tp not in first_lost:
                first_lost[tp] = self.chance.randint(index, len(records) * 2)
            kept.append(index < first_lost[tp])
        return kept

    def _records(self, transaction: tuple[int, list[Change]]) -> list[Record]:
        return self.source.records(transaction[0], *transaction[1])

    def _change(self, longest: int) -> Change:
        collection = self.chance.choice([str(ITEMS.id), str(ORDERS.id)])
        ops: list[Op] = ["c", "u", "d", "t"]
        op = self.chance.choices(ops, [5, 3, 2, 0.2])[0]
        text = "x" * self.chance.randint(0, longest) + str(self.chance.random())
        return (collection, op, self.chance.randint(1, 30), text)
