"""What every `cdc.protocols.PartitionStore` must do; a store's tests derive a class and run its checks.

Knows no test framework: each ``test_`` method raises AssertionError when the store breaks its word. A store that is
not ``atomic`` is held to what it promises instead: whatever is applied again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cdc.checkpoint import PartitionProgress, PartitionState, Resume, SinkCheckpoint, TableState
from cdc.errors import CdcError, Fenced, Unreachable
from cdc.event import Delivered
from cdc.position import Position, TopicPartition
from cdc.protocols import PartitionStore
from cdc.table import Table
from cdc.testing.store_contract import COLLECTION, ITEMS, PLACEHOLDER, item

ONE, OTHER = TopicPartition("p.contract.items", 0), TopicPartition("p.contract.items", 1)


class PartitionStoreContract:
    """Derive, and say how to open the store under test: each test gets an empty replica."""

    def open_store(self) -> PartitionStore:
        """A new session with the same replica, as another process would open it."""
        raise NotImplementedError

    def rows(self, table: Table) -> Sequence[Mapping[str, object]]:
        """All rows of the replica's table, in any order; ``id`` as an int, a NULL as None."""
        raise NotImplementedError

    # --- rows ------------------------------------------------------------------------------------------------

    def test_changes_of_a_partition_take_effect_in_their_order(self) -> None:
        store = self._claimed()
        _commit(store, item("c", 10, 1, 1, "a"), item("u", 10, 2, 1, "b"), item("c", 10, 3, 2))
        _commit(store, item("d", 20, 1, 2), item("c", 20, 2, 2, "again"), item("d", 20, 3, 1))
        self._holds((2, "again", None))

    def test_null_and_empty_are_two_things(self) -> None:
        store = self._claimed()
        _commit(store, item("c", 10, 1, 1, "", None), item("c", 10, 2, 2, "x", "y"))
        _commit(store, item("u", 20, 1, 2, None, ""))
        self._holds((1, "", None), (2, None, ""))

    def test_an_unchanged_column_keeps_its_value(self) -> None:
        store = self._claimed()
        _commit(store, item("c", 10, 1, 1, "a", "large"))
        _commit(store, item("u", 20, 1, 1, "b", PLACEHOLDER, unchanged=("note",)))
        _commit(store, item("u", 30, 1, 1, None, PLACEHOLDER, unchanged=("note",)))
        self._holds((1, None, "large"))

    def test_an_incomplete_update_never_makes_a_row(self) -> None:
        store = self._claimed()
        _commit(store, item("u", 10, 1, 1, "b", PLACEHOLDER, unchanged=("note",)))
        self._holds()

    def test_a_changed_key_leaves_nothing_behind(self) -> None:
        store = self._claimed()
        _commit(store, item("c", 10, 1, 1, "a", "large"))
        _commit(store, item("d", 20, 1, 1, other=2), item("c", 20, 2, 2, "a", "large", other=1))
        self._holds((2, "a", "large"))

    def test_keys_do_not_run_into_each_other(self) -> None:
        store = self._claimed()
        _commit(store, item("c", 10, 1, 1, "a"), item("c", 10, 2, 11, "b"), item("d", 10, 3, 1))
        self._holds((11, "b", None))

    def test_rows_that_were_not_there_are_counted_in_live_tables_only(self) -> None:
        store = self._claimed()
        _commit(store, item("d", 10, 1, 1))
        assert not store.missing_rows().get(COLLECTION), "counted before the table is live"
        _commit(store, tables={COLLECTION: "live"})
        store = self._claimed()
        _commit(store, item("d", 30, 1, 1), item("u", 30, 2, 2, "x"))
        _commit(store, item("d", 40, 1, 3, xid=0))
        assert store.missing_rows().get(COLLECTION) == 2, store.missing_rows()

    # --- truncates -------------------------------------------------------------------------------------------

    def test_a_truncate_stands_between_what_came_before_and_after_it_in_every_partition(
        self,
    ) -> None:
        store, other = self._claimed(ONE), self._claimed(OTHER)
        _commit(store, item("c", 10, 1, 1, "before"))
        _commit(other, _there(item("c", 12, 1, 2, "before")), at=OTHER)
        first, second = item("t", 20, 1, 0), _there(item("t", 20, 1, 0))
        passed = store.truncate(first, 2)
        if passed:  # nobody is waited for, so the row of the other partition may stand before the truncate yet
            _commit(store, item("c", 30, 1, 3, "after"))
            _commit(other, _there(item("c", 15, 1, 4, "late, and before")), at=OTHER)
        assert other.truncate(second, 2)
        if not passed:
            assert store.truncate(first, 2)
            _commit(store, item("c", 30, 1, 3, "after"))
        _commit(other, _there(item("c", 40, 1, 5, "after")), at=OTHER)
        self._holds((3, "after", None), (5, "after", None))

    def test_a_truncate_that_is_met_again_empties_nothing(self) -> None:
        store = self._claimed()
        _commit(store, item("c", 10, 1, 1, "before"))
        assert store.truncate(item("t", 20, 1, 0), 1)
        _commit(store, item("c", 30, 1, 3, "after"))
        store.close()
        store = self._claimed()
        assert store.truncate(item("t", 20, 1, 0), 1)
        self._holds((3, "after", None))

    # --- progress --------------------------------------------------------------------------------------------

    def test_a_new_replica_holds_nothing(self) -> None:
        store = self.open_store()
        assert store.claim("sink", "p", [ONE]) == {ONE: PartitionState()}
        assert not store.offsets()

    def test_a_claim_returns_all_that_was_saved_bit_by_bit(self) -> None:
        store = self._claimed()
        key, gone = bytes(range(256)), b"gone"
        first = PartitionProgress(
            Resume(5, "topic"), Position(1, 2**62, 2), "cluster", 9, {key: 3, gone: 4}
        )
        second = PartitionProgress(
            Resume(8, "topic"), Position(2, 20, 0), "cluster", 9, {}, frozenset({gone})
        )
        for progress in (first, second):
            _commit(store, progress=progress)
        expected = PartitionState(Resume(8, "topic"), Position(2, 20, 0), "cluster", 9, {key: 3})
        assert dict(store.offsets()) == {ONE: 3}, "a row is awaited since 3"
        store.close()
        found = self.open_store().claim("sink", "p", [ONE, OTHER])
        assert found == {ONE: expected, OTHER: PartitionState()}, found

    def test_progress_of_two_sinks_is_two(self) -> None:
        store = self._claimed()
        _commit(store, item("c", 10, 1, 1))
        assert self.open_store().claim("other", "p", [ONE]) == {ONE: PartitionState()}

    def test_what_is_applied_again_changes_nothing(self) -> None:
        """Where rows and progress are not one, a crash may leave rows without progress."""
        store = self._claimed()
        events = [item("c", 10, 1, 1, "a"), item("u", 10, 2, 1, "b"), item("d", 10, 3, 2)]
        for _ in range(2):
            _commit(store, *events, progress=PartitionProgress(Resume(0), None))
        if not store.atomic:
            _commit(store, item("c", 20, 1, 2, "x"), item("d", 30, 1, 2))
            _commit(store, item("u", 5, 1, 1, "old"), item("c", 20, 1, 2, "x"))
        self._holds((1, "b", None))

    def test_what_is_rolled_back_brings_no_progress(self) -> None:
        store = self._claimed()
        transaction = store.begin()
        transaction.save(_checkpoint(ONE, PartitionProgress(Resume(7), Position(1, 10, 1))))
        transaction.rollback()
        transaction.rollback()
        store.close()
        assert self.open_store().claim("sink", "p", [ONE]) == {ONE: PartitionState()}

    # --- owners ----------------------------------------------------------------------------------------------

    def test_a_zombie_cannot_write(self) -> None:
        zombie = self._claimed()
        heir = self._claimed()
        _commit(heir, item("c", 10, 1, 1, "heir"))
        _raises(lambda: _commit(zombie, item("u", 20, 1, 1, "zombie")))
        self._holds((1, "heir", None))
        _raises(lambda: zombie.truncate(item("t", 30, 1, 0), 1))
        self._holds((1, "heir", None))

    def test_a_partition_that_is_given_up_is_another_ones_and_the_rest_stays(self) -> None:
        store = self.open_store()
        store.claim("sink", "p", [ONE, OTHER])
        _commit(store, item("c", 10, 1, 1, "first"))
        store.release([ONE])
        heir = self._claimed(ONE)
        _commit(heir, item("u", 20, 1, 1, "heir"))
        _commit(store, _there(item("c", 30, 1, 2, "stays")), at=OTHER)
        _raises(lambda: _commit(store, item("u", 40, 1, 1, "too late")))
        self._holds((1, "heir", None), (2, "stays", None))

    def test_closing_twice_is_safe(self) -> None:
        store = self._claimed()
        store.close()
        store.close()

    # --- how -------------------------------------------------------------------------------------------------

    def _claimed(self, *partitions: TopicPartition) -> PartitionStore:
        store = self.open_store()
        store.claim("sink", "p", partitions or [ONE])
        return store

    def _holds(self, *expected: tuple[int, str | None, str | None]) -> None:
        found = sorted((row["id"], row["name"], row["note"]) for row in self.rows(ITEMS))
        assert found == sorted(expected), found


def _there(event: Delivered) -> Delivered:
    return event._replace(partition=OTHER.partition)


def _checkpoint(
    at: TopicPartition, progress: PartitionProgress, tables: Mapping[str, TableState] | None = None
) -> SinkCheckpoint:
    return SinkCheckpoint("p", None, tables=tables or {}, progress={at: progress})


def _commit(
    store: PartitionStore,
    *events: Delivered,
    at: TopicPartition = ONE,
    progress: PartitionProgress | None = None,
    tables: Mapping[str, TableState] | None = None,
) -> None:
    """By default the partition's own position stays behind: so that rows have to guard themselves."""
    transaction = store.begin()
    try:
        transaction.apply(events)
        transaction.save(_checkpoint(at, progress or PartitionProgress(Resume(1), None), tables))
        transaction.commit()
    finally:
        transaction.rollback()


def _raises(act: Callable[[], object]) -> None:
    try:
        act()
    except (Fenced, Unreachable):
        return  # an owner whose session was ended is told by whatever it meets first
    except CdcError as error:
        raise AssertionError(f"expected Fenced or Unreachable, got {error!r}") from error
    raise AssertionError("a zombie could write")
