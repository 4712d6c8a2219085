"""The judge of fences: what it calls void, which keys it leaves to the log, and when it may forget."""

from __future__ import annotations

import pytest

from cdc.event import Change
from cdc.fence import Fence, Snapshot
from cdc.pipeline.fences import FenceJudge
from cdc.pipeline.xids import XidSet
from cdc.protocols import Horizon
from cdc.table import TableId
from tests.unit.simulated_source import ORDERS, key_of

START = Snapshot(100, 100, frozenset())


def change(key: int, *, whole: bool = True) -> Change:
    return Change(ORDERS, "u", 0, 1, key_of(key), None, b"", () if whole else ("b",))


def fence(snapshot: Snapshot, *, low: int = 0, table: TableId | None = ORDERS.id) -> Fence:
    return Fence("f", "verify", "p", table, snapshot, low)


def test_a_decoded_transaction_that_the_read_saw_is_no_obstacle() -> None:
    judge = FenceJudge(START)
    judge.begin(100, 800)
    judge.changed([change(1)])
    judgement = judge.judge(fence(Snapshot(101, 101, frozenset()), low=900))
    assert judgement.void == ""
    assert judgement.touched == {}


def test_a_transaction_in_limbo_before_the_low_fence_voids() -> None:
    judge = FenceJudge(START)
    judge.begin(100, 800)
    judge.changed([change(1)])
    limbo = Snapshot(100, 101, frozenset({100}))
    assert "100" in judge.judge(fence(limbo, low=900)).void
    assert judge.judge(fence(limbo, low=900, table=TableId("public", "other"))).void == ""


def test_keys_touched_outside_the_snapshot_are_left_to_the_log() -> None:
    judge = FenceJudge(START)
    read_from = judge.watch(ORDERS.id)
    judge.begin(100, 800)
    judge.changed([change(1), change(2, whole=False)])
    judge.begin(101, 900)
    judge.changed([change(1, whole=False)])
    judgement = judge.judge(fence(Snapshot(100, 100, frozenset())), read_from)
    assert judgement.void == ""
    assert judgement.touched == {key_of(1): True, key_of(2): False}


def test_a_transaction_decoded_before_the_table_was_watched_voids_its_read() -> None:
    judge = FenceJudge(START)
    judge.begin(100, 800)
    judge.changed([change(1)])
    read_from = judge.watch(ORDERS.id)
    assert judge.judge(fence(Snapshot(100, 101, frozenset({100}))), read_from).void


def test_limbo_outlives_a_restart_through_the_checkpoint() -> None:
    judge = FenceJudge(START)
    judge.begin(100, 800)
    judge.changed([change(1)])
    restarted = FenceJudge(START, judge.unseen(0))
    assert restarted.judge(fence(Snapshot(100, 102, frozenset({100})))).void
    assert restarted.judge(fence(Snapshot(101, 102, frozenset({101})))).void == ""


def test_forgetting_waits_until_the_log_has_passed_every_reader_that_may_not_see() -> None:
    judge = FenceJudge(START)
    judge.begin(100, 800)
    judge.changed([change(1)])
    old_reader = Horizon(Snapshot(101, 101, frozenset()), readers_xmin=100, lsn=900)
    judge.settle(old_reader)
    judge.reached(1000)
    assert judge.unseen(1200) == ((100, 100),), "a reader still holds a snapshot without it"
    judge.settle(Horizon(Snapshot(101, 101, frozenset()), readers_xmin=101, lsn=1100))
    judge.reached(1099)
    assert judge.unseen(1200) == ((100, 100),), "a fence below 1100 may carry such a snapshot"
    judge.reached(1100)
    assert not judge.unseen(1200)


def test_a_read_while_older_transactions_than_the_slot_run_is_void() -> None:
    judge = FenceJudge(START, floor=150)
    assert judge.judge(fence(Snapshot(149, 160, frozenset({149})))).void
    assert judge.judge(fence(Snapshot(150, 160, frozenset({150})))).void == ""


def test_a_long_backlog_is_kept_small_and_still_voids() -> None:
    judge = FenceJudge(START)
    for xid in range(100, 40_100):
        judge.begin(xid, 8 * xid)
        judge.changed([change(1)])
    assert judge.unseen(0) == ((100, 40_099),)
    assert judge.judge(fence(Snapshot(101, 50_000, frozenset({101})), low=1)).void


def test_32_bit_xids_are_lifted_near_the_snapshot() -> None:
    era = 5 << 32
    snapshot = Snapshot(era + 10, era + 10, frozenset())
    assert snapshot.lift(9) == era + 9
    assert snapshot.lift(0xFFFF_FFFF) == era - 1
    assert Snapshot(era - 5, era - 5, frozenset()).lift(3) == era + 3


def test_intervals_hold_exactly_what_was_put_in() -> None:
    xids = XidSet([5, 3, 4, 9])
    xids.add([8, 20])
    assert xids.intervals() == [(3, 5), (8, 9), (20, 20)]
    xids.forget(15, frozenset({9, 10}))
    assert xids.intervals() == [(9, 9), (20, 20)]
    xids.forget(10, frozenset())
    assert xids.intervals() == [(20, 20)]
    assert xids.not_seen(Snapshot(10, 30, frozenset({20}))) == 20
    assert xids.not_seen(Snapshot(10, 30, frozenset({19}))) is None
    assert xids.not_seen(Snapshot(10, 20, frozenset({19}))) == 20


def test_xids_of_a_long_backlog_stay_few_intervals() -> None:
    xids = XidSet(range(100, 200_000, 2))  # every other one belongs to another database
    xids.fill(Snapshot(501, 150_000, frozenset({501})))
    assert xids.intervals()[:2] == [(100, 500), (502, 150_000)]
    assert xids.not_seen(Snapshot(501, 300_000, frozenset({501}))) is None
    assert xids.not_seen(Snapshot(502, 300_000, frozenset({502}))) == 502


def test_keys_of_transactions_are_kept_up_to_a_number_of_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cdc.pipeline.fences._KEY_BYTES", 3_000)
    judge = FenceJudge(START)
    read_from = judge.watch(ORDERS.id)
    for xid in range(100, 200):
        judge.begin(xid, 8 * xid)
        judge.changed([change(number) for number in range(5)])
    assert judge.judge(fence(Snapshot(199, 199, frozenset())), read_from).touched.keys() == {
        key_of(number) for number in range(5)
    }
    assert judge.judge(fence(Snapshot(100, 100, frozenset())), read_from).void


def test_what_was_settled_further_on_is_unseen_for_who_goes_on_from_here() -> None:
    judge = FenceJudge(START)
    judge.begin(100, 800)
    judge.changed([change(1)])
    judge.settle(Horizon(Snapshot(101, 101, frozenset()), readers_xmin=101, lsn=1100))
    judge.reached(1100)
    # A verification's fence at 1000, with 100 in limbo, is met again by a capture that goes on from 900.
    assert judge.unseen(900) == ((100, 100),)
    assert judge.unseen(1100) == ()
