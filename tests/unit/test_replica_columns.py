"""Which columns of a replica's table are which of the source's, and which types hold all that others do."""

from __future__ import annotations

import pytest

from cdc.table import Column
from connectors.postgres.replica_columns import ColumnChanges, column_changes, widens
from connectors.postgres.replica_memory import RememberedColumn

TABLE = 16400 << 16


def column(name: str, number: int, table: int = TABLE) -> Column:
    return Column(name, "string", nullable=True, number=table | number if number else 0)


def changes(
    wanted: dict[str, int], found: dict[str, int], remembered: dict[str, tuple[int, int]]
) -> ColumnChanges:
    return column_changes(
        [column(name, number) for name, number in wanted.items()],
        found,
        {name: RememberedColumn(TABLE | number, own) for name, (number, own) in remembered.items()},
    )


def test_nothing_to_do() -> None:
    known = {"id": (1, 1), "a": (2, 2)}
    assert changes({"id": 1, "a": 2}, {"id": 1, "a": 2}, known) == ColumnChanges()
    assert changes({"id": 1, "a": 2}, {"id": 1, "a": 2, "own": 3}, {}) == ColumnChanges()


def test_a_column_with_another_name_is_renamed_and_one_without_a_successor_is_gone() -> None:
    known = {"id": (1, 1), "a": (2, 2), "b": (3, 3)}
    found = changes({"id": 1, "x": 2}, {"id": 1, "a": 2, "b": 3}, known)
    assert found == ColumnChanges({"a": "x"}, ("b",))


def test_exchanged_names_are_renames() -> None:
    known = {"a": (1, 1), "b": (2, 2)}
    assert changes({"b": 1, "a": 2}, {"a": 1, "b": 2}, known).renamed == {"a": "b", "b": "a"}


def test_a_new_column_of_an_old_name_replaces_the_old_one() -> None:
    known = {"id": (1, 1), "a": (2, 2)}
    found = changes({"id": 1, "a": 3}, {"id": 1, "a": 2}, known)
    assert (found.gone, found.replaced) == ((), (column("a", 3),))
    # Under a name that a rename has made free it is simply new.
    found = changes({"id": 1, "b": 2, "a": 3}, {"id": 1, "a": 2}, known)
    assert found == ColumnChanges({"a": "b"}, added=(column("a", 3),))


def test_what_an_operator_has_done_already_is_not_done_again() -> None:
    known = {"id": (1, 1), "a": (2, 2)}
    renamed_by_hand = {"id": 1, "x": 2}
    assert changes({"id": 1, "x": 2}, renamed_by_hand, known) == ColumnChanges()
    made_anew_by_hand = {"id": 1, "a": 3}
    assert changes({"id": 1, "a": 3}, made_anew_by_hand, known) == ColumnChanges()


def test_without_numbers_names_decide() -> None:
    known = {"id": (1, 1), "a": (2, 2)}
    found = changes({"id": 0, "x": 0}, {"id": 1, "a": 2}, known)
    assert found == ColumnChanges(added=(column("x", 0),))


def test_columns_of_another_table_of_the_same_name_are_known_by_their_names() -> None:
    known = {"id": RememberedColumn(TABLE | 1, 1), "a": RememberedColumn(TABLE | 2, 2)}
    other = 16500 << 16
    wanted = [column("id", 1, other), column("b", 2, other)]
    found = column_changes(wanted, {"id": 1, "a": 2}, known)
    assert found == ColumnChanges(gone=("a",), added=(wanted[1],))


@pytest.mark.parametrize(
    ("have", "want"),
    [
        ("smallint", "integer"),
        ("integer", "bigint"),
        ("bigint", "numeric"),
        ("integer", "numeric(12,2)"),
        ("real", "double precision"),
        ("character varying(10)", "character varying(20)"),
        ("character varying(10)", "text"),
        ("character varying(10)[]", "text[]"),
        ("character varying", "text"),
        ("numeric(6,2)", "numeric(8,2)"),
        ("numeric(6,2)", "numeric(8,4)"),
        ("numeric(6,2)", "numeric"),
        ("timestamp(3) without time zone", "timestamp without time zone"),
        ("time(0) with time zone", "time(3) with time zone"),
        ("bit varying(3)", "bit varying(9)"),
    ],
)
def test_a_wider_type_holds_every_value_and_not_the_other_way_round(have: str, want: str) -> None:
    assert widens(have, want)
    assert not widens(want, have)


@pytest.mark.parametrize(
    ("have", "want"),
    [
        ("integer", "text"),
        ("integer", "numeric(11,2)"),
        ("text", "integer"),
        ("numeric(6,2)", "numeric(7,4)"),
        ("integer", "bigint[]"),
        ("timestamp without time zone", "timestamp with time zone"),
        ("character(3)", "text"),
        ('"odd type"(3)', "text"),
    ],
)
def test_what_may_bend_a_value_is_no_wider_type(have: str, want: str) -> None:
    assert not widens(have, want)
