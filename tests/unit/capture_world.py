"""A whole line in one process and one thread: a simulated source, the real capture, topics in memory, the real apply.

Every step is chosen by one seed. Capture crashes between any two steps: what its producer had not delivered is lost,
partition by partition, and the next one goes on from the checkpoint that was stored last.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any
from unittest import mock

from cdc.checkpoint import SinkCheckpoint
from cdc.errors import Unreachable
from cdc.fence import FENCE_PREFIX
from cdc.pipeline import backfill as backfill_module
from cdc.pipeline import capture as capture_module
from cdc.pipeline import delivery as delivery_module
from cdc.pipeline import saving as saving_module
from cdc.pipeline.capture import Capture
from cdc.pipeline.intake import Intake
from cdc.pipeline.resume import Owner, resume
from cdc.pipeline.selection import Selection
from cdc.pipeline.subscription import find_start
from cdc.pipeline.transactions import Reread
from cdc.position import Position, TopicPartition
from cdc.table import Table
from cdc.testing.memory_checkpoints import MemoryCheckpoints, MemoryCheckpointTopic
from cdc.testing.memory_encoder import MemoryEncoder
from cdc.testing.memory_events import MemoryDecoder, MemoryEvents
from cdc.testing.memory_producer import MemoryProducer
from cdc.testing.memory_store import MemoryReplica, MemoryStore
from cdc.testing.memory_topics import MemoryTopics
from cdc.testing.memory_transactions import (
    MemoryTransactionalCheckpoints,
    MemoryTransactionalProducer,
)
from tests.unit.simulated_source import GONE, ORDERS, PREFIX, Row, SimulatedSource, key_of, parsed

COLLECTION = str(ORDERS.id)


class _AtOnce:
    """An executor without a thread: what is given to it is done."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def submit(self, call: Callable[..., Any], *arguments: object) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(call(*arguments))
        except Unreachable as error:
            future.set_exception(error)
        return future

    def shutdown(self, **_: object) -> None: ...


@contextmanager
def without_clocks() -> Iterator[None]:
    """Nothing of capture waits for time to pass, and nothing happens in a thread."""
    with (
        mock.patch.object(saving_module, "ThreadPoolExecutor", _AtOnce),
        mock.patch.object(delivery_module, "_SAVE_SECONDS", 0.0),
        mock.patch.object(delivery_module, "_SAVE_SECONDS_WHEN_AWAITED", 0.0),
        mock.patch.object(capture_module, "_LOOK_SECONDS", 0.0),
        mock.patch.object(backfill_module, "_RETRY_SECONDS", 0.0),
    ):
        yield


class World:
    """`step` until bored, then `finish`; what must hold is asserted on the way."""

    def __init__(
        self, seed: int, *, crashes: float = 0.01, partitions: int = 2, atomic: bool = False
    ) -> None:
        self.atomic = atomic
        self.random = random.Random(seed)
        self.source = SimulatedSource(self.random, readers=self.random.choice([1, 2, 3]))
        self.source.failing_reads = 0.05
        self.crashes = crashes
        self.partitions = partitions
        self.topics = MemoryTopics()
        for topic, count in (("transaction", 1), ("watermark", 1), (COLLECTION, partitions)):
            self.topics.create(f"{PREFIX}.{topic}", count)
        self.checkpoints = MemoryCheckpoints()
        self.crashed = 0
        for _ in range(30):
            self.source.traffic()
        self.replica = SimulatedReplica(self.random, self.source, self.topics, partitions)
        self._start()

    def step(self) -> None:
        source, chance = self.source, self.random.random()
        if chance < 0.001:
            source.emit(FENCE_PREFIX, b"{nobody's}")
        rare = [source.ask_for_repair, source.ask_for_copy, source.compare]
        if chance < 0.4:
            source.traffic()
        elif chance < 0.5:
            source.emit_fence()
        elif chance < 0.53:
            source.fence_comparison()
        elif chance < 0.55:
            self.random.choices(rare, weights=[3, 1, 6])[0]()
        elif chance < 0.65:
            self.writer.deliver(lambda waiting: self.random.randint(0, waiting))
        elif chance < 0.75:
            self.replica.step()
        else:
            self.capture_turn()

    def capture_turn(self) -> None:
        if self.random.random() < self.crashes:
            self._crash()
            return
        lost = self.random.random() < self.crashes
        self.checkpoints.lose = self.random.choice(["before", "after"]) if lost else ""
        if self.crashes and self.random.random() < 0.7:
            self.capture._delivery._save_due = math.inf  # not yet
        try:
            self.capture._turn()
        except Unreachable:
            self._crash()

    def finish(self) -> None:
        """No more traffic, no more crashes: in the end the replica equals the source."""
        self.crashes = self.source.failing_reads = self.capture._delivery._save_due = 0.0
        source = self.source
        while source.comparing:
            source.fence_comparison()
        source.finish()
        for _ in range(3000):
            source.finish()  # a crash may come once more, from a save that was lost
            source.emit_fence()
            self.writer.flush(0)
            self.capture_turn()
            if source.read_to_its_end and not (self.capture._backfill.busy or self.writer.pending):
                break
        else:
            raise AssertionError("capture never ends")
        place = source.mark_place()
        for _ in range(3000):
            self.capture_turn()
            self.writer.flush(0)
            self.replica.step()
            if self.replica.position and self.replica.position.passed(1, place):
                break
        else:
            raise AssertionError("the replica never comes to the log's end")
        assert self.replica.rows() == {key_of(key): row for key, row in source.visible.items()}
        assert self.replica.states().get(COLLECTION) == "live"
        self._positions_appear_in_order()
        self._fences_are_judged()
        self.capture._delivery.drain()
        stored = self.checkpoints.checkpoint("c")
        assert stored is not None
        assert stored.lsn == source.slot_at
        assert stored.lsn >= place
        assert not stored.admitted
        assert not stored.signals
        assert GONE not in stored.backfills

    def _start(self) -> None:
        source = self.source
        self.checkpoints.lose = ""
        topic = MemoryCheckpointTopic(self.checkpoints)
        checkpoint = resume(
            source,
            topic,
            connector="c",
            slot="s",
            snapshot_mode="initial",
            owner=Owner(),
        )
        self.writer = MemoryProducer(self.topics)
        if self.atomic:
            self.writer = MemoryTransactionalProducer(self.topics)
            topic = MemoryTransactionalCheckpoints(self.checkpoints, self.writer)
            assert topic.claim("c") == checkpoint
        self.capture = Capture(
            connector="c",
            prefix=PREFIX,
            source=source,
            encoder=MemoryEncoder(PREFIX, self._count),
            writer=self.writer,
            checkpoints=topic,
            checkpoint=checkpoint,
            readers=source,
            partitions=self._count,
            pinned=dict,
            commit_seconds=0.0,
        )
        self.capture._begin()

    def _count(self, topic: str) -> int:
        if topic not in self.topics.infos():
            self.topics.create(topic, self.partitions)
        return self.topics.infos()[topic].partitions

    def _crash(self) -> None:
        self.crashed += 1
        if self.random.random() < 0.7:
            self.writer.deliver(lambda waiting: self.random.randint(0, waiting))
        self.source.close()
        if self.crashes:  # at the end of a run the traffic is over, whatever still goes away
            for _ in range(self.random.randrange(10)):
                self.source.traffic()
        self._start()

    def _positions_appear_in_order(self) -> None:
        events = self.replica.events
        for number in range(self.partitions):
            records = self.topics.records(TopicPartition(f"{PREFIX}.{COLLECTION}", number))
            newest = Position(0, 0, 0)
            seen: set[tuple[Position, bytes | None]] = set()
            for event in events.data(records):
                if event is None:
                    continue
                assert not isinstance(event, Exception)
                if (event.position, event.key) in seen:
                    assert not self.atomic, f"{event.position} stands there twice"
                else:
                    assert event.position > newest, "a position appears behind a higher one"
                    newest = event.position
                    seen.add((event.position, event.key))

    def _fences_are_judged(self) -> None:
        watermarks = [
            self.replica.events.watermark_of(record)
            for record in self.topics.records(TopicPartition(f"{PREFIX}.watermark", 0))
        ]
        valid = {mark.fence for mark in watermarks if not mark.void}
        met = {mark.fence for mark in watermarks}
        for compared in self.source.compared:
            assert compared.fence in met
            limbo = self.source.in_limbo(compared)
            assert not (limbo and compared.fence in valid), (
                f"{compared.fence} is called valid, with {limbo} in limbo"
            )


class SimulatedReplica:
    """The real apply, step by step, into a store in memory. A live table equals the source at each commit."""

    def __init__(
        self,
        chance: random.Random,
        source: SimulatedSource,
        topics: MemoryTopics,
        partitions: int,
    ) -> None:
        self.random = chance
        self.source = source
        self.topics = topics
        gone = Table(GONE, ORDERS.columns, ORDERS.key)
        self.events = MemoryEvents(PREFIX, [ORDERS, gone], partitions)
        self.replica = MemoryReplica()
        self._start()

    def rows(self) -> dict[bytes, Row]:
        found = self.replica.rows.get(COLLECTION, {})
        return {key: (int(str(row["a"])), int(str(row["b"]))) for key, row in found.items()}

    def states(self) -> dict[str, str]:
        checkpoint = self.replica.checkpoints.get(("sink", PREFIX))
        return dict(checkpoint.tables) if checkpoint else {}

    def step(self) -> None:
        try:
            self._read_and_apply()
        except Reread as again:
            self._start(again)

    def _start(self, again: Reread | None = None) -> None:
        self.store = MemoryStore(
            self.replica, lambda _, row: dict(zip("ab", parsed(row), strict=True))
        )
        checkpoint = self.store.claim("sink", PREFIX)
        reader = self.topics.reader(self.random.randrange(1 << 30))
        decoder = MemoryDecoder(self.events)
        selection = Selection(PREFIX)
        start = find_start(reader, decoder, selection, checkpoint)
        self.intake = Intake(reader, decoder, selection, checkpoint, start, 1 << 20, again)
        self.position = checkpoint.position

    def _read_and_apply(self) -> None:
        self.intake.read(0.0)
        self.intake.readmit()
        assembler = self.intake.assembler
        group = assembler.take(1 << 20)
        fence, tables = self.intake.watermarks.take(assembler)
        if group is None and fence is None:
            return
        places = [p for p in (self.position, group and group.position, fence) if p]
        self.position = max(places)
        transaction = self.store.begin()
        if group is not None:
            transaction.apply(group.events)
            assembler.give_back(group.size)
        offsets = self.intake.offsets.changed()
        transaction.save(SinkCheckpoint(PREFIX, self.position, "memory", offsets, tables))
        transaction.commit()
        if self.states().get(COLLECTION) == "live":
            self._equals_the_source()

    def _equals_the_source(self) -> None:
        assert self.position is not None
        past = [lsn for lsn in self.source.states if Position(1, lsn, 1) <= self.position]
        expected = self.source.states[max(past)] if past else {}
        assert self.rows() == {key_of(key): row for key, row in expected.items()}, (
            f"the replica is live at {self.position} and differs"
        )
