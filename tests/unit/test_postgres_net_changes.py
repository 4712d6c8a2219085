from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from cdc.avro_binary import long_bytes
from cdc.event import Delivered
from connectors.postgres.net_changes import Move, NetChanges
from connectors.postgres.tuples import TupleTranscoder
from tests.integration.item_history import (
    COLLECTION,
    ITEMS,
    PLACEHOLDER,
    event,
    row_bytes,
)

FULL = replace(ITEMS, identity="full")
Values = tuple[int, str | None, str | None, str | None]


def taken(events: Sequence[Delivered]) -> NetChanges:
    table = events[0].table
    changes = NetChanges(COLLECTION, table, TupleTranscoder(table.columns, table.key))
    for each in events:
        assert changes.take(each) is None
    changes.settle()
    return changes


def test_rows_that_began_and_stayed_are_fresh() -> None:
    changes = taken(
        [
            event("c", 1, (1, "a", None, None)),
            event("u", 1, (1, "b", None, None)),
            event("r", 2, (2, None, None, None)),
        ]
    )
    assert changes.fresh == {
        long_bytes(1): row_bytes((1, "b", None, None)),
        long_bytes(2): row_bytes((2, None, None, None)),
    }
    assert not changes.states
    assert not changes.expected


def test_a_row_that_began_and_ended_is_deleted_and_not_expected() -> None:
    changes = taken([event("c", 1, (1, None, None, None)), event("d", 1)])
    assert not changes.fresh
    assert changes.states == {long_bytes(1): None}
    assert not changes.expected


def test_a_row_that_ended_and_began_anew_is_expected_and_written_over() -> None:
    changes = taken([event("d", 1), event("c", 1, (1, "new", None, None))])
    assert changes.states == {long_bytes(1): row_bytes((1, "new", None, None))}
    assert changes.expected == {long_bytes(1)}


def test_rows_of_fences_are_never_expected() -> None:
    changes = taken(
        [event("d", 1, xid=0), event("r", 2, (2, None, None, None), xid=0), event("d", 3)]
    )
    assert changes.expected == {long_bytes(3)}


def test_an_incomplete_row_under_a_deleted_key_is_nothing() -> None:
    changes = taken([event("d", 1), event("u", 1, (1, "x", None, PLACEHOLDER), unchanged=["big"])])
    assert changes.states == {long_bytes(1): None}


@pytest.mark.parametrize("known", [True, False])
def test_a_moved_row_is_put_together_where_its_old_state_is_known(known: bool) -> None:
    changes = NetChanges(COLLECTION, ITEMS, TupleTranscoder(ITEMS.columns, ITEMS.key))
    if known:
        changes.take(event("c", 1, (1, "a", "n", "large")))
    changes.take(event("d", 1, other=2))
    after = event("c", 2, (2, "a", "n", PLACEHOLDER), unchanged=["big"], other=1)
    move = changes.take(after)
    if known:
        assert move is None
        (row,) = changes.fresh.values()
        assert not isinstance(row, bytes)
        assert row.values[3] == b"large"
        assert changes.states == {long_bytes(1): None}
    else:
        assert isinstance(move, Move)
        assert move.old_key == long_bytes(1)
        assert move.row.missing == {3}


def moved(old: Values, new: int) -> list[Delivered]:
    """A key change of a table whose log carries whole old rows."""
    after = (new, *old[1:])
    gone = event("d", old[0], other=new, table=FULL)
    return [
        gone._replace(before=row_bytes(old)),
        event("c", new, after, other=old[0], table=FULL)._replace(before=row_bytes(old)),
    ]


@pytest.mark.parametrize("cleared", [False, True], ids=["one batch", "a batch each"])
def test_keys_shifted_in_one_statement_keep_every_row(cleared: bool) -> None:
    changes = NetChanges(COLLECTION, FULL, TupleTranscoder(FULL.columns, FULL.key))
    replica: dict[bytes, object] = {}
    for key in range(1, 5):
        for each in moved((key, f"row {key}", None, None), key + 1):
            assert changes.take(each) is None
            if cleared:
                replica |= {**changes.fresh, **changes.states}
                changes.clear()
    changes.settle()
    replica |= {**changes.fresh, **changes.states}
    assert replica == {
        long_bytes(1): None,
        **{long_bytes(k + 1): row_bytes((k + 1, f"row {k}", None, None)) for k in range(1, 5)},
    }


def test_a_row_that_took_a_key_over_can_be_changed_and_deleted() -> None:
    after = (2, "changed", None, None)
    events = [
        *moved((1, "a", None, None), 2),
        event("u", 2, after, table=FULL)._replace(before=row_bytes((2, "a", None, None))),
        event("d", 2, table=FULL)._replace(before=row_bytes(after)),
    ]
    assert taken(events).states == {long_bytes(1): None, long_bytes(2): None}
