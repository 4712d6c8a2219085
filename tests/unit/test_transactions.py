"""When a transaction is complete, dead or incomplete, and what may leave the assembler."""

from __future__ import annotations

import pytest

from cdc.errors import Refused
from cdc.event import Delivered, Op, TransactionMark
from cdc.pipeline.offsets import Offsets
from cdc.pipeline.open_transaction import ROW_OVERHEAD
from cdc.pipeline.transactions import Assembler, Group, Reread
from cdc.position import Position, TopicPartition
from tests.unit.apply_history import ITEMS, ORDERS, TRANSACTIONS

ITEM_TOPIC = TopicPartition("p.s.items", 0)


class Feed:
    """An assembler, and offsets that count up by themselves."""

    def __init__(
        self,
        held: Position | None = None,
        budget: int = 1 << 20,
        since: dict[str, int] | None = None,
        partitions: int = 1,
        marks: int = 0,
    ) -> None:
        self.offsets = Offsets({})
        counts = {"p.s.items": partitions, "p.s.orders": partitions}
        self.assembler = Assembler(
            held,
            self.offsets,
            budget=budget,
            reads=lambda collection: collection in ("s.items", "s.orders"),
            since=since or {},
            partitions=counts,
            marks=marks,
        )
        self.next: dict[TopicPartition, int] = {}

    def row(
        self,
        lsn: int,
        order: int,
        *,
        collection: str = "s.items",
        partition: int = 0,
        size: int = 100,
        generation: int = 1,
        op: Op = "c",
    ) -> bool:
        tp = TopicPartition(f"p.{collection}", partition)
        offset = self.next[tp] = self.next.get(tp, -1) + 1
        table = ITEMS if collection == "s.items" else ORDERS
        position = Position(generation, lsn, order)
        taken = self.assembler.add(
            Delivered(
                collection, table, op, position, 1, b"k", None, b"v", (), None,
                tp.topic, tp.partition, offset, size,
            )
        )  # fmt: skip
        if taken:
            self.offsets.consumed(tp, offset)
        return taken

    def begin(self, lsn: int) -> bool:
        return self._mark(False, lsn, {})

    def end(self, lsn: int, **counts: int) -> bool:
        return self._mark(True, lsn, {f"s.{name}": count for name, count in counts.items()})

    def _mark(self, ended: bool, lsn: int, counts: dict[str, int]) -> bool:
        offset = self.next[TRANSACTIONS] = self.next.get(TRANSACTIONS, -1) + 1
        taken = self.assembler.mark(
            TransactionMark(ended, 1, lsn, tuple(counts.items()), offset), TRANSACTIONS
        )
        if taken:
            self.offsets.consumed(TRANSACTIONS, offset)
        return taken

    def taken(self, limit: int = 1 << 20) -> list[tuple[int, int]]:
        return positions(self.assembler.take(limit))


def positions(group: Group | None) -> list[tuple[int, int]]:
    if group is None:
        return []
    return [(e.position.commit_lsn, e.position.total_order) for e in group.events]


def test_rows_come_in_commit_order_and_by_their_number_whatever_order_they_arrived_in() -> None:
    feed = Feed()
    feed.row(108, 1)
    feed.row(100, 3)
    feed.row(100, 1, collection="s.orders")
    for lsn, counts in ((100, {"items": 1, "orders": 1}), (108, {"items": 1})):
        feed.begin(lsn)
        feed.end(lsn, **counts)
    assert feed.taken() == [(100, 1), (100, 3), (108, 1)]


def test_an_end_waits_for_the_rows_that_it_counts() -> None:
    feed = Feed()
    feed.begin(100)
    feed.end(100, items=2)
    feed.row(100, 1)
    assert feed.taken() == []
    feed.row(100, 2)
    assert feed.taken() == [(100, 1), (100, 2)]


def test_a_later_transaction_never_overtakes_one_that_waits() -> None:
    feed = Feed()
    for lsn in (100, 108):
        feed.begin(lsn)
        feed.end(lsn, items=1)
    feed.row(108, 1)
    assert feed.taken() == []


def test_repeats_do_not_count() -> None:
    feed = Feed()
    feed.begin(100)
    for order in (1, 2):
        feed.row(100, order)
    feed.begin(100)
    feed.end(100, items=4)
    for order in (1, 2):  # the capture that follows a crash begins again: not 2 + 2
        feed.row(100, order)
    assert feed.taken() == []
    for order in (3, 4):
        feed.row(100, order)
    assert feed.taken() == [(100, 1), (100, 2), (100, 3), (100, 4)]


def test_what_the_replica_holds_is_skipped() -> None:
    feed = Feed(held=Position(1, 100, 7))
    feed.begin(100)
    feed.row(100, 8)
    feed.end(100, items=1)
    assert feed.assembler.head is None


def test_a_commit_at_the_lsn_of_a_fence_is_not_skipped() -> None:
    feed = Feed(held=Position.at_fence(1, 100))
    feed.begin(100)
    feed.row(100, 1)
    feed.end(100, items=1)
    assert feed.taken() == [(100, 1)]


def test_the_rows_of_a_fence_are_a_transaction_before_a_commit_at_its_lsn() -> None:
    feed = Feed()
    feed.row(99, 1)
    feed.row(100, 1)
    for lsn in (99, 100):
        feed.begin(lsn)
        feed.end(lsn, items=1)
    assert feed.taken() == [(99, 1), (100, 1)]


def test_collections_that_are_not_read_are_not_waited_for() -> None:
    feed = Feed()
    feed.row(100, 1)
    feed.begin(100)
    feed.end(100, items=1, secrets=5)
    assert feed.taken() == [(100, 1)]


def test_a_transaction_of_other_tables_moves_the_position() -> None:
    feed = Feed(held=Position(1, 90, 1))
    feed.begin(100)
    feed.end(100, secrets=5)
    group = feed.assembler.take(1)
    assert group is not None
    assert group.position == Position(1, 100, 1)


def test_the_last_end_rules_when_it_counts_more() -> None:
    feed = Feed()
    feed.begin(100)
    feed.end(100, items=1, orders=1)
    feed.row(100, 1)
    feed.begin(100)
    feed.end(100, items=2)
    assert feed.taken() == []
    feed.row(100, 2)
    assert feed.taken() == [(100, 1), (100, 2)]


def test_rows_of_a_collection_that_the_last_end_does_not_name_are_dropped() -> None:
    feed = Feed()
    feed.begin(100)
    feed.row(100, 1, collection="s.orders")
    feed.row(100, 2)
    feed.end(100, items=1, orders=2)
    feed.end(100, items=1)
    assert feed.taken() == [(100, 2)]


def test_a_transaction_without_end_that_a_higher_end_passed_is_dead() -> None:
    feed = Feed()
    feed.begin(100)
    feed.row(100, 1)
    feed.begin(108)
    feed.row(108, 1)
    feed.end(108, items=1)
    assert feed.taken() == [(108, 1)]
    assert feed.assembler.held_size == 0


def test_a_transaction_without_end_that_a_watermark_passed_is_dead() -> None:
    feed = Feed()
    feed.row(100, 1)
    feed.assembler.pass_by(119)
    feed.assembler.reached(119)
    assert feed.assembler.held_size == 0


def test_a_dead_transaction_that_is_sent_after_all_takes_effect_in_its_place() -> None:
    feed = Feed()
    feed.begin(100)
    feed.row(100, 1)
    feed.begin(108)
    feed.end(108, items=1)
    feed.begin(100)
    feed.end(100, items=1)
    feed.row(108, 1)
    assert feed.taken() == [(100, 1), (108, 1)]


def test_a_dead_transaction_whose_rows_were_freed_and_is_sent_after_all_is_read_again() -> None:
    feed = Feed()
    feed.begin(100)
    feed.row(100, 1)
    feed.begin(108)
    feed.end(108, items=1)
    feed.assembler.drop_dead()
    feed.begin(100)
    with pytest.raises(Reread):
        feed.end(100, items=1)


def test_truncate_in_every_partition_counts_once() -> None:
    feed = Feed(partitions=2)
    feed.begin(100)
    feed.end(100, items=2)
    feed.row(100, 1, op="t", partition=0)
    feed.row(100, 1, op="t", partition=1)
    assert feed.taken() == []
    feed.row(100, 2)
    assert feed.taken() == [(100, 1), (100, 2)]


def test_a_group_ends_at_its_byte_limit_and_holds_at_least_one_transaction() -> None:
    feed = Feed()
    for lsn in (100, 108, 116):
        feed.begin(lsn)
        feed.row(lsn, 1, size=10_000)
        feed.end(lsn, items=1)
    assert feed.taken(limit=1) == [(100, 1)]
    assert feed.taken(limit=30_000) == [(108, 1), (116, 1)]


# --- generations and late collections ------------------------------------------------------------------------


def test_a_newer_generation_stops_the_sink() -> None:
    feed = Feed(held=Position(1, 100, 1))
    with pytest.raises(Refused, match="began anew"):
        feed.row(8, 1, generation=2)


def test_an_older_generation_is_held_already() -> None:
    feed = Feed(held=Position(2, 100, 1))
    assert feed.row(200, 1, generation=1)
    assert feed.assembler.head is None


def test_events_and_counts_of_a_late_collection_begin_at_its_opening_fence() -> None:
    feed = Feed(since={"s.orders": 108})
    feed.row(100, 1)
    feed.row(100, 2, collection="s.orders")
    feed.row(108, 1, collection="s.orders")
    for lsn in (100, 108):
        feed.begin(lsn)
    feed.end(100, items=1, orders=3)
    feed.end(108, orders=1)
    assert feed.taken() == [(100, 1), (108, 1)]


# --- offsets -------------------------------------------------------------------------------------------------


def test_a_restart_reads_again_what_has_not_taken_effect() -> None:
    feed = Feed()
    for lsn in (100, 108):
        feed.begin(lsn)
        feed.row(lsn, 1)
    feed.end(100, items=1)
    feed.taken()
    offsets = feed.offsets.changed()
    assert offsets[ITEM_TOPIC].offset == 1
    assert offsets[TRANSACTIONS].offset == 1
    feed.end(108, items=1)
    feed.taken()
    offsets = feed.offsets.changed()
    assert offsets[ITEM_TOPIC].offset == 2
    assert offsets[TRANSACTIONS].offset == 4
    assert feed.offsets.changed() == {}


def test_records_without_effect_move_the_offset_only_as_far_as_nothing_waits_before_them() -> None:
    feed = Feed()
    feed.row(100, 1)
    feed.offsets.consumed(ITEM_TOPIC, 5)
    assert feed.offsets.changed()[ITEM_TOPIC].offset == 0
    feed.begin(100)
    feed.end(100, items=1)
    feed.taken()
    assert feed.offsets.changed()[ITEM_TOPIC].offset == 6


def test_a_truncate_is_read_again_in_every_partition() -> None:
    feed = Feed(partitions=2)
    feed.row(100, 1, op="t", partition=0)
    feed.row(100, 1, op="t", partition=1)
    offsets = feed.offsets.changed()
    assert {tp.partition: at.offset for tp, at in offsets.items()} == {0: 0, 1: 0}


# --- memory --------------------------------------------------------------------------------------------------

BIG = 10 * ROW_OVERHEAD
BUDGET = 8 * BIG


def test_what_runs_ahead_of_the_head_is_kept_out_and_the_head_is_not() -> None:
    feed = Feed(budget=BUDGET)
    feed.begin(100)
    feed.row(100, 1, size=BIG)
    while feed.row(108, 1 + feed.next.get(ITEM_TOPIC, 0), size=BIG):
        pass
    assert feed.assembler.used < BUDGET
    assert feed.row(100, 2, collection="s.orders", size=BIG)


def test_one_row_of_the_head_is_let_in_whatever_the_budget() -> None:
    feed = Feed(budget=BUDGET)
    feed.begin(100)
    feed.row(108, 1, size=3 * BUDGET)
    assert feed.row(100, 1, collection="s.orders", size=3 * BUDGET)
    assert not feed.row(100, 2, collection="s.orders", size=3 * BUDGET)


def test_no_row_is_let_in_beyond_the_budget_while_the_begin_of_the_head_is_unread() -> None:
    feed = Feed(budget=BUDGET)
    while feed.row(100, 1 + feed.next.get(ITEM_TOPIC, 0), size=BIG):
        pass
    assert feed.assembler.used < BUDGET
    assert feed.begin(100), "the mark that unties the knot is always let in"
    assert feed.row(100, 50, size=BIG)


def test_dead_rows_in_front_of_the_head_are_read_away_when_memory_is_full() -> None:
    feed = Feed(budget=BUDGET)
    feed.begin(100)
    feed.begin(108)
    feed.end(108, items=2)
    feed.row(116, 1, size=BUDGET)
    assert feed.assembler.needs(Position(1, 100, 1)), "rows of 108 stand behind it in its partition"
    used = feed.assembler.used
    assert feed.row(100, 1, size=BIG)
    assert feed.assembler.used == used


def test_marks_are_kept_out_only_when_the_head_has_its_end() -> None:
    feed = Feed(budget=BUDGET)
    feed.begin(100)
    feed.row(100, 1, size=BUDGET)
    assert feed.end(100, items=2)
    assert not feed.begin(108)
    feed.assembler.overrun_marks()
    assert feed.begin(108)


def test_a_transaction_larger_than_the_budget_leaves_in_parts_and_counts_as_one() -> None:
    feed = Feed(budget=BUDGET)
    feed.begin(100)
    seen: list[tuple[int, int]] = []
    for order in range(1, 41):
        assert feed.row(100, order, size=BIG)
        if feed.assembler.pressed:
            part = feed.assembler.take_part()
            assert part is not None
            assert part.position is None
            seen += positions(part)
            feed.assembler.give_back(part.size)
        assert feed.taken() == []
    assert len(seen) > 20
    for order in range(1, 41):
        feed.row(100, order)  # a repeat of what has gone already
    feed.end(100, items=40)
    assert not feed.assembler.pressed or feed.assembler.streaming
    seen += feed.taken()
    assert seen == [(100, order) for order in range(1, 41)]
    assert not feed.assembler.streaming


def test_a_transaction_is_not_taken_in_parts_before_its_begin_says_that_it_is_next() -> None:
    feed = Feed()
    feed.row(100, 1)
    assert feed.assembler.take_part() is None
    feed.begin(100)
    assert positions(feed.assembler.take_part()) == [(100, 1)]


def test_rows_behind_a_truncate_wait_until_it_has_arrived_in_every_partition() -> None:
    feed = Feed(partitions=2)
    feed.begin(100)
    feed.row(100, 3, op="t", partition=0)
    feed.row(100, 4, partition=0)
    assert feed.assembler.take_part() is None
    feed.row(100, 1, partition=1)
    assert positions(feed.assembler.take_part()) == [(100, 1)]
    feed.row(100, 3, op="t", partition=1)
    assert positions(feed.assembler.take_part()) == [(100, 3), (100, 4)]


def test_a_transaction_that_proves_dead_after_parts_of_it_left_is_read_again() -> None:
    feed = Feed()
    feed.begin(100)
    feed.row(100, 1)
    assert feed.assembler.take_part()
    feed.begin(108)
    with pytest.raises(Reread) as again:
        feed.end(108, items=1)
    assert again.value.marks == 3


def test_a_lower_transaction_that_appears_after_parts_of_the_head_left_means_reading_again() -> (
    None
):
    feed = Feed()
    feed.begin(108)
    feed.row(108, 1)
    assert feed.assembler.take_part()
    feed.begin(100)
    with pytest.raises(Reread):
        feed.end(100, items=1)


def test_an_end_that_counts_less_than_has_left_already_means_reading_again() -> None:
    feed = Feed()
    feed.begin(100)
    feed.row(100, 1)
    assert feed.assembler.take_part()
    feed.begin(100)
    with pytest.raises(Reread):
        feed.end(100, orders=1)


def test_after_reading_again_nothing_leaves_in_parts_before_the_marks_are_known() -> None:
    feed = Feed(marks=3)
    feed.begin(100)
    feed.row(100, 1)
    assert feed.assembler.take_part() is None
    feed.begin(108)
    feed.end(108, orders=1)
    assert feed.assembler.take_part() is None, "the head is 108 now, and has no row"
    feed.row(108, 1, collection="s.orders")
    assert feed.taken() == [(108, 1)]
