"""What every `cdc.protocols.Store` must do; a store's tests derive a class from `StoreContract` and run its checks.

Knows no test framework: each ``test_`` method raises AssertionError when the store breaks its word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cdc.checkpoint import ParkedKey, Resume, SinkCheckpoint
from cdc.errors import CdcError, Fenced, Unreachable
from cdc.event import Delivered, Op
from cdc.position import Position, TopicPartition
from cdc.protocols import Shape, Store
from cdc.table import Table
from cdc.testing.rows import key_bytes, make_table, row_bytes

ITEMS = make_table("contract.items", "id", "name", "note")
COLLECTION = "contract.items"
PLACEHOLDER = "__debezium_unavailable_value"
PARTITION = TopicPartition("p.contract.items", 0)


def item(
    op: Op,
    lsn: int,
    order: int,
    key: int,
    name: str | None = None,
    note: str | None = None,
    *,
    xid: int = 7,
    unchanged: tuple[str, ...] = (),
    other: int | None = None,
) -> Delivered:
    """One event of the table ``contract.items(id, name, note)``; an op ``t`` has no key."""
    values: Mapping[str, object] = {"id": key, "name": name, "note": note}
    after = None if op in ("d", "t") else row_bytes(ITEMS, values)
    return Delivered(
        COLLECTION,
        ITEMS,
        op,
        Position(1, lsn, order),
        xid,
        None if op == "t" else key_bytes(ITEMS, values),
        None,
        after,
        unchanged,
        None if other is None else key_bytes(ITEMS, {"id": other}),
        PARTITION.topic,
        PARTITION.partition,
        order,
        100,
    )


class StoreContract:
    """Derive, and say how to open the store under test: each test gets an empty replica."""

    def open_store(self) -> Store:
        """A new session with the same replica, as another process would open it."""
        raise NotImplementedError

    def rows(self, table: Table) -> Sequence[Mapping[str, object]]:
        """All rows of the replica's table, in any order."""
        raise NotImplementedError

    def exists(self, table: Table) -> bool:
        """Whether the replica has the table, with or without rows."""
        raise NotImplementedError

    def prepare(self, table: Table) -> None:
        """Make the replica's table where the store does not do so by itself."""

    # --- rows ------------------------------------------------------------------------------------------------

    def test_changes_take_effect_in_their_order(self) -> None:
        store = self._claimed()
        _commit(store, 10, item("c", 10, 1, 1, "a"), item("u", 10, 2, 1, "b"), item("c", 10, 3, 2))
        _commit(store, 20, item("d", 20, 1, 2), item("c", 20, 2, 2, "again"), item("d", 20, 3, 1))
        self._holds((2, "again", None))

    def test_a_read_row_and_an_update_make_a_row_that_is_not_there(self) -> None:
        store = self._claimed()
        _commit(store, 10, item("r", 10, 1, 1, "read", xid=0), item("u", 10, 2, 2, "updated"))
        self._holds((1, "read", None), (2, "updated", None))

    def test_null_and_empty_are_two_things(self) -> None:
        store = self._claimed()
        _commit(store, 10, item("c", 10, 1, 1, "", None))
        self._holds((1, "", None))

    def test_an_unchanged_column_keeps_its_value(self) -> None:
        store = self._claimed()
        _commit(store, 10, item("c", 10, 1, 1, "a", "large"))
        _commit(store, 20, item("u", 20, 1, 1, "b", PLACEHOLDER, unchanged=("note",)))
        self._holds((1, "b", "large"))

    def test_an_unchanged_column_keeps_a_value_of_the_same_transaction(self) -> None:
        store = self._claimed()
        _commit(
            store,
            10,
            item("c", 10, 1, 1, "a", "large"),
            item("u", 10, 2, 1, "b", PLACEHOLDER, unchanged=("note",)),
        )
        self._holds((1, "b", "large"))

    def test_an_incomplete_update_never_makes_a_row(self) -> None:
        store = self._claimed()
        _commit(store, 10, item("u", 10, 1, 1, "b", PLACEHOLDER, unchanged=("note",)))
        self._holds()

    def test_a_changed_key_carries_an_unchanged_column_over(self) -> None:
        store = self._claimed()
        _commit(store, 10, item("c", 10, 1, 1, "a", "large"))
        _commit(
            store,
            20,
            item("d", 20, 1, 1, other=2),
            item("c", 20, 2, 2, "a", PLACEHOLDER, unchanged=("note",), other=1),
        )
        self._holds((2, "a", "large"))

    def test_truncate_empties_the_table_in_its_place(self) -> None:
        store = self._claimed()
        _commit(store, 10, item("c", 10, 1, 1))
        _commit(store, 20, item("c", 20, 1, 2), item("t", 20, 2, 0), item("c", 20, 3, 3, "after"))
        self._holds((3, "after", None))

    def test_truncate_needs_to_know_neither_the_key_nor_rows(self) -> None:
        """Its event has no key: of a store opened anew, it may be the first one that names the table."""
        keyless = make_table(str(ITEMS.id), "id", "name", "note", key=())
        emptied = item("t", 20, 1, 0)._replace(table=keyless)
        store = self._claimed()
        _commit(store, 5, emptied._replace(position=Position(1, 5, 1)))
        _commit(store, 10, item("c", 10, 1, 1))
        store.close()
        store = self._claimed()
        _commit(store, 20, emptied, item("c", 20, 2, 2))
        self._holds((2, None, None))

    def test_a_table_without_rows_is_made_once_and_with_the_transaction(self) -> None:
        store = self._claimed()
        transaction = store.begin()
        transaction.ensure(_shape(10))
        transaction.rollback()
        assert not self.exists(ITEMS), "made by a transaction that was rolled back"
        for _ in range(2):
            transaction = store.begin()
            transaction.ensure(_shape(10))
            transaction.save(_at(10))
            transaction.commit()
        assert self.exists(ITEMS)
        self._holds()
        _commit(store, 20, item("c", 20, 1, 1))
        transaction = store.begin()
        transaction.ensure(_shape(10))
        transaction.save(_at(30))
        transaction.commit()
        self._holds((1, None, None))

    def test_parts_of_a_transaction_appear_together(self) -> None:
        store = self._claimed()
        transaction = store.begin()
        transaction.apply([item("c", 10, 1, 1)])
        transaction.apply([item("c", 10, 2, 2)])
        self._holds()
        transaction.save(_at(10))
        transaction.commit()
        self._holds((1, None, None), (2, None, None))

    def test_rows_that_were_not_there_are_counted_in_live_tables_only(self) -> None:
        store = self._claimed()
        _commit(store, 10, item("d", 10, 1, 1))
        assert not store.missing_rows().get(COLLECTION), "counted before the table is live"
        _commit(store, 20, tables={COLLECTION: "live"})
        _commit(store, 30, item("d", 30, 1, 1), item("u", 30, 2, 2, "x"))
        _commit(store, 40, item("d", 40, 1, 3, xid=0))
        assert store.missing_rows().get(COLLECTION) == 2, store.missing_rows()

    # --- the checkpoint --------------------------------------------------------------------------------------

    def test_a_new_replica_holds_nothing(self) -> None:
        store = self._opened()
        checkpoint = store.claim("sink", "p")
        assert checkpoint == SinkCheckpoint("p", None), checkpoint

    def test_a_claim_returns_all_that_was_saved_bit_by_bit(self) -> None:
        other = TopicPartition("p.transaction", 0)
        store = self._claimed()
        first = SinkCheckpoint(
            "p",
            Position(1, 10, 2),
            "cluster",
            {PARTITION: Resume(5, "topic", 3), other: Resume(2)},
            {COLLECTION: "backfilling"},
            {COLLECTION: 9},
        )
        second = SinkCheckpoint(
            "p", Position(1, 20, 0), "cluster", {other: Resume(8)}, {COLLECTION: "live"}
        )
        for checkpoint in (first, second):
            transaction = store.begin()
            transaction.save(checkpoint)
            transaction.commit()
        store.close()
        assert self._opened().claim("sink", "p") == SinkCheckpoint(
            "p",
            Position(1, 20, 0),
            "cluster",
            {PARTITION: Resume(5, "topic", 3), other: Resume(8)},
            {COLLECTION: "live"},
            {COLLECTION: 9},
        )

    def test_checkpoints_of_two_sinks_are_two(self) -> None:
        store = self._claimed()
        _commit(store, 10)
        assert self._opened().claim("other", "p").position is None

    def test_what_is_rolled_back_never_was(self) -> None:
        store = self._claimed()
        transaction = store.begin()
        transaction.apply([item("c", 10, 1, 1)])
        transaction.save(_at(10))
        transaction.rollback()
        transaction.rollback()
        self._holds()
        _commit(store, 20, item("c", 20, 1, 2))
        transaction.rollback()
        self._holds((2, None, None))
        store.close()
        assert self._opened().claim("sink", "p").position == Position(1, 20, 1)

    # --- what is kept out ------------------------------------------------------------------------------------

    def test_an_attempt_that_is_rejected_changes_nothing_and_the_rest_goes_on(self) -> None:
        store = self._claimed()
        _commit(store, 10, item("c", 10, 1, 1, "a"))
        transaction = store.begin()
        assert transaction.attempt([item("c", 20, 1, 2)]) is None
        assert transaction.attempt([item("u", 20, 2, 1, "b"), _keyless(20, 3)]) is not None
        assert transaction.attempt([item("c", 20, 4, 3)]) is None
        transaction.save(_at(20))
        transaction.commit()
        self._holds((1, "a", None), (2, None, None), (3, None, None))

    def test_a_delete_that_waits_for_the_new_key_outlives_a_rejected_attempt(self) -> None:
        store = self._claimed()
        _commit(store, 10, item("c", 10, 1, 1, "a", "large"))
        transaction = store.begin()
        assert transaction.attempt([item("d", 20, 1, 1, other=2)]) is None
        moved = item("c", 20, 2, 2, "a", PLACEHOLDER, unchanged=("note",), other=1)
        assert transaction.attempt([moved, _keyless(20, 3)]) is not None
        assert transaction.attempt([moved]) is None
        transaction.save(_at(20))
        transaction.commit()
        self._holds((2, "a", "large"))

    def test_parked_keys_are_kept_with_the_checkpoint_and_shown_by_the_state_of_their_table(
        self,
    ) -> None:
        store = self._claimed()
        _save(store, SinkCheckpoint("p", Position(1, 8, 1), tables={COLLECTION: "live"}))
        one, two, whole = _parked(b"\x02", 5), _parked(b"\x04", 6), _parked(None, 7)
        _save(store, SinkCheckpoint("p", Position(1, 16, 1), parked=(one, two, whole)))
        _save(store, SinkCheckpoint("p", Position(1, 24, 1), released=(two,)))
        found = self._opened().claim("sink", "p")
        assert (found.parked, found.tables) == ((one, whole), {COLLECTION: "parked"}), found
        store = self._claimed()
        _save(store, SinkCheckpoint("p", Position(1, 32, 1), released=(one, whole)))
        found = self._opened().claim("sink", "p")
        assert (found.parked, found.tables) == ((), {COLLECTION: "live"}), found

    def test_keys_are_released_beside_the_owner_who_must_claim_again(self) -> None:
        store = self._claimed()
        _commit(store, 10, item("c", 10, 1, 1, "a"))
        one = _parked(b"\x02", 5)
        _save(store, SinkCheckpoint("p", Position(1, 16, 1), parked=(one,)))
        with self._opened().beside("sink", "p") as (held, transaction):
            assert (held.position, held.parked) == (Position(1, 16, 1), (one,)), held
            assert transaction.attempt([item("u", 16, 1, 1, "b")]) is None
        self._holds((1, "a", None))
        with self._opened().beside("sink", "p") as (_, transaction):
            assert transaction.attempt([item("u", 16, 1, 1, "b")]) is None
            transaction.save(SinkCheckpoint("p", None, released=(one,)))
            transaction.commit()
        self._holds((1, "b", None))
        try:
            _commit(store, 24, item("u", 24, 1, 1, "unaware"))
        except Unreachable:
            store.close()
        else:
            raise AssertionError("the owner did not notice that keys were released")
        found = store.claim("sink", "p")
        assert (found.position, found.parked) == (Position(1, 16, 1), ()), found
        _commit(store, 24, item("u", 24, 1, 1, "aware"))
        self._holds((1, "aware", None))

    # --- the owner -------------------------------------------------------------------------------------------

    def test_an_owner_that_was_replaced_does_not_take_it_back(self) -> None:
        former = self._claimed()
        self._claimed()
        former.close()
        _raises(lambda: former.claim("sink", "p"))

    def test_an_owner_claims_again_after_an_outage(self) -> None:
        store = self._claimed()
        store.close()
        store.claim("sink", "p")
        _commit(store, 10, item("c", 10, 1, 1))
        self._holds((1, None, None))

    def test_a_zombie_cannot_write(self) -> None:
        zombie = self._claimed()
        heir = self._claimed()
        _commit(heir, 10, item("c", 10, 1, 1, "heir"))
        _raises(lambda: _commit(zombie, 10, item("c", 10, 1, 1, "zombie")))
        self._holds((1, "heir", None))

    def test_a_claim_ends_a_transaction_that_is_open(self) -> None:
        zombie = self._claimed()
        transaction = zombie.begin()
        transaction.apply([item("c", 10, 1, 1, "zombie")])
        heir = self._claimed()
        _commit(heir, 10, item("c", 10, 1, 1, "heir"))

        def finish() -> None:
            transaction.save(_at(20))
            transaction.commit()

        _raises(finish)
        transaction.rollback()
        self._holds((1, "heir", None))

    def test_closing_twice_is_safe(self) -> None:
        store = self._claimed()
        store.close()
        store.close()

    # --- how -------------------------------------------------------------------------------------------------

    def _opened(self) -> Store:
        store = self.open_store()
        assert store.transactional
        return store

    def _claimed(self) -> Store:
        self.prepare(ITEMS)
        store = self._opened()
        store.claim("sink", "p")
        return store

    def _holds(self, *expected: tuple[int, str | None, str | None]) -> None:
        found = sorted((row["id"], row["name"], row["note"]) for row in self.rows(ITEMS))
        assert found == sorted(expected), found


def _shape(lsn: int) -> Shape:
    return Shape(ITEMS, COLLECTION, PARTITION.topic, Position(1, lsn, 0))


def _keyless(lsn: int, order: int) -> Delivered:
    """An event that no store can ever apply."""
    return item("c", lsn, order, 9)._replace(key=None)


def _parked(key: bytes | None, offset: int) -> ParkedKey:
    position = Position(1, 12, offset)
    return ParkedKey(COLLECTION, key, *PARTITION, offset, position, "Rejected", "too long")


def _save(store: Store, checkpoint: SinkCheckpoint) -> None:
    transaction = store.begin()
    transaction.save(checkpoint)
    transaction.commit()


def _at(lsn: int) -> SinkCheckpoint:
    return SinkCheckpoint("p", Position(1, lsn, 1))


def _commit(
    store: Store, lsn: int, *events: Delivered, tables: Mapping[str, str] | None = None
) -> None:
    transaction = store.begin()
    transaction.apply(events)
    transaction.save(SinkCheckpoint("p", Position(1, lsn, 1), tables=tables or {}))  # type: ignore[arg-type]
    transaction.commit()


def _raises(act: Callable[[], object]) -> None:
    """The zombie is told: Fenced where it could still ask, some error of ours where its session was ended."""
    try:
        act()
    except Fenced:
        return
    except CdcError as error:
        raise AssertionError(f"expected Fenced, got {error!r}") from error
    raise AssertionError("a zombie could write")
