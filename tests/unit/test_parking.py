"""errors.tolerance=all: what can never be applied goes to the dead letters, its key is parked, nothing else is lost."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest

from cdc import failure_points
from cdc.checkpoint import ParkedKey
from cdc.errors import Failed, Rejected
from cdc.event import DeadLetter, Record
from cdc.pipeline.apply import Applier, ApplySettings
from cdc.pipeline.parking import PARKED
from cdc.position import Position, TopicPartition
from cdc.table import Table
from cdc.testing.memory_events import MemoryDecoder
from cdc.testing.memory_store import MemoryStore
from cdc.testing.rows import key_bytes, row_values
from tests.unit.apply_history import ITEMS, Change
from tests.unit.test_apply import Bench, insert

BAD = "refused by the replica"


def read_row(table: Table, row: bytes) -> Mapping[str, object]:
    """A replica that does not take one text."""
    values = row_values(table, row)
    if values.get("text") == BAD:
        raise Rejected(f"{table.id}: value too long", "widen the column")
    return values


class Letters:
    """A dead-letter topic in memory; what is written twice stands there once in ``distinct``."""

    def __init__(self) -> None:
        self.written: list[DeadLetter] = []

    def write(self, letters: Sequence[DeadLetter]) -> None:
        self.written += letters

    def close(self) -> None:
        pass

    @property
    def distinct(self) -> dict[tuple[str, int, int], DeadLetter]:
        return {(x.record.topic, x.record.partition, x.record.offset): x for x in self.written}

    def of(self, partition: int, key: int) -> list[tuple[int, str]]:
        wanted = key_bytes(ITEMS, {"id": key})
        return [
            (place[2], letter.kind)
            for place, letter in sorted(self.distinct.items())
            if place[1] == partition and letter.record.key == wanted
        ]


class Tolerant(Bench):
    def __init__(self) -> None:
        super().__init__()
        self.letters = Letters()

    def applier(self, *args: object, **more: object) -> Applier:
        return Applier(
            "sink",
            self.selection,
            self.source.topics.reader,
            lambda: MemoryStore(self.replica, read_row),
            MemoryDecoder(self.source.events),
            self.settings,
            dead_letters=self.letters,
        )

    @property
    def parked(self) -> dict[int, ParkedKey]:
        keys = {key_bytes(ITEMS, {"id": key}): key for key in range(100)}
        return {keys[one.key]: one for one in self.checkpoint.parked if one.key is not None}


@pytest.fixture
def bench() -> Tolerant:
    return Tolerant()


def update(key: int, text: str) -> Change:
    return ("s.items", "u", key, text)


def test_a_rejected_change_parks_its_key_and_the_rest_of_its_batch_takes_effect(
    bench: Tolerant,
) -> None:
    bench.source.write(100, *(insert(key) for key in range(1, 20)))
    bench.source.write(108, update(3, BAD), update(4, "new"), update(3, "later"))
    bench.source.write(116, update(3, "later still"), update(5, "new"))
    bench.source.watermark(200, "s.items", "final")
    applier = bench.run_until(Position.at_fence(1, 200))
    assert {key: bench.items[key] for key in (3, 4, 5)} == {3: "x", 4: "new", 5: "new"}
    assert len(bench.items) == 19
    assert list(bench.parked) == [3]
    assert bench.parked[3].position == Position(1, 108, 1)
    assert [kind for _, kind in bench.letters.of(1, 3)] == ["Rejected", PARKED, PARKED]
    assert bench.checkpoint.tables == {"s.items": "parked"}
    assert applier.status.parked == {"s.items": 1}


def test_a_parked_key_stays_parked_over_restarts(bench: Tolerant) -> None:
    bench.source.write(100, insert(1, BAD))
    bench.run_until(Position(1, 100, 1))
    bench.source.write(108, update(1, "good by now"), insert(2))
    bench.run_until(Position(1, 108, 2))
    assert bench.items == {2: "x"}
    assert [kind for _, kind in bench.letters.of(1, 1)] == ["Rejected", PARKED]


def test_a_row_that_a_fence_brings_releases_its_key(bench: Tolerant) -> None:
    bench.source.write(100, insert(1, BAD))
    bench.source.write(108, update(1, "skipped"))
    bench.source.write(115, ("s.items", "r", 1, "as the source has it"), xid=0)
    bench.source.write(124, update(1, "after"))
    bench.run_until(Position(1, 124, 1))
    assert bench.items == {1: "after"}
    assert bench.parked == {}


def test_a_row_of_a_fence_that_is_rejected_itself_releases_nothing(bench: Tolerant) -> None:
    bench.source.write(100, insert(1, BAD), insert(2))
    bench.source.write(107, ("s.items", "r", 1, BAD), ("s.items", "r", 2, "y"), xid=0)
    bench.source.write(116, update(1, "still out"), update(2, "z"))
    bench.run_until(Position(1, 116, 2))
    assert bench.items == {2: "z"}
    assert {key: one.position for key, one in bench.parked.items()} == {1: Position(1, 100, 1)}


def test_a_truncate_releases_all_keys_of_its_table(bench: Tolerant) -> None:
    bench.source.write(100, insert(1, BAD), insert(2))
    bench.source.write(108, ("s.items", "t", 0, ""), insert(1, "anew"))
    bench.run_until(Position(1, 108, 2))
    assert bench.items == {1: "anew"}
    assert bench.parked == {}


# --- records that nobody can read ----------------------------------------------------------------------------


def damaged(bench: Tolerant, lsn: int, which: int, *changes: Change) -> list[Record]:
    """The transaction's records, one of them overwritten with rubbish."""
    records = bench.source.records(lsn, *changes)
    records[which] = records[which]._replace(value=b"rubbish")
    return records


def test_a_change_that_cannot_be_read_is_told_by_the_counts_and_parks_its_key(
    bench: Tolerant,
) -> None:
    bench.source.write(100, insert(1), insert(3))
    bench.source.topics.append(damaged(bench, 108, 1, update(1, "lost"), update(2, "y")))
    bench.source.write(116, update(1, "follows"), insert(2), insert(3, "z"))
    bench.run_until(Position(1, 116, 3))
    assert bench.items == {1: "x", 2: "x", 3: "z"}
    assert {key: one.position for key, one in bench.parked.items()} == {1: Position(1, 108, 0)}
    assert [kind for _, kind in bench.letters.of(1, 1)] == ["Rejected", PARKED]


def test_a_record_that_no_transaction_lacks_is_foreign_and_parks_nothing(bench: Tolerant) -> None:
    bench.source.write(100, insert(1))
    key = key_bytes(ITEMS, {"id": 1})
    bench.source.topics.append([Record("p.s.items", 1, key, b"rubbish")])
    bench.source.topics.append([Record("p.s.items", 1, None, None)])
    bench.source.write(108, update(1, "y"))
    bench.run_until(Position(1, 108, 1))
    assert bench.items == {1: "y"}
    assert not bench.checkpoint.parked
    assert len(bench.letters.distinct) == 2
    assert bench.checkpoint.offsets[TopicPartition("p.s.items", 1)].offset == 4


def test_where_the_key_cannot_be_known_its_whole_partition_is_parked(bench: Tolerant) -> None:
    bench.source.write(100, insert(1), insert(2))
    records = damaged(bench, 108, 1, update(1, "lost"))
    records[1] = records[1]._replace(key=b"")
    bench.source.topics.append(records)
    bench.source.write(116, insert(3), insert(4))
    bench.source.write(124, insert(5), insert(6))
    bench.run_until(Position(1, 124, 2))
    assert bench.items == {1: "x", 2: "x", 4: "x", 6: "x"}
    (parked,) = bench.checkpoint.parked
    assert (parked.key, parked.place) == (None, TopicPartition("p.s.items", 1))
    assert len(bench.letters.distinct) == 3


def test_a_large_transaction_that_streams_parks_what_may_be_its_own(bench: Tolerant) -> None:
    bench.settings = ApplySettings(memory_bytes=60_000, backoff=(0.01, 0.02))
    bench.source.write(100, insert(1))
    changes = [update(1, "lost"), update(1, "follows"), *(insert(key) for key in range(2, 600))]
    bench.source.topics.append(damaged(bench, 108, 1, *changes))
    bench.source.write(116, insert(700), insert(701))
    bench.run_until(Position(1, 116, 2))
    assert len(bench.items) == 601
    assert bench.items[1] == "x"
    assert list(bench.parked) == [1]


def test_what_a_record_was_can_still_be_told_after_a_restart(bench: Tolerant) -> None:
    bench.source.write(100, insert(1), insert(3))
    records = damaged(bench, 108, 1, update(1, "lost"), update(2, "y"))
    bench.source.topics.append(records[:-1])
    with bench.running():
        bench.wait(lambda: bool(bench.letters.written))
        bench.wait(lambda: bench.checkpoint.position == Position(1, 100, 2))
        bench.source.topics.append([bench.source.events.tombstone("s.items", {"id": 3})])
        tombstone = TopicPartition("p.s.items", 1)
        bench.wait(lambda: bench.source.topics.ends("p.s.items")[tombstone] == 4)
    bench.source.topics.append(records[-1:])
    bench.source.write(116, update(1, "follows"), insert(2), insert(3, "z"))
    bench.run_until(Position(1, 116, 3))
    assert bench.items == {1: "x", 2: "x", 3: "z"}
    assert list(bench.parked) == [1]


@pytest.mark.parametrize(
    "point", ["apply.before-letters", "apply.after-letters", "apply.before-commit"]
)
def test_a_crash_between_letter_and_commit_repeats_letters_and_loses_none(
    bench: Tolerant, point: str
) -> None:
    bench.settings = ApplySettings(commit_bytes=1, backoff=(0.01, 0.02))
    failure_points.arm(f"{point}:1:raise")
    try:
        bench.source.write(100, insert(1, BAD), insert(2))
        bench.source.write(108, update(1, "later"), update(2, "y"))
        bench.run_until(Position(1, 108, 2))
    finally:
        failure_points.arm("")
    assert bench.items == {2: "y"}
    assert [kind for _, kind in bench.letters.of(1, 1)] == ["Rejected", PARKED]


def test_under_none_a_sink_with_parked_keys_does_not_start(bench: Tolerant) -> None:
    bench.source.write(100, insert(1, BAD))
    bench.run_until(Position(1, 100, 1))
    strict = Bench()
    strict.source, strict.replica = bench.source, bench.replica
    assert "1 keys are parked" in strict.run_into(Failed)


def test_under_none_the_culprit_in_a_batch_is_named(bench: Tolerant) -> None:
    bench.source.write(100, *(insert(key) for key in range(20)), insert(21, BAD), insert(23))
    strict = Bench()
    strict.source, strict.replica = bench.source, bench.replica
    strict.applier = lambda *_: Applier(  # type: ignore[method-assign]
        "sink",
        strict.selection,
        strict.source.topics.reader,
        lambda: MemoryStore(strict.replica, read_row),
        MemoryDecoder(strict.source.events),
    )
    assert "p.s.items[1]@10 " in strict.run_into(Failed)
    assert strict.items == {}


def test_random_rejections_lose_nothing_that_is_not_parked() -> None:
    """Every event is in the replica or in a letter, in order, and keys that are not parked are as in the source."""
    for seed in range(8):
        chance = random.Random(seed)
        print(f"seed {seed}")
        bench = Tolerant()
        bench.settings = ApplySettings(commit_bytes=chance.choice([1, 2000, 1 << 20]))
        truth: dict[int, str] = {}
        last: dict[int, str] = {}
        parked: set[int] = set()
        for number in range(30):
            changes = []
            for _ in range(chance.choice([1, 3, 40])):
                key, text = chance.randrange(12), str(chance.random())
                text = BAD if chance.random() < 0.02 else text
                changes.append(update(key, text) if key in truth else insert(key, text))
                truth[key] = text
                parked |= {key} if text == BAD else set()
                if key not in parked:
                    last[key] = text
            bench.source.write(8 * number + 8, *changes)
        bench.source.watermark(1000)
        bench.run_until(Position.at_fence(1, 1000))
        assert bench.items == last
        assert set(bench.parked) == parked
