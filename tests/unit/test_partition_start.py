"""Where a task begins to read the partitions that it is given."""

from __future__ import annotations

import pytest

from cdc.checkpoint import PartitionState, Resume
from cdc.errors import Refused
from cdc.pipeline.partition_start import Beginnings
from cdc.pipeline.selection import Selection
from cdc.position import TopicPartition
from cdc.testing.memory_events import MemoryDecoder
from cdc.testing.memory_partitions import MemoryGroup, MemoryGroupReader, MemoryPartitions
from tests.unit.apply_history import PREFIX, Source
from tests.unit.test_partition_random import Task, World

ONE, OTHER = TopicPartition("p.s.items", 0), TopicPartition("p.s.items", 1)


def parts() -> tuple[Source, Beginnings, MemoryGroupReader]:
    world = World(1)
    world.source = Source(partitions=2)
    world.source.create()
    world.group = MemoryGroup(world.source.topics)
    world.held = MemoryPartitions()
    task = Task(world)
    beginnings = Beginnings(
        Selection(PREFIX), MemoryDecoder(world.source.events), world.source.topics.reader
    )
    return world.source, beginnings, task.reader


def test_a_new_replica_reads_from_the_first_record_a_known_one_from_its_offset() -> None:
    source, beginnings, reader = parts()
    source.write(100, ("s.items", "c", 1, "x"), ("s.items", "c", 2, "x"))
    found = beginnings.find(reader, {ONE: PartitionState(), OTHER: PartitionState(Resume(1))})
    assert (found[ONE].offset, found[ONE].since) == (0, 0)
    assert found[OTHER].offset == 1


def test_where_one_partition_lost_its_beginning_all_begin_at_one_backfill() -> None:
    source, beginnings, reader = parts()
    source.write(100, ("s.items", "c", 1, "x"), ("s.items", "c", 2, "x"))
    source.topics.remove_before(ONE, 1)
    with pytest.raises(Refused, match="no backfill brings it"):
        beginnings.find(reader, {OTHER: PartitionState()})
    source.watermark(808, "s.items", "open")
    found = beginnings.find(reader, {ONE: PartitionState(), OTHER: PartitionState()})
    assert {beginning.since for beginning in found.values()} == {808}


def test_what_the_replica_needs_next_may_not_be_gone() -> None:
    source, beginnings, reader = parts()
    source.write(100, ("s.items", "c", 2, "x"), ("s.items", "c", 4, "x"))
    source.topics.remove_before(ONE, 2)
    with pytest.raises(Refused, match="retention removed"):
        beginnings.find(reader, {ONE: PartitionState(Resume(1))})
    with pytest.raises(Refused, match="lost its end"):
        beginnings.find(reader, {ONE: PartitionState(Resume(9))})
    with pytest.raises(Refused, match="made again"):
        beginnings.find(reader, {ONE: PartitionState(Resume(2, "another"))})
