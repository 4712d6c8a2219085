"""The log's bytes in, items out: no server. The bytes are built as PostgreSQL's protocol documents them."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence

import pytest

from cdc.errors import Failed
from cdc.event import Begin, Change, Commit, Item, Message, Progress, Truncate
from cdc.fence import SIGNAL_PREFIX
from cdc.table import Identity, Table, TableId
from connectors.postgres.column_rules import ColumnRules, MaskRule
from connectors.postgres.decoding import Hints, RowDecoder, Shapes
from connectors.postgres.masks import Stars
from connectors.postgres.pgoutput import Decoder
from connectors.postgres.relation import Relation
from connectors.postgres.types import Attribute

pytestmark = pytest.mark.usefixtures("both_forms")

INT4, TEXT = 23, 25
OID = 1000
UNCHANGED = object()
Value = int | str | None | object


def frame(message: bytes, lsn: int = 500) -> bytes:
    return b"w" + struct.pack("!QQq", lsn, lsn, 0) + message


def keepalive(end: int) -> bytes:
    return b"k" + struct.pack("!Qqb", end, 0, 0)


def begin(commit_lsn: int = 900, xid: int = 7) -> bytes:
    return frame(b"B" + struct.pack("!Qqi", commit_lsn, 5, xid))


def commit(commit_lsn: int = 900, end_lsn: int = 948) -> bytes:
    return frame(b"C" + struct.pack("!bQQq", 0, commit_lsn, end_lsn, 5))


def relation(
    identity: str = "d", key: Sequence[str] = ("id",), name: str = "t", oid: int = OID
) -> bytes:
    columns = b"".join(
        struct.pack("!b", 1 if column in key or identity == "f" else 0)
        + column.encode()
        + b"\0"
        + struct.pack("!Ii", type_oid, -1)
        for column, type_oid in (("id", INT4), ("a", TEXT), ("b", TEXT))
    )
    head = struct.pack("!I", oid) + b"public\0" + name.encode() + b"\0" + identity.encode()
    return frame(b"R" + head + struct.pack("!h", 3) + columns)


def row(*values: Value) -> bytes:
    out = struct.pack("!h", len(values))
    for value in values:
        if value is None:
            out += b"n"
        elif value is UNCHANGED:
            out += b"u"
        else:
            data = struct.pack("!i", value) if isinstance(value, int) else str(value).encode()
            out += b"b" + struct.pack("!i", len(data)) + data
    return out


def insert(*values: Value, oid: int = OID) -> bytes:
    return frame(b"I" + struct.pack("!I", oid) + b"N" + row(*values))


def update(new: bytes, old: bytes = b"", kind: bytes = b"", oid: int = OID) -> bytes:
    return frame(b"U" + struct.pack("!I", oid) + (kind + old if kind else b"") + b"N" + new)


def delete(old: bytes, kind: bytes = b"K") -> bytes:
    return frame(b"D" + struct.pack("!I", OID) + kind + old)


def truncate(*oids: int) -> bytes:
    return frame(b"T" + struct.pack("!ib", len(oids), 0) + struct.pack(f"!{len(oids)}I", *oids))


def message(
    content: bytes, *, transactional: bool, lsn: int = 904, prefix: bytes = b"app"
) -> bytes:
    head = struct.pack("!bQ", int(transactional), lsn) + prefix + b"\0"
    return frame(b"M" + head + struct.pack("!i", len(content)) + content)


def attributes(*, a_not_null: bool = False) -> tuple[Attribute, ...]:
    return (
        Attribute("id", INT4, -1, True, "integer", type_name="int4"),
        Attribute("a", TEXT, -1, a_not_null, "text", type_name="text"),
        Attribute("b", TEXT, -1, False, "text", type_name="text"),
    )


def decoder(
    *,
    a_not_null: bool = False,
    primary_key: tuple[str, ...] = ("id",),
    takes_messages: Callable[[str], bool] = lambda _: True,
    rules: ColumnRules | None = None,
) -> Decoder:
    shapes = Shapes(rules or ColumnRules())
    joined: list[str] = []

    def describe(found: Relation) -> RowDecoder | None:
        if found.id.name == "other" and found.id.name not in joined:
            return None
        return shapes.rows(found, Hints(attributes(a_not_null=a_not_null), primary_key))

    def joins(content: bytes) -> TableId:
        joined.append(content.decode())
        return TableId("public", content.decode())

    return Decoder(describe, takes_messages=takes_messages, joins=joins)


def changes(items: Sequence[Item]) -> list[Change]:
    return [item for item in items if isinstance(item, Change)]


def avro(id_: int, a: str | None, b: str | None) -> bytes:
    def text(value: str | None) -> bytes:
        return b"\0" if value is None else b"\x02" + bytes((2 * len(value),)) + value.encode()

    return bytes((2 * id_,)) + text(a) + text(b)


def key(id_: int) -> bytes:
    return bytes((2 * id_,))


def test_a_transaction_comes_as_begin_changes_commit_with_its_position_from_the_start() -> None:
    items = decoder().decode([begin(), relation(), insert(1, "x", None), commit()])
    assert items[0] == Begin(900, 7, 5 + 946_684_800_000_000)
    (change,) = changes(items)
    assert (change.op, change.lsn, change.total_order) == ("c", 500, 1)
    assert (change.key, change.before, change.after) == (key(1), None, avro(1, "x", None))
    assert items[-1] == Commit(900, 948)


def test_numbers_count_what_the_slot_delivers_whatever_is_selected() -> None:
    items = decoder().decode(
        [
            begin(),
            relation(),
            relation(name="other", oid=OID + 1),
            insert(1, "x", None),  # 1
            insert(1, "x", None, oid=OID + 1),  # 2, not selected
            update(row(1, "y", None)),  # 3, 4
            update(row(1, "y", None), oid=OID + 1),  # 5, 6, not selected
            message(b"m", transactional=True),  # 7
            truncate(OID + 1, OID),  # 8 (not selected), 9
            delete(row(1, None, None)),  # 10
            commit(),
        ]
    )
    numbered = [item for item in items if isinstance(item, Change | Truncate | Message)]
    assert [item.total_order for item in numbered] == [1, 3, 7, 9, 10]


def test_numbers_begin_anew_with_each_transaction_and_run_on_over_reads() -> None:
    decode = decoder().decode
    first = decode([begin(), relation(), insert(1, "x", None)])
    second = decode([insert(2, "x", None), commit(), begin(), insert(3, "x", None), commit()])
    assert [change.total_order for change in changes([*first, *second])] == [1, 2, 1]


def test_a_changed_key_is_a_delete_and_a_create_that_name_each_other() -> None:
    old, new = changes(
        decoder().decode(
            [begin(), relation(), update(row(2, "x", UNCHANGED), row(1, None, None), b"K")]
        )
    )
    assert (old.op, old.total_order, old.key, old.other_key, old.after) == (
        "d",
        1,
        key(1),
        key(2),
        None,
    )
    assert (new.op, new.total_order, new.key, new.other_key, new.before) == (
        "c",
        2,
        key(2),
        key(1),
        None,
    )
    assert new.unchanged == ("b",)


def test_an_old_image_with_the_same_key_is_one_update() -> None:
    (change,) = changes(
        decoder().decode([begin(), relation(), update(row(1, "y", "z"), row(1, None, None), b"K")])
    )
    assert (change.op, change.key, change.before) == ("u", key(1), avro(1, None, None))


def test_an_unchanged_column_is_named_and_never_null() -> None:
    (change,) = changes(decoder().decode([begin(), relation(), update(row(1, "y", UNCHANGED))]))
    assert change.unchanged == ("b",)
    assert change.after is not None
    assert b"__debezium_unavailable_value" in change.after


def test_identity_full_fills_unchanged_columns_from_the_old_image() -> None:
    (change,) = changes(
        decoder().decode(
            [begin(), relation("f"), update(row(1, "y", UNCHANGED), row(1, "x", "big"), b"O")]
        )
    )
    assert (change.op, change.unchanged) == ("u", ())
    assert (change.before, change.after) == (avro(1, "x", "big"), avro(1, "y", "big"))


def test_identity_full_with_a_changed_key_gives_a_whole_before() -> None:
    old, new = changes(
        decoder().decode(
            [begin(), relation("f"), update(row(2, "y", UNCHANGED), row(1, "x", "big"), b"O")]
        )
    )
    assert (old.key, old.before) == (key(1), avro(1, "x", "big"))
    assert (new.key, new.after, new.unchanged) == (key(2), avro(2, "y", "big"), ())


def test_an_identity_index_without_the_primary_key_gives_the_message_key() -> None:
    made = decoder(primary_key=("b",))
    (change,) = changes(made.decode([begin(), relation("i"), delete(row(4, None, None))]))
    assert (change.op, change.key, change.table.key) == ("d", key(4), ("id",))


def test_identity_full_without_a_primary_key_gives_no_message_key() -> None:
    (change,) = changes(
        decoder(primary_key=()).decode([begin(), relation("f"), insert(4, None, None)])
    )
    assert (change.key, change.table.key) == (None, ())


def test_a_null_in_a_column_called_not_null_widens_the_schema() -> None:
    first, second, third = changes(
        decoder(a_not_null=True).decode(
            [begin(), relation(), insert(1, "x", None), insert(2, None, None), insert(3, "y", None)]
        )
    )
    assert not first.table.columns[1].nullable
    assert second.table.columns[1].nullable
    assert second.after == avro(2, None, None)
    assert third.table is second.table


def test_a_widened_column_stays_so_when_the_relation_comes_again() -> None:
    made = decoder(a_not_null=True)
    found = changes(
        made.decode([begin(), relation(), insert(2, None, None), relation(), insert(3, "x", None)])
    )
    assert found[0].table is found[1].table


def test_a_widened_column_stays_so_when_the_relation_changes() -> None:
    made = decoder(a_not_null=True)
    found = changes(
        made.decode(
            [begin(), relation(), insert(2, None, None), relation("f"), insert(3, "x", None)]
        )
    )
    assert found[1].table.identity == "full"
    assert found[1].table.columns[1].nullable


def test_a_table_made_again_in_the_same_shape_is_the_same_object() -> None:
    found = changes(
        decoder().decode(
            [
                begin(),
                relation(),
                insert(1, "x", None),
                relation(oid=OID + 1),
                insert(2, "x", None, oid=OID + 1),
            ]
        )
    )
    assert found[0].table is found[1].table


def test_the_table_is_the_same_object_until_its_shape_changes() -> None:
    made = decoder()
    found = changes(
        made.decode(
            [
                begin(),
                relation(),
                insert(1, "x", None),
                relation(),
                insert(2, "x", None),
                relation("f"),
                insert(3, "x", None),
            ]
        )
    )
    assert found[0].table is found[1].table
    assert found[2].table is not found[1].table
    assert found[2].table.identity == "full"


def test_a_keepalive_is_progress_only_outside_a_transaction() -> None:
    items = decoder().decode([keepalive(800), begin(), keepalive(850), commit(), keepalive(948)])
    assert [item for item in items if isinstance(item, Progress)] == [Progress(800), Progress(948)]


def test_a_message_outside_transactions_has_no_number() -> None:
    (item,) = decoder().decode([message(b"hello", transactional=False)])
    assert item == Message("app", b"hello", 904, transactional=False)


def test_messages_can_be_left_out_and_keep_their_numbers() -> None:
    items = decoder(takes_messages=lambda prefix: prefix != "app").decode(
        [begin(), relation(), message(b"hello", transactional=True), insert(1, "x", None)]
    )
    assert [type(item) for item in items] == [Begin, Change]
    assert changes(items)[0].total_order == 2


def test_origins_and_types_carry_nothing() -> None:
    items = decoder().decode([frame(b"O" + bytes(9)), frame(b"Y" + bytes(8))])
    assert items == []


def test_an_unknown_message_stops_the_stream() -> None:
    with pytest.raises(Failed, match="unknown kind 'Z'"):
        decoder().decode([frame(b"Z")])


@pytest.mark.parametrize("length", range(1, 14))
def test_a_torn_row_is_never_taken_for_a_whole_one(length: int) -> None:
    torn = insert(1, "x", None)[:-length]
    with pytest.raises((Failed, IndexError)):
        decoder().decode([begin(), relation(), torn])


def test_each_identity_is_known() -> None:
    identities: dict[str, Identity] = {"d": "default", "f": "full", "i": "index", "n": "nothing"}
    for code, identity in identities.items():
        (change,) = changes(decoder().decode([begin(), relation(code), insert(1, None, None)]))
        assert change.table.identity == identity
        assert change.table.id == TableId("public", "t")


def test_shapes_of_two_tables_are_two_tables() -> None:
    shapes = Shapes(ColumnRules())
    made: list[Table] = []
    decode: Callable[[Sequence[bytes]], Sequence[Item]] = Decoder(
        lambda found: shapes.rows(found, Hints(attributes(), ("id",)))
    ).decode
    decode([relation()])
    for item in decode(
        [relation(name="u", oid=5), insert(1, None, None), insert(1, None, None, oid=5)]
    ):
        assert isinstance(item, Change)
        made.append(item.table)
    assert [table.id.name for table in made] == ["t", "u"]


def test_a_table_with_columns_left_out_or_starred_delivers_every_change() -> None:
    rules = ColumnRules(
        excluded=(re.compile(r"public\.t\.a"),),
        masks=(MaskRule("stars", Stars(2), (re.compile(r"public\.t\.b"),)),),
    )
    starred = b"\x02\x04**"
    items = decoder(rules=rules).decode(
        [
            begin(),
            relation("f"),
            insert(1, "x", "y"),
            insert(2, None, None),
            update(row(1, "x", "z"), row(1, "x", "y"), b"O"),
            delete(row(1, UNCHANGED, "z"), b"O"),
            commit(),
        ]
    )
    assert [(c.op, c.total_order, c.after) for c in changes(items)] == [
        ("c", 1, key(1) + starred),
        ("c", 2, key(2) + starred),
        ("u", 3, key(1) + starred),
        ("d", 5, None),
    ]


def test_behind_the_signal_that_adds_a_table_its_rows_are_read_in_the_same_call() -> None:
    signal = message(b"other", transactional=False, prefix=SIGNAL_PREFIX.encode())
    items = decoder().decode(
        [
            begin(),
            relation(name="other"),
            insert(1, "before", None),
            commit(),
            signal,
            begin(1900),
            insert(2, "behind", None),
            commit(1900, 1948),
        ]
    )
    assert [(c.table.id.name, c.key) for c in changes(items)] == [("other", key(2))]
