"""The apply loop, on topics and a replica in memory."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from cdc import failure_points
from cdc.checkpoint import SinkCheckpoint
from cdc.errors import CdcError, Failed, Fenced, Refused
from cdc.event import Record
from cdc.pipeline.apply import Applier, ApplySettings, ApplyStatus
from cdc.pipeline.selection import Selection
from cdc.position import Position, TopicPartition
from cdc.protocols import TopicReader
from cdc.testing.memory_events import MemoryDecoder
from cdc.testing.memory_store import MemoryReplica, MemoryStore
from tests.unit.apply_history import PREFIX, TRANSACTIONS, Change, Source, State
from tests.unit.test_apply_random import held_state

KEY = ("sink", PREFIX)
PATIENCE = 10.0


def insert(key: int, text: str = "x", collection: str = "s.items") -> Change:
    return (collection, "c", key, text)


class Bench:
    """A source, a replica, and appliers between them."""

    def __init__(self) -> None:
        self.source = Source()
        self.source.create()
        self.replica = MemoryReplica()
        self.settings = ApplySettings(stall_seconds=0.05, backoff=(0.01, 0.02))
        self.selection = Selection(PREFIX)

    def applier(
        self,
        on_progress: Callable[[ApplyStatus], None] | None = None,
        open_reader: Callable[[], TopicReader] | None = None,
    ) -> Applier:
        return Applier(
            "sink",
            self.selection,
            open_reader or self.source.topics.reader,
            lambda: MemoryStore(self.replica),
            MemoryDecoder(self.source.events),
            self.settings,
            on_progress,
        )

    @contextmanager
    def running(self, applier: Applier | None = None) -> Iterator[Applier]:
        """Run one beside the test; what it raises is raised here at the end."""
        applier = applier or self.applier()
        stop = threading.Event()
        errors: list[BaseException] = []

        def run() -> None:
            try:
                applier.run(stop.is_set)
            except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield applier
        finally:
            stop.set()
            thread.join(PATIENCE)
            assert not thread.is_alive()
        if errors:
            raise errors[0]

    def run_until(self, position: Position) -> Applier:
        with self.running() as applier:
            self.wait(lambda: self.checkpoint.position == position)
        return applier

    def run_into(self, error: type[CdcError]) -> str:
        with pytest.raises(error) as raised:
            self.applier().run(self.timeout())
        return str(raised.value)

    def wait(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, f"{self.checkpoint}"
            time.sleep(0.002)

    @staticmethod
    def timeout() -> Callable[[], bool]:
        deadline = time.monotonic() + PATIENCE
        return lambda: time.monotonic() > deadline

    @property
    def checkpoint(self) -> SinkCheckpoint:
        return self.replica.checkpoints.get(KEY, SinkCheckpoint(PREFIX, None))

    @property
    def items(self) -> dict[int, str]:
        state: State = held_state(self.replica)
        return state.get("s.items", {})


@pytest.fixture
def bench() -> Iterator[Bench]:
    yield Bench()
    failure_points.arm("")


def test_rows_and_checkpoint_appear_together(bench: Bench) -> None:
    seen: list[tuple[int, Position | None]] = []
    bench.replica.on_commit = lambda rows, checkpoint: seen.append(
        (len(rows.get("s.items", {})), checkpoint.position if checkpoint else None)
    )
    bench.source.write(100, insert(1), insert(2))
    bench.source.write(108, insert(3))
    applier = bench.run_until(Position(1, 108, 1))
    assert {at.commit_lsn: count for count, at in seen if at}[108] == 3
    assert applier.status.events == 3
    assert applier.status.transactions == 2
    assert applier.status.state == "stopped"
    offsets = bench.checkpoint.offsets
    assert offsets[TRANSACTIONS].offset == 4
    assert offsets[TopicPartition("p.s.items", 1)].offset == 2
    assert offsets[TRANSACTIONS].topic_id == "id-3"
    assert bench.checkpoint.cluster_id == "memory"


def test_a_second_start_neither_loses_nor_repeats(bench: Bench) -> None:
    bench.source.write(100, insert(1))
    bench.run_until(Position(1, 100, 1))
    commits = bench.replica.commits
    bench.source.write(108, ("s.items", "u", 1, "later"))
    bench.source.write(100, insert(1, "a replay"))
    applier = bench.run_until(Position(1, 108, 1))
    assert bench.items == {1: "later"}
    assert applier.status.events == 1
    assert bench.replica.commits > commits


@pytest.mark.parametrize(
    "point",
    [
        "apply.before-begin",
        "apply.before-rows",
        "apply.after-rows",
        "apply.before-commit",
        "apply.after-commit",
    ],
)
def test_a_failure_between_any_two_steps_changes_nothing_in_the_end(
    bench: Bench, point: str
) -> None:
    failure_points.arm(f"{point}:2:raise")
    for number in range(20):
        bench.source.write(100 + 8 * number, insert(number, "x" * number))
    bench.settings = ApplySettings(commit_bytes=1, backoff=(0.01, 0.02))
    bench.run_until(Position(1, 252, 1))
    assert failure_points._State.reached >= 2
    assert bench.items == {number: "x" * number for number in range(20)}


@pytest.mark.parametrize("lost", ["before", "after"])
def test_a_commit_whose_outcome_is_unknown_is_neither_lost_nor_repeated(
    bench: Bench, lost: str
) -> None:
    bench.replica.lose_commit = lost  # type: ignore[assignment]
    bench.source.write(100, insert(1))
    bench.source.write(108, ("s.items", "d", 1, ""))
    bench.run_until(Position(1, 108, 1))
    assert bench.items == {}


def test_servers_that_come_back_are_met_again_without_a_restart_and_one_line_is_logged(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cdc.pipeline.apply")
    with bench.running() as applier:
        bench.wait(lambda: applier.status.state == "running")
        for server in (bench.replica, bench.source.topics):
            server.away = True
            bench.source.write(100 if server is bench.replica else 108, insert(1))
            bench.wait(lambda: applier.status.state == "away")
            time.sleep(0.1)
            server.away = False
            bench.wait(lambda: applier.status.state == "running")
        bench.wait(lambda: bench.checkpoint.position == Position(1, 108, 1))
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"] * 2


def test_a_zombie_stops_at_once_and_nothing_of_it_takes_effect(bench: Bench) -> None:
    applier = bench.applier()

    def run_beside_an_heir() -> None:
        with bench.running(applier):
            bench.wait(lambda: applier.status.state == "running")
            MemoryStore(bench.replica).claim(*KEY)
            bench.source.write(100, insert(1))
            time.sleep(0.2)

    with pytest.raises(Fenced):
        run_beside_an_heir()
    assert bench.items == {}


def test_a_record_that_cannot_be_read_stops_the_task_and_is_named(bench: Bench) -> None:
    bench.source.topics.append([Record("p.s.items", 1, b"", b"rubbish")])
    assert "p.s.items[1]@0 cannot be read" in bench.run_into(Failed)
    assert bench.checkpoint.position is None


def test_a_change_that_cannot_be_applied_stops_the_task_and_is_named(bench: Bench) -> None:
    torn = bench.source.records(100, insert(1))
    torn[1] = torn[1]._replace(value=(torn[1].value or b"").replace(b"\x02\x02x", b"\x02\x09x"))
    bench.source.topics.append(torn)
    assert "p.s.items[1]@0" in bench.run_into(Failed)


def test_stopping_commits_what_is_complete_and_leaves_the_rest(bench: Bench) -> None:
    bench.source.write(100, insert(1))
    bench.source.write(108, insert(2), end=False)
    bench.run_until(Position(1, 100, 1))
    assert bench.items == {1: "x"}
    bench.source.write(108, insert(2))
    bench.run_until(Position(1, 108, 1))
    assert bench.items == {1: "x", 2: "x"}


def test_a_large_transaction_streams_and_appears_at_once(bench: Bench) -> None:
    seen: set[int] = set()
    bench.replica.on_commit = lambda rows, _: seen.add(len(rows.get("s.items", {})))
    bench.settings = ApplySettings(memory_bytes=40_000)
    bench.source.write(100, insert(1))
    records = bench.source.records(108, *(insert(number) for number in range(2, 1001)))
    bench.source.topics.append(records[:-1])
    applier = bench.applier()
    with bench.running(applier):
        bench.wait(lambda: applier.status.streaming)
        bench.source.topics.append(records[-1:])
        bench.wait(lambda: bench.checkpoint.position == Position(1, 108, 999))
    assert seen == {1, 1000}


def test_a_large_transaction_that_stays_open_is_rolled_back_by_a_stop(bench: Bench) -> None:
    bench.settings = ApplySettings(memory_bytes=40_000)
    bench.source.write(100, insert(1))
    bench.source.write(108, *(insert(number) for number in range(2, 1001)), end=False)
    with bench.running() as applier:
        bench.wait(lambda: applier.status.streaming)
        bench.source.watermark(104)
        time.sleep(0.1)
    assert bench.items == {1: "x"}
    assert bench.checkpoint.position == Position(1, 100, 1)


def test_a_large_transaction_that_proves_dead_never_appears(bench: Bench) -> None:
    bench.settings = ApplySettings(memory_bytes=40_000, backoff=(0.01, 0.02))
    bench.source.write(108, *(insert(number) for number in range(2, 1001)), end=False)
    with bench.running() as applier:
        bench.wait(lambda: applier.status.streaming)
        bench.source.write(116, insert(1, collection="s.orders"))
        bench.wait(lambda: bench.checkpoint.position == Position(1, 116, 1))
    assert bench.items == {}


# --- watermarks ----------------------------------------------------------------------------------------------


def test_a_watermark_moves_the_position_of_an_idle_sink(bench: Bench) -> None:
    bench.source.write(100, insert(1))
    bench.source.watermark(500)
    bench.run_until(Position.at_fence(1, 500))
    bench.source.write(500, insert(2))
    bench.run_until(Position(1, 500, 1))
    assert bench.items == {1: "x", 2: "x"}


def test_a_watermark_waits_for_its_end_offsets(bench: Bench) -> None:
    ends = {TRANSACTIONS: 2, TopicPartition("p.s.items", 1): 1}
    bench.source.topics.append([bench.source.events.watermark(500, ends)])
    with bench.running():
        time.sleep(0.1)
        assert bench.checkpoint.position is None
        bench.source.write(100, insert(1))
        bench.wait(lambda: bench.checkpoint.position == Position.at_fence(1, 500))


def test_tombstones_move_the_offset_though_nothing_follows(bench: Bench) -> None:
    bench.source.write(100, insert(1))
    with bench.running():
        bench.wait(lambda: bench.checkpoint.position == Position(1, 100, 1))
        bench.source.topics.append([bench.source.events.tombstone("s.items", {"id": 1})])
        partition = TopicPartition("p.s.items", 1)
        bench.wait(lambda: bench.checkpoint.offsets[partition].offset == 2)


def test_rows_missing_below_a_watermark_stop_the_task(bench: Bench) -> None:
    records = bench.source.records(100, insert(1), insert(2))
    bench.source.topics.append(r for r in records if r.partition != 1)
    bench.source.watermark(500, "s.items")
    bench.settings = ApplySettings(stall_seconds=60)
    message = bench.run_into(Refused)
    assert "incomplete transaction" in message
    assert "cdc table backfill FILE --table s.items" in message


def test_rows_missing_below_later_rows_stop_the_task_without_a_watermark(bench: Bench) -> None:
    records = bench.source.records(100, insert(1), insert(2))
    bench.source.topics.append(r for r in records if r.partition != 1)
    bench.source.write(108, insert(3), insert(4))
    assert "incomplete transaction: rows of s.items at 100" in bench.run_into(Refused)


def test_rows_that_are_only_late_do_not_stop_the_task(bench: Bench) -> None:
    records = bench.source.records(100, insert(1), insert(2))
    bench.source.topics.append(r for r in records if r.partition != 1)
    bench.source.watermark(500)  # of no table: it covers no row
    with bench.running():
        time.sleep(0.3)
        bench.source.topics.append(r for r in records if r.partition == 1)
        bench.wait(lambda: bench.checkpoint.position == Position.at_fence(1, 500))


def test_a_table_is_live_from_the_final_fence_of_its_backfill(bench: Bench) -> None:
    bench.source.watermark(50, "s.items", "open")
    bench.source.write(99, ("s.items", "r", 1, "x"), xid=0)
    bench.run_until(Position(1, 99, 1))
    assert bench.checkpoint.tables == {"s.items": "backfilling"}
    bench.source.watermark(100, "s.items", "final")
    bench.run_until(Position.at_fence(1, 100))
    assert bench.checkpoint.tables == {"s.items": "live"}


def test_a_table_without_rows_is_there_after_its_backfill(bench: Bench) -> None:
    bench.source.watermark(50, "s.items", "open")
    bench.source.watermark(60, "s.orders", "final", void="limbo")
    bench.source.watermark(100, "s.items", "final")
    bench.run_until(Position.at_fence(1, 100))
    assert bench.replica.rows == {"s.items": {}}


def test_the_lag_is_the_age_of_what_waits_and_nothing_when_nothing_does(bench: Bench) -> None:
    now = 50.0  # seconds; the source of these tests commits at as many milliseconds as its LSN says
    applier = bench.applier()
    assert applier.status.lag_seconds(now) is None
    bench.source.write(40_000, insert(1))
    records = bench.source.records(41_000, insert(2), insert(3))
    bench.source.topics.append(r for r in records if r.partition != 1 or r.topic == "p.transaction")
    with bench.running(applier):
        bench.wait(lambda: applier.status.oldest_ms == 41_000)
        assert applier.status.lag_seconds(now) == 9.0
        bench.source.topics.append(
            r for r in records if r.partition == 1 and r.topic != "p.transaction"
        )
        bench.wait(lambda: applier.status.lag_seconds(now) == 0.0)
        assert bench.checkpoint.position == Position(1, 41_000, 2)
        assert applier.status.lag_seconds(now + 3600) == 0.0
        bench.replica.away = True
        bench.source.write(48_000, insert(4))
        bench.wait(lambda: applier.status.lag_seconds(now) == 2.0)
        assert applier.status.lag_seconds(now + 1) == 3.0
        bench.replica.away = False
        bench.wait(lambda: applier.status.lag_seconds(now) == 0.0)


def test_an_owner_replaced_during_an_outage_does_not_take_it_back(bench: Bench) -> None:
    def replace_it() -> None:
        with bench.running() as applier:
            bench.wait(lambda: applier.status.state == "running")
            bench.replica.away = True
            bench.source.write(100, insert(1))
            bench.wait(lambda: applier.status.state == "away")
            bench.replica.epochs[KEY] += 1
            bench.replica.away = False
            time.sleep(0.3)

    with pytest.raises(Fenced):
        replace_it()
    assert bench.items == {}


def test_a_table_without_backfill_has_no_state_and_a_void_fence_gives_none(bench: Bench) -> None:
    bench.source.write(100, insert(1))
    bench.source.watermark(200, "s.items", "final", void="limbo")
    bench.run_until(Position.at_fence(1, 200))
    assert bench.checkpoint.tables == {}
