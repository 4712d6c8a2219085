"""What of one partition's records takes effect: repeats, withheld rows, truncates."""

from __future__ import annotations

import pytest

from cdc.checkpoint import PartitionState, Resume
from cdc.errors import Refused, Rejected
from cdc.event import Delivered
from cdc.pipeline.partition_start import Beginning
from cdc.pipeline.partition_track import PartitionTrack
from cdc.position import Position, TopicPartition
from cdc.testing.store_contract import item

AT = TopicPartition("p.contract.items", 0)


def track(state: PartitionState | None = None, *, since: int = 0, count: int = 4) -> PartitionTrack:
    state = state or PartitionState()
    offset = state.resume.offset if state.resume else 0
    return PartitionTrack(AT, state, Beginning(offset, "id", since), "cluster", count)


def moved(order: int, key: int, *, offset: int) -> Delivered:
    """A row that came under another key, and that the log did not carry whole."""
    event = item("c", 10, order, key, "a", "?", unchanged=("note",), other=1)
    return event._replace(offset=offset)


def test_records_below_the_offset_and_positions_that_are_held_are_repeats() -> None:
    it = track(PartitionState(Resume(5), Position(1, 20, 2)))
    event = item("u", 20, 2, 1)
    assert it.take(4, item("u", 30, 1, 1)) is None
    assert it.take(5, event) is None
    assert it.take(6, event._replace(position=Position(1, 20, 3))) is not None
    assert it.progress().resume.offset == 7
    assert it.progress().position == Position(1, 20, 3)


def test_what_committed_before_the_backfill_that_was_joined_is_left_to_it() -> None:
    it = track(since=100)
    assert it.take(0, item("u", 99, 1, 1)) is None
    assert it.take(1, item("u", 100, 1, 1)) is not None


def test_records_without_positions_are_never_repeats() -> None:
    it = track()
    event = item("u", 20, 1, 1)._replace(position=Position(0, 20, 1))
    assert it.take(0, event) is not None
    assert it.take(1, event) is not None
    assert it.progress().position is None


def test_a_newer_generation_stops() -> None:
    it = track(PartitionState(Resume(0), Position(1, 20, 1)))
    with pytest.raises(Refused, match="began anew"):
        it.take(0, item("c", 8, 1, 1)._replace(position=Position(2, 8, 1)))


def test_an_incomplete_row_of_a_new_key_is_withheld_until_its_whole_row_comes() -> None:
    it = track()
    assert it.take(7, moved(2, 2, offset=7)) is None
    assert it.withheld == {item("c", 0, 0, 2).key: 7}
    assert it.take(8, item("u", 11, 1, 2, "b", "?", unchanged=("note",))) is None
    assert list(it.progress().withheld.values()) == [7]
    whole = it.take(9, item("r", 12, 1, 2, "b", "note", xid=0))
    assert whole is not None
    assert not it.withheld
    assert it.progress().settled == {whole.key}


def test_a_whole_update_of_a_withheld_key_makes_its_row_and_misses_none() -> None:
    it = track()
    it.take(7, moved(2, 2, offset=7))
    whole = it.take(8, item("u", 11, 1, 2, "b", "note"))
    assert whole is not None
    assert whole.xid == 0


def test_other_keys_do_not_wait() -> None:
    it = track()
    it.take(7, moved(2, 2, offset=7))
    assert it.take(8, item("u", 11, 1, 3, "b", "?", unchanged=("note",))) is not None


def test_withheld_keys_survive_a_restart() -> None:
    key = item("c", 0, 0, 2).key or b""
    it = track(PartitionState(Resume(8), Position(1, 10, 2), withheld={key: 7}))
    assert it.take(8, item("u", 11, 1, 2, "b", "?", unchanged=("note",))) is None
    assert it.take(9, item("d", 12, 1, 2)) is not None
    assert it.progress().settled == {key}


def test_a_truncate_holds_its_partition_until_it_is_passed() -> None:
    it = track()
    it.take(3, moved(2, 2, offset=3))
    truncate = item("t", 20, 1, 0)._replace(offset=4)
    assert it.take(4, truncate) is None
    assert it.barrier is truncate
    assert it.take(5, item("c", 30, 1, 5)) is None
    assert it.progress().resume.offset == 4
    it.pass_barrier()
    assert it.progress().resume.offset == 5
    assert it.progress().position == Position(1, 20, 1)
    assert not it.withheld
    assert it.take(5, item("c", 30, 1, 5)) is not None


def test_what_cannot_be_ordered_between_partitions_is_refused() -> None:
    foreign = item("t", 20, 1, 0)._replace(position=Position(0, 20, 1))
    with pytest.raises(Rejected, match="one of 4 partitions"):
        track().take(0, foreign)
    alone = track(count=1)
    alone.take(0, foreign)
    assert alone.barrier is foreign


def test_an_incomplete_row_that_nobody_will_complete_is_refused() -> None:
    event = moved(2, 2, offset=0)._replace(position=Position(0, 10, 2))
    with pytest.raises(Rejected, match="never sends the whole row"):
        track().take(0, event)


def test_a_repeated_progress_tells_only_what_is_new() -> None:
    it = track()
    it.take(7, moved(2, 2, offset=7))
    assert it.progress().withheld
    assert not it.moved
    assert not it.progress().withheld
