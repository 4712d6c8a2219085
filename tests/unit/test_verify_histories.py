"""Verification over simulated histories in which visibility and the log's order differ."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.protocols import Hashes
from cdc.table import KeyRange, TableId
from cdc.verify import exact, parts
from cdc.verify.job import verify
from cdc.verify.report import Report
from cdc.verify.settings import VerifySettings
from tests.unit.verify_world import (
    PREFIX,
    TABLE,
    Decoder,
    Reader,
    Replica,
    Source,
    Topics,
    World,
    key_of,
)

SEEDS = st.integers(0, 2**32)


@pytest.fixture(autouse=True, scope="module")
def _no_pauses() -> object:
    """The world moves at every call, not with the clock."""
    patch = pytest.MonkeyPatch()
    patch.setattr(exact, "_VOID_PAUSE", 0)
    patch.setattr(parts, "_FIRST_PAUSE", 0)
    patch.setattr(parts, "_LONGEST_PAUSE", 0)
    yield
    patch.undo()


def run(
    world: World, *, repair: bool = False, timeout: float = 20.0, max_differences: int = 1000
) -> Report:
    return verify(
        Source(world),
        Replica(world),
        lambda: Topics(world),
        Decoder(world),
        VerifySettings(
            PREFIX,
            "sink",
            repair=repair,
            bucket_rows=5,
            read_ahead=0,
            timeout=timeout,
            attempts=8,
            keys_at_once=3,
            max_differences=max_differences,
        ),
    )


def reported(report: Report) -> dict[int, str]:
    return {
        int(difference.key["id"]): difference.kind
        for table in report.tables
        for difference in table.differences
    }


def plant(world: World) -> dict[int, str]:
    """Corruptions of keys that nobody writes, and of the column that no update carries."""
    changed, missing, flipped = world.random.sample(range(world.hot, world.keys), 3)
    world.replica[key_of(changed)]["a"] = -1
    del world.replica[key_of(missing)]
    world.replica[key_of(flipped)]["b"] = "flipped"
    world.replica[key_of(world.keys + 5)] = {"id": world.keys + 5, "a": 1, "b": "x"}
    return {changed: "changed", missing: "missing", flipped: "changed", world.keys + 5: "extra"}


@settings(max_examples=80, deadline=None)
@given(SEEDS)
def test_no_false_difference_while_both_sides_change(seed: int) -> None:
    print(f"seed {seed}")
    world = World(random.Random(seed))
    world.steps(300)
    report = run(world)
    assert reported(report) == {}
    assert report.verdict == "OK", report.tables[0].reason


@settings(max_examples=80, deadline=None)
@given(SEEDS)
def test_every_planted_corruption_is_found_while_both_sides_change(seed: int) -> None:
    print(f"seed {seed}")
    world = World(random.Random(seed), truncates=False)
    world.steps(300)
    planted = plant(world)
    report = run(world)
    assert reported(report) == planted
    assert report.verdict == "DIFF"


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_a_column_that_no_update_carries_is_checked_on_hot_keys_too(seed: int) -> None:
    print(f"seed {seed}")
    world = World(random.Random(seed), keys=6, hot=6, truncates=False)
    deleting = world.random.random

    def never_deleting() -> float:
        return max(0.31, min(deleting(), 0.69))  # update, with b unchanged

    world.random.random = never_deleting  # type: ignore[method-assign]
    world.steps(100)
    hit = world.random.choice(list(world.replica))
    world.replica[hit]["b"] = "flipped"
    report = run(world)
    assert reported(report) == {int(hit): "changed"}
    assert report.tables[0].differences[0].columns == ("b",)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_repair_goes_through_the_stream_and_leaves_no_difference(seed: int) -> None:
    print(f"seed {seed}")
    world = World(random.Random(seed), truncates=False)
    world.steps(300)
    planted = plant(world)
    report = run(world, repair=True)
    assert report.verdict == "OK", report.tables[0].reason
    assert {int(d.key["id"]): d.kind for d in report.tables[0].repaired} == planted
    world.busy = False
    world.settle()
    assert world.replica == world.source


def test_a_repair_of_some_differences_does_not_vouch_for_those_that_were_not_looked_at() -> None:
    world = World(random.Random(1), busy=False)
    for number in range(30):
        del world.replica[key_of(number)]
    report = run(world, repair=True, max_differences=6)
    assert len(report.tables[0].repaired) == 6
    assert report.verdict == "INCONCLUSIVE"
    assert report.tables[0].reason == "stopped after 6 differences; there may be more"


def test_a_range_of_which_only_the_replica_has_many_rows_is_read_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(random.Random(1), busy=False)
    for number in range(1000, 1500):
        world.replica[key_of(number)] = {"id": number, "a": 1, "b": "x"}
    sizes: list[int] = []
    hashes = Reader.hashes

    def counted(reader: Reader, key_range: KeyRange) -> Hashes:
        found = hashes(reader, key_range)
        sizes.append(len(found.keys))
        return found

    monkeypatch.setattr(Reader, "hashes", counted)
    report = run(world)
    assert len(reported(report)) == 500
    assert max(sizes) <= 20 * 5  # _BUCKETS_AT_ONCE of them


def test_a_capture_that_stands_still_is_inconclusive() -> None:
    report = run(World(random.Random(1), capture_runs=False), timeout=0.05)
    assert report.verdict == "INCONCLUSIVE"
    assert "is capture running" in report.tables[0].reason
    assert report.exit_status == 32


def test_a_sink_that_stands_still_is_inconclusive() -> None:
    report = run(World(random.Random(1), sink_runs=False), timeout=0.05)
    assert report.verdict == "INCONCLUSIVE"
    assert report.tables[0].reason.startswith("lag")


@pytest.mark.parametrize("state", ["backfilling", "stale"])
def test_a_table_that_does_not_claim_to_be_whole_is_inconclusive(
    state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Replica, "state_of_table", state)
    report = run(World(random.Random(1)))
    assert report.verdict == "INCONCLUSIVE"
    assert report.tables[0].reason.startswith(f"{state}: ")


@pytest.mark.parametrize("what", ["capture", "sink"])
def test_a_standstill_is_waited_for_once_not_for_each_table(what: str) -> None:
    world = World(random.Random(1), capture_runs=what != "capture", sink_runs=what != "sink")
    source = Source(world)
    tables = [replace(TABLE, id=TableId("public", name)) for name in ("a", "b", "c")]
    source.tables = lambda: tables  # type: ignore[method-assign]
    settings_ = VerifySettings(PREFIX, "sink", timeout=1.0)
    report = verify(source, Replica(world), lambda: Topics(world), Decoder(world), settings_)
    assert [table.verdict for table in report.tables] == ["INCONCLUSIVE"] * 3
    assert report.seconds < 2.4  # three times would be at least 3
