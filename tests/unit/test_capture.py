"""Capture alone, over a simulated source and topics in memory: what it stores, and what it does when others fail."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from cdc.checkpoint import SourceCheckpoint
from cdc.errors import Fenced, Unreachable
from cdc.event import Begin, Change, Commit, Message, Progress, Truncate
from cdc.fence import FENCE_PREFIX, SIGNAL_PREFIX, Fence, Signal, Snapshot, Watermark
from cdc.pipeline.capture import Capture
from cdc.pipeline.resume import Owner, resume
from cdc.position import TopicPartition
from cdc.testing.memory_checkpoints import MemoryCheckpoints, MemoryCheckpointTopic
from cdc.testing.memory_encoder import MemoryEncoder
from cdc.testing.memory_events import MemoryEvents
from cdc.testing.memory_producer import MemoryProducer
from cdc.testing.memory_topics import MemoryTopics
from tests.unit.capture_world import COLLECTION, without_clocks
from tests.unit.simulated_source import ORDERS, PREFIX, SimulatedSource, key_of, row_of


class Line:
    """A capture that is stepped by hand, copying nothing."""

    def __init__(self, topic: Callable[[MemoryCheckpoints], MemoryCheckpointTopic]) -> None:
        self.source = SimulatedSource(random.Random(1))
        self.topics = MemoryTopics()
        for name, count in (("transaction", 1), ("watermark", 1), (COLLECTION, 2)):
            self.topics.create(f"{PREFIX}.{name}", count)
        self.checkpoints = MemoryCheckpoints()
        self.writer = MemoryProducer(self.topics)
        claimed = topic(self.checkpoints)
        checkpoint = resume(
            self.source,
            claimed,
            connector="c",
            slot="s",
            snapshot_mode="no_data",
            owner=Owner(),
        )
        self.capture = Capture(
            connector="c",
            prefix=PREFIX,
            source=self.source,
            encoder=MemoryEncoder(PREFIX, lambda topic: self.topics.infos()[topic].partitions),
            writer=self.writer,
            checkpoints=claimed,
            checkpoint=checkpoint,
            readers=self.source,
            partitions=lambda topic: self.topics.infos()[topic].partitions,
            pinned=dict,
        )
        self.capture._begin()

    def commit(self, rows: int, *, ended: bool = True) -> int:
        """A transaction in the log; its end."""
        source = self.source
        source.log.append(Begin(source.lsn, 500 + source.lsn, 0))
        for order in range(1, rows + 1):
            row = row_of((order, order))
            source.log.append(Change(ORDERS, "c", source.lsn, order, key_of(order), None, row))
        if ended:
            source.log.append(Commit(source.lsn, source.lsn + 8))
        source.lsn += 8
        return source.lsn

    def turn(self, times: int = 20) -> None:
        for _ in range(times):
            self.capture._turn()

    @property
    def stored(self) -> SourceCheckpoint:
        found = self.checkpoints.checkpoint("c")
        assert found is not None
        return found

    def watermarks(self) -> list[Watermark]:
        events = MemoryEvents(PREFIX, [ORDERS])
        records = self.topics.records(TopicPartition(f"{PREFIX}.watermark", 0))
        return [events.watermark_of(record) for record in records]


@pytest.fixture
def line() -> Line:
    return Line(MemoryCheckpointTopic)


def test_nothing_is_confirmed_before_it_is_acknowledged_and_stored(line: Line) -> None:
    with without_clocks():
        line = Line(MemoryCheckpointTopic)
        start = line.stored.lsn
        end = line.commit(5)
        line.turn()
        assert (line.stored.lsn, line.source.slot_at) == (start, start)
        line.checkpoints.lose = "before"
        line.writer.flush(0)
        with pytest.raises(Unreachable):
            line.turn()
        assert line.source.slot_at == start
    assert end > start


def test_what_is_sent_and_not_acknowledged_is_not_confirmed_with_what_is() -> None:
    with without_clocks():
        line = Line(MemoryCheckpointTopic)
        end = line.commit(5)
        line.turn()
        line.writer.flush(0)
        line.commit(5)
        line.capture._take(line.source.log[-7:])  # before anybody asks what is acknowledged
        line.source._next = len(line.source.log)
        line.turn()
        assert line.capture.statistics.lsn > end
        assert line.stored.lsn == line.source.slot_at == end


def test_what_is_skipped_changes_at_a_place_in_the_log(line: Line) -> None:
    """A replay of what stands below that place sends what was sent before: END counts the same events."""
    source = line.source
    saver = line.capture._delivery._saver
    saver.stored = replace(saver.stored, skipped=((0, "none"), (source.lsn + 8, "t")))
    for _ in range(2):
        source.log.append(Begin(source.lsn, 500 + source.lsn, 0))
        source.log.append(Truncate(ORDERS, source.lsn, 1))
        row = row_of((1, 1))
        source.log.append(Change(ORDERS, "c", source.lsn, 2, key_of(1), None, row))
        source.log.append(Commit(source.lsn, source.lsn + 8))
        source.lsn += 8
    line.turn()
    line.writer.flush(0)
    line.turn()
    events = MemoryEvents(PREFIX, [ORDERS])
    records = line.topics.records(TopicPartition(f"{PREFIX}.transaction", 0))
    ends = [mark for record in records if (mark := events.transaction(record)).ended]
    assert [mark.counts for mark in ends] == [((COLLECTION, 2),), ((COLLECTION, 1),)]


def test_a_stop_amid_a_transaction_stores_what_stands_before_it() -> None:
    with without_clocks():
        line = Line(MemoryCheckpointTopic)
        end = line.commit(5)
        line.commit(500, ended=False)
        line.turn(300)
        line.capture._delivery.drain()
        assert line.stored.lsn == line.source.slot_at == end


def test_places_in_the_log_do_not_pile_up_while_the_brokers_are_away() -> None:
    with without_clocks():
        line = Line(MemoryCheckpointTopic)
        line.commit(1)
        for _ in range(1000):
            line.source.lsn += 8
            line.source.log.append(Progress(line.source.lsn))
            end = line.commit(0)
        line.turn(1000)
        assert line.writer.pending < 10
        line.writer.flush(0)
        line.turn(2)
        assert line.stored.lsn == end


def test_what_strangers_write_under_our_prefix_is_told_and_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with without_clocks(), caplog.at_level(logging.WARNING):
        line = Line(MemoryCheckpointTopic)
        for prefix in (FENCE_PREFIX, SIGNAL_PREFIX):
            for content in (b"\xff", b"[]", b"{}", b'{"id": 1}', b"null"):
                line.source.emit(prefix, content)
        unknown = Signal("x", "backfill", PREFIX, ORDERS.id._replace(name="nowhere"))
        line.source.emit(SIGNAL_PREFIX, unknown.to_message())
        inside = Fence("f", "mark", PREFIX, None, Snapshot(1, 1, frozenset())).to_message()
        line.source.log.append(
            Message(FENCE_PREFIX, inside, line.source.lsn, transactional=True, total_order=1)
        )
        end = line.commit(1)
        line.turn()
        line.writer.flush(0)
        line.turn()
    assert line.stored.lsn == end
    assert sum("is ignored" in record.message for record in caplog.records) == 11
    assert line.watermarks() == []


def test_a_fence_of_an_earlier_capture_withdraws_what_that_one_may_have_sent() -> None:
    with without_clocks():
        line = Line(MemoryCheckpointTopic)
        line.source.emit(SIGNAL_PREFIX, Signal("s", "backfill", PREFIX, ORDERS.id).to_message())
        old = Fence(
            "public.orders#earlier.1", "backfill", PREFIX, ORDERS.id, Snapshot(99, 99, frozenset())
        )
        place = line.source.emit(FENCE_PREFIX, old.to_message())
        line.turn()
        line.writer.flush(0)
        line.turn()
        line.writer.flush(0)
        events = MemoryEvents(PREFIX, [ORDERS])
        marks = [
            events.transaction(record)
            for record in line.topics.records(TopicPartition(f"{PREFIX}.transaction", 0))
        ]
        assert (True, place - 1, ()) in [(m.ended, m.commit_lsn, m.counts) for m in marks]
        void = next(mark for mark in line.watermarks() if mark.fence == old.id)
        assert void.void


class _SlowTopic(MemoryCheckpointTopic):
    """Takes its time to save, and may fail in the end."""

    error: Exception | None = None
    seconds = 0.5

    def save(self, connector: str, checkpoint: SourceCheckpoint | None) -> None:
        if threading.current_thread() is not threading.main_thread():
            time.sleep(self.seconds)
            if self.error is not None:
                raise self.error
        super().save(connector, checkpoint)


def test_the_source_is_kept_alive_by_one_thread_while_a_save_takes_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = Line(_SlowTopic)
    callers: list[threading.Thread] = []
    monkeypatch.setattr(
        line.source, "keep_alive", lambda: callers.append(threading.current_thread())
    )
    end = line.commit(3)
    line.capture.run(lambda: line.source.read_to_its_end)
    assert line.stored.lsn == end
    assert len(callers) > 3
    assert set(callers) == {threading.main_thread()}


def test_a_save_that_was_fenced_ends_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_SlowTopic, "error", Fenced("another runs it"))
    monkeypatch.setattr(_SlowTopic, "seconds", 0.0)
    line = Line(_SlowTopic)
    start = line.source.slot_at
    line.commit(3)
    with pytest.raises(Fenced):
        line.capture.run(lambda: line.source.read_to_its_end)
    assert line.source.slot_at == start
