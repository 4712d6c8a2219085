"""Random histories, interleavings, budgets, crashes of capture and of the sink: the replica always equals the source."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

import pytest

from cdc.checkpoint import SinkCheckpoint
from cdc.pipeline.intake import Intake
from cdc.pipeline.open_transaction import ROW_OVERHEAD, TRANSACTION_OVERHEAD
from cdc.pipeline.selection import Selection
from cdc.pipeline.subscription import find_start
from cdc.pipeline.transactions import Group, Reread
from cdc.position import Position
from cdc.testing.memory_events import MemoryDecoder
from cdc.testing.memory_store import MemoryReplica, MemoryStore, MemoryTransaction
from tests.unit.apply_history import PREFIX, History, Source, State


def held_state(replica: MemoryReplica) -> State:
    return {
        collection: {int(str(row["id"])): str(row["text"]) for row in rows.values()}
        for collection, rows in replica.rows.items()
    }


def same(one: State, other: State) -> bool:
    return {c: r for c, r in one.items() if r} == {c: r for c, r in other.items() if r}


@dataclass
class Sink:
    """The apply loop without threads: each step is chosen at random, and may be the last before a crash."""

    chance: random.Random
    history: History
    budget: int
    replica: MemoryReplica = field(default_factory=MemoryReplica)
    crashes: float = 0.002
    most_used: int = 0
    parts: int = 0
    kept_out: int = 0

    def start(self, again: Reread | None = None) -> None:
        self.store = MemoryStore(self.replica)
        checkpoint = self.store.claim("sink", PREFIX)
        reader = self.history.source.topics.reader(self.chance.randrange(1 << 30))
        decoder = MemoryDecoder(self.history.source.events)
        selection = Selection(PREFIX)
        start = find_start(reader, decoder, selection, checkpoint)
        self.intake = Intake(reader, decoder, selection, checkpoint, start, self.budget, again)
        self.position = checkpoint.position
        self.transaction: MemoryTransaction | None = None
        self.queue: deque[tuple[Group, SinkCheckpoint | None]] = deque()

    def step(self) -> None:
        try:
            if self.chance.random() < self.crashes:
                self.start()
            elif self.chance.random() < 0.5:
                self._write()
            else:
                self._hand_over()
                if not (self.intake.assembler.used >= self.budget and self.queue):
                    self.intake.read(0.0)
                    self.kept_out += len(self.intake._kept_out)
                    self.intake.readmit()
        except Reread as again:
            self.start(again)
        self.most_used = max(self.most_used, self.intake.assembler.used)

    def done(self, last: int) -> bool:
        checkpoint = self.replica.checkpoints.get(("sink", PREFIX))
        return bool(checkpoint and checkpoint.position and checkpoint.position.commit_lsn >= last)

    def _hand_over(self) -> None:
        assembler = self.intake.assembler
        if len(self.queue) > 1:
            return
        group = assembler.take(self.chance.choice([1, 2000, 100_000]))
        if group is None and assembler.pressed and (part := assembler.take_part()):
            self.queue.append((part, None))
            self.parts += 1
        if assembler.streaming:
            return
        fence, tables = self.intake.watermarks.take(assembler)
        self.position = max(
            (p for p in (self.position, group and group.position, fence) if p), default=None
        )
        if group or fence:
            offsets = self.intake.offsets.changed()
            checkpoint = SinkCheckpoint(PREFIX, self.position, "memory", offsets, tables)
            self.queue.append((group or Group([], 0, 0, None), checkpoint))

    def _write(self) -> None:
        if not self.queue:
            return
        group, checkpoint = self.queue.popleft()
        self.transaction = self.transaction or self.store.begin()
        self.transaction.apply(group.events)
        if checkpoint is not None:
            self.transaction.save(checkpoint)
            self.transaction.commit()
            self.transaction = None
            self.equals_the_source()
        self.intake.assembler.give_back(group.size)

    def equals_the_source(self) -> None:
        position = self.replica.checkpoints["sink", PREFIX].position
        assert position is not None
        reached = Position(1, position.commit_lsn, position.total_order)
        states = [
            (lsn, state) for lsn, state in self.history.states.items() if (1, lsn, 1) <= reached
        ]
        expected = max(states, key=lambda each: each[0])[1] if states else {}
        assert same(held_state(self.replica), expected), f"at {position}"


def run_one(seed: int) -> Sink:
    print(f"seed {seed}")
    chance = random.Random(seed)
    source = Source(partitions=chance.choice([1, 2, 4]))
    source.create()
    history = History(chance, source)
    history.grow(chance.randint(5, 40), chance.choice([4, 60, 300]), chance.choice([0, 200, 4000]))
    history.write_with_crashes(chance.randint(0, 4))
    last = history.transactions[-1][0]
    if chance.random() < 0.5:
        source.watermark(last + 9, "s.items")
    sink = Sink(chance, history, budget=chance.choice([6_000, 30_000, 200_000, 10_000_000]))
    sink.start()
    for number in range(100_000):
        if sink.done(last):
            break
        sink.crashes = 0.002 if number < 5_000 else 0.0
        sink.step()
    for _ in range(300):
        sink.step()
    head = sink.intake.assembler.head
    assert sink.done(last), (
        f"deadlock: {sink.intake.assembler.used} bytes of {sink.budget}, head {head}"
    )
    assert same(held_state(sink.replica), history.states[last])
    return sink


def check(seed: int) -> None:
    sink = run_one(seed)
    topics = sink.history.source.topics
    largest = max(
        len(record.value or b"")
        for tp in topics.ends("p.s.items", "p.s.orders")
        for record in topics.records(tp)
    )
    row = largest + ROW_OVERHEAD + TRANSACTION_OVERHEAD
    assert sink.most_used <= sink.budget + 2 * row, (sink.most_used, sink.budget, row)


@pytest.mark.parametrize("block", range(3))
def test_the_replica_equals_the_source_at_each_commit_and_memory_is_bounded(block: int) -> None:
    for seed in range(block * 8, block * 8 + 8):
        check(seed)


@pytest.mark.matrix
@pytest.mark.parametrize("block", range(20))
def test_the_same_with_many_seeds(block: int) -> None:
    for seed in range(1000 + block * 50, 1000 + block * 50 + 50):
        check(seed)


def test_the_random_runs_meet_what_they_are_for() -> None:
    sinks = [run_one(seed) for seed in range(12)]
    assert sum(sink.parts > 0 for sink in sinks) > 1, "large transactions are taken away in parts"
    assert sum(sink.kept_out > 0 for sink in sinks) > 1, "partitions that run ahead are kept out"
