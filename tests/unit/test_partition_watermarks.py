"""Which tables are whole, by what the replica holds of their partitions."""

from __future__ import annotations

from typing import Literal

from cdc.fence import Watermark
from cdc.pipeline.partition_watermarks import PartitionWatermarks
from cdc.pipeline.selection import Selection
from cdc.position import Position, TopicPartition
from cdc.protocols import Shape
from cdc.testing.rows import make_table

ITEMS = make_table("s.items", "id", "text")
ONE, OTHER = TopicPartition("p.s.items", 0), TopicPartition("p.s.items", 1)


def watermark(phase: Literal["open", "chunk", "final"], void: str = "") -> Watermark:
    ends: dict[tuple[str, int], int] = {ONE: 10, OTHER: 0, ("p.transaction", 0): 99}
    shape = ITEMS if phase == "final" else None
    return Watermark("f", "backfill", ITEMS.id, 1, 800, ends, void, phase, shape=shape)


def test_a_copy_begins_when_its_fence_is_met_and_ends_when_every_partition_is_held() -> None:
    it = PartitionWatermarks(Selection("p"))
    it.add(3, watermark("open"))
    it.add(4, watermark("chunk"))
    it.add(5, watermark("final"))
    assert it.oldest == 3
    assert it.take({}).tables == {"s.items": "backfilling"}
    assert it.oldest == 5
    assert not it.take({ONE: 9}).tables
    passed = it.take({ONE: 10})
    assert passed.tables == {"s.items": "live"}
    assert passed.shapes == [Shape(ITEMS, "s.items", "p.s.items", Position(1, 800, 0))]
    assert it.oldest is None


def test_a_void_fence_says_nothing() -> None:
    it = PartitionWatermarks(Selection("p"))
    it.add(3, watermark("final", void="the table was altered"))
    assert it.oldest is None


def test_topics_that_are_not_read_are_not_waited_for() -> None:
    it = PartitionWatermarks(Selection("p", ["p.s.orders"]))
    it.add(3, watermark("final"))
    assert not it.take({}).tables
    assert it.oldest is None
