"""A source's checkpoint moves over what counts, in log order, and never over what does not."""

from __future__ import annotations

from cdc.checkpoint import BackfillProgress, Identity, SourceCheckpoint
from cdc.fence import Signal, Watermark
from cdc.pipeline.source_progress import SourceProgress, Step
from cdc.table import KeyRange, TableId

ORDERS = TableId("public", "orders")
START = SourceCheckpoint(Identity("1", 1, "db"), "streaming", lsn=100)


def fence(lsn: int) -> Step:
    return Step(lsn, watermark=Watermark("f", "verify", ORDERS, 1, lsn, {}))


def test_a_fence_without_its_watermark_holds_the_checkpoint_back() -> None:
    progress = SourceProgress(START)
    mark = fence(300)
    for step in (Step(200, 190, settled=True), mark, Step(400, 390, settled=True)):
        progress.acknowledged(step)
    progress.advance()
    assert progress.checkpoint.lsn == 200
    mark.settled = True
    progress.advance()
    assert (progress.checkpoint.lsn, progress.checkpoint.last_commit_lsn) == (400, 390)


def test_the_checkpoint_never_moves_back() -> None:
    progress = SourceProgress(START)
    progress.acknowledged(Step(50, settled=True))
    progress.advance()
    assert progress.checkpoint.lsn == 100


def test_a_change_of_the_state_alone_keeps_the_place_that_a_commit_gave() -> None:
    """Such a step says the checkpoint's own place: capture that starts anew behind the commit must not meet it again."""
    progress = SourceProgress(START)
    progress.acknowledged(Step(300, 290, settled=True))
    progress.acknowledged(Step(100, gone=frozenset({ORDERS}), settled=True))
    progress.advance()
    assert progress.checkpoint.lsn == 300


def test_a_signal_stays_until_it_is_finished_and_stands_there_once() -> None:
    progress = SourceProgress(START)
    signal = Signal("x", "repair", "p", ORDERS, (b"1",))
    progress.acknowledged(Step(200, new_signals=(signal,), settled=True))
    progress.acknowledged(Step(210, new_signals=(signal,), settled=True))
    progress.advance()
    assert progress.checkpoint.signals == (signal,)
    progress.acknowledged(Step(300, finished=frozenset({"x"}), settled=True))
    progress.advance()
    assert not progress.checkpoint.signals


def test_a_copy_is_as_far_as_its_acknowledged_fence() -> None:
    progress = SourceProgress(START)
    entered = fence(300)
    entered.progress = {ORDERS: BackfillProgress("running", (KeyRange(b"7"),), 250, 9)}
    progress.acknowledged(entered)
    progress.advance()
    assert ORDERS not in progress.checkpoint.backfills
    entered.settled = True
    progress.advance()
    assert progress.checkpoint.backfills[ORDERS].remaining == (KeyRange(b"7"),)


def test_a_fence_whose_rows_are_complete_is_noted_until_the_checkpoint_has_passed_it() -> None:
    progress = SourceProgress(START)
    entered = Step(300, watermark=Watermark("f", "backfill", ORDERS, 1, 300, {}, phase="final"))
    void = Step(310, watermark=Watermark("f", "backfill", ORDERS, 1, 310, {}, void="limbo"))
    for step in (fence(290), entered, void):
        progress.acknowledged(step)
    progress.advance()
    assert (progress.checkpoint.lsn, progress.checkpoint.admitted) == (100, (300,))
    again = SourceProgress(progress.checkpoint)  # met anew by the next capture, and void there
    again.acknowledged(Step(300, settled=True))
    again.advance()
    assert again.checkpoint.admitted == ()


def test_a_table_that_is_gone_leaves_nothing_behind() -> None:
    progress = SourceProgress(START)
    signal = Signal("x", "repair", "p", ORDERS, (b"1",))
    copy = {ORDERS: BackfillProgress("running")}
    progress.acknowledged(Step(200, progress=copy, new_signals=(signal,), settled=True))
    progress.acknowledged(Step(300, gone=frozenset({ORDERS}), settled=True))
    progress.advance()
    assert (progress.checkpoint.backfills, progress.checkpoint.signals) == ({}, ())


def test_a_checkpoint_survives_its_stored_form() -> None:
    full = SourceCheckpoint(
        Identity("1", 2, "db"),
        "streaming",
        generation=3,
        lsn=100,
        last_commit_lsn=90,
        partitions={"p.public.orders": 4},
        backfills={
            ORDERS: BackfillProgress(
                "running", (KeyRange(None, b"\x00"), KeyRange(b"\x00\xff")), 80, 5, "s", "k"
            )
        },
        signals=(Signal("x", "repair", "p", ORDERS, (b"\x01",)),),
        unseen=((5, 7), (9, 9)),
        floor=12,
        admitted=(120, 130),
        owner="me",
        skipped=((0, "t"), (90, "none")),
        topic_ids={"p.public.orders": "id"},
        written=110,
        marks={"p.transaction": 7},
    )
    assert SourceCheckpoint.from_json(full.to_json()) == full
