"""Where a sink begins to read, and when it must not."""

from __future__ import annotations

import pytest

from cdc.errors import Refused
from cdc.pipeline.selection import Selection
from cdc.position import Position, TopicPartition
from tests.unit.apply_history import PREFIX, TRANSACTIONS
from tests.unit.test_apply import Bench, insert

ITEMS_0 = TopicPartition("p.s.items", 0)
ORDERS = ("p.s.orders",)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def with_one_row_applied(bench: Bench) -> Bench:
    bench.source.write(100, insert(1), insert(2))
    bench.run_until(Position(1, 100, 2))
    return bench


def test_a_topic_met_in_an_end_is_read_before_that_transaction_is_decided(bench: Bench) -> None:
    bench.source.topics.delete("p.s.orders")
    with bench.running() as applier:
        bench.wait(lambda: applier.status.state == "running")
        bench.source.write(100, insert(1), insert(2, collection="s.orders"))
        bench.wait(lambda: bench.checkpoint.position == Position(1, 100, 2))
    assert set(bench.replica.rows["s.orders"]) != set()


def test_topics_of_marks_may_be_made_after_the_sink_has_started(bench: Bench) -> None:
    bench.source.topics = type(bench.source.topics)()
    with bench.running() as applier:
        bench.wait(lambda: applier.status.state == "running")
        bench.source.create()
        bench.source.write(100, insert(1))
        bench.wait(lambda: bench.checkpoint.position == Position(1, 100, 1))


def test_another_cluster_is_refused(bench: Bench) -> None:
    with_one_row_applied(bench)
    bench.source.topics.cluster_id = "other"
    assert "belongs to Kafka cluster memory" in bench.run_into(Refused)


def test_a_topic_that_was_made_again_is_refused(bench: Bench) -> None:
    with_one_row_applied(bench)
    bench.source.topics.create("p.s.items", 2)
    assert "deleted and made again" in bench.run_into(Refused)


def test_a_topic_that_is_gone_is_refused(bench: Bench) -> None:
    with_one_row_applied(bench)
    bench.source.topics.delete("p.s.items")
    assert "is gone" in bench.run_into(Refused)


def test_a_compacted_topic_is_refused(bench: Bench) -> None:
    bench.source.topics.create("p.s.items", 2, "compact")
    assert "is compacted" in bench.run_into(Refused)


def test_retention_that_has_passed_the_checkpoint_is_refused(bench: Bench) -> None:
    with_one_row_applied(bench)
    bench.source.write(108, insert(4), insert(6))
    bench.source.topics.remove_before(ITEMS_0, 2)
    assert "retention removed the rest" in bench.run_into(Refused)


def test_a_topic_that_lost_its_end_is_refused(bench: Bench) -> None:
    with_one_row_applied(bench)
    bench.source.topics.log(ITEMS_0).records.clear()
    assert "the topic lost its end" in bench.run_into(Refused)


# --- joining late --------------------------------------------------------------------------------------------


def two_tables_one_read(bench: Bench) -> None:
    """The replica has followed s.items to 108; s.orders, never read, has a row of that time."""
    bench.selection = Selection(PREFIX, ["p.s.items"])
    bench.source.write(100, insert(1), insert(5, collection="s.orders"))
    bench.source.write(108, insert(2))
    bench.run_until(Position(1, 108, 1))
    bench.selection = Selection(PREFIX)


def test_a_table_selected_later_asks_for_a_backfill(bench: Bench) -> None:
    two_tables_one_read(bench)
    assert "cdc table backfill FILE --table s.orders" in bench.run_into(Refused)
    assert bench.run_into(Refused), "and again: nothing of it was written down as read"


def test_a_table_selected_later_begins_at_the_opening_fence_of_its_backfill(bench: Bench) -> None:
    two_tables_one_read(bench)
    bench.source.watermark(200, "s.orders", "open")
    bench.source.write(208, insert(7, collection="s.orders"))
    bench.source.write(215, ("s.orders", "r", 5, "x"), ("s.orders", "r", 7, "x"), xid=0)
    bench.source.watermark(216, "s.orders", "final")
    bench.run_until(Position.at_fence(1, 216))
    assert len(bench.replica.rows["s.orders"]) == 2
    assert bench.checkpoint.since == {"s.orders": 200}
    assert bench.checkpoint.tables == {"s.orders": "live"}


def test_a_backfill_that_the_replica_has_already_passed_does_not_help(bench: Bench) -> None:
    bench.source.watermark(50, "s.orders", "open")
    two_tables_one_read(bench)
    bench.run_into(Refused)


def test_a_void_opening_fence_does_not_help(bench: Bench) -> None:
    two_tables_one_read(bench)
    bench.source.watermark(200, "s.orders", "open", void="limbo")
    bench.run_into(Refused)


def test_a_new_table_needs_no_backfill(bench: Bench) -> None:
    bench.source.topics.delete("p.s.orders")
    bench.source.write(100, insert(1))
    bench.run_until(Position(1, 100, 1))
    bench.source.topics.create("p.s.orders", 2)
    bench.source.write(108, insert(5, collection="s.orders"))
    bench.run_until(Position(1, 108, 1))
    assert len(bench.replica.rows["s.orders"]) == 1


def test_a_second_replica_after_retention_has_passed_asks_for_a_backfill(bench: Bench) -> None:
    bench.source.write(100, insert(1), insert(2))
    bench.source.write(108, insert(4))
    bench.source.topics.remove_before(ITEMS_0, 1)
    assert "cdc table backfill FILE --table s.items" in bench.run_into(Refused)


def test_a_second_replica_when_marks_are_gone_asks_for_a_backfill(bench: Bench) -> None:
    """Else rows whose END retention has removed would count as dead, and vanish."""
    bench.source.write(100, insert(1))
    bench.source.write(108, insert(3))
    bench.source.topics.remove_before(TRANSACTIONS, 2)
    bench.run_into(Refused)
    assert bench.items == {}


def test_a_second_replica_after_retention_begins_at_the_newest_backfill(bench: Bench) -> None:
    bench.source.write(100, insert(1), insert(2))
    bench.source.watermark(104, "s.items", "open")
    bench.source.write(108, insert(4))
    bench.source.write(111, ("s.items", "r", 1, "x"), ("s.items", "r", 2, "x"), xid=0)
    bench.source.watermark(112, "s.items", "final")
    for partition in (ITEMS_0, TopicPartition("p.s.items", 1)):
        bench.source.topics.remove_before(partition, 1)
    bench.source.topics.delete("p.s.orders")
    bench.run_until(Position.at_fence(1, 112))
    assert bench.items == {1: "x", 2: "x", 4: "x"}
    assert bench.checkpoint.since == {"s.items": 104}


def test_a_backfill_whose_rows_retention_has_removed_does_not_help(bench: Bench) -> None:
    bench.source.watermark(50, "s.items", "open")
    bench.source.write(99, ("s.items", "r", 2, "x"), xid=0)
    bench.source.topics.remove_before(ITEMS_0, 1)
    bench.run_into(Refused)


def test_an_expression_that_spans_two_sources_is_refused(bench: Bench) -> None:
    with_one_row_applied(bench)
    bench.selection = Selection(PREFIX, regex=".*")
    bench.run_until(Position(1, 100, 2))
    bench.source.topics.create("q.s.items", 1)
    bench.source.topics.create("q.transaction", 1)
    assert "topics.regex matches q.s.items" in bench.run_into(Refused)
