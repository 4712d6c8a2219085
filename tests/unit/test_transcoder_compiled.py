"""The accelerator gives what Python gives, byte for byte and error for error, on whatever bytes come."""

from __future__ import annotations

import struct
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.errors import Failed
from cdc.event import Item
from cdc.table import TableId
from connectors.postgres import pgoutput
from connectors.postgres.decimals import numeric_value
from connectors.postgres.decoding import Hints, RowDecoder
from connectors.postgres.exact_rows import UnexpectedNull
from connectors.postgres.pgoutput import Decoder
from connectors.postgres.relation import Relation, RelationColumn
from connectors.postgres.transcoder import RowTranscoder, native
from connectors.postgres.types import Attribute

pytestmark = pytest.mark.skipif(native is None, reason="there is no compiler here")

_INT: Final = {2: st.integers(-(1 << 15), (1 << 15) - 1), 4: st.integers(-(1 << 31), (1 << 31) - 1)}
_LONG: Final = st.integers(-(1 << 63), (1 << 63) - 1)
_MOMENT: Final = st.one_of(
    _LONG,
    st.integers(-(1 << 52), 1 << 52).map(lambda v: v * 1000),
    st.sampled_from(
        [(1 << 63) - 1, -(1 << 63), 0, -1, 252455615999999999, -63145008000000000, 8 * 10**18]
    ),
).filter(lambda v: -(1 << 63) <= v < 1 << 63)
_NUMERIC: Final = st.one_of(
    st.decimals(-(10**40), 10**40, places=2).map(lambda d: f"{d:f}"),
    st.decimals(-(10**9), 10**9, places=4).map(lambda d: f"{d:f}"),
    st.integers(-(10**36), 10**36).map(lambda i: f"{i // 100}.{i % 100:02d}"),
    st.sampled_from(["NaN", "0", "0.00", "-0.01", "Infinity", "10000.00", "100000000.00"]),
).map(lambda text: numeric_value(text.encode()))
_TEXT: Final = st.text(max_size=300).map(str.encode)

_TYPES: Final[dict[str, st.SearchStrategy[bytes]]] = {
    "smallint": _INT[2].map(struct.Struct(">h").pack),
    "integer": _INT[4].map(struct.Struct(">i").pack),
    "bigint": _LONG.map(struct.Struct(">q").pack),
    "oid": st.integers(0, (1 << 32) - 1).map(struct.Struct(">I").pack),
    "real": st.binary(min_size=4, max_size=4),
    "double precision": st.binary(min_size=8, max_size=8),
    "boolean": st.sampled_from([b"\0", b"\1", b"\2"]),
    "text": _TEXT,
    "character varying(12)": _TEXT,
    "character(3)": _TEXT,
    "bytea": st.binary(max_size=3000),
    "json": _TEXT,
    "jsonb": st.one_of(_TEXT.map(lambda t: b"\1" + t), _TEXT),
    "xml": _TEXT,
    "uuid": st.binary(min_size=16, max_size=16),
    "date": st.one_of(_INT[4], st.sampled_from([(1 << 31) - 1, -(1 << 31)])).map(
        struct.Struct(">i").pack
    ),
    **{
        spelled: _MOMENT.map(struct.Struct(">q").pack)
        for spelled in (
            "timestamp without time zone",
            "timestamp(3) without time zone",
            "timestamp with time zone",
            "timestamp(0) with time zone",
            "timestamp(2) with time zone",
        )
    },
    "time without time zone": st.integers(0, 86_400_000_000).map(struct.Struct(">q").pack),
    "time(3) without time zone": st.integers(-5, 86_400_000).map(
        lambda v: struct.pack(">q", v * 1000)
    ),
    "numeric(12,2)": _NUMERIC,
    "numeric(40,4)": _NUMERIC,
    "numeric(12,-2)": _NUMERIC,
    "numeric(40,30)": _NUMERIC,
    "numeric": _NUMERIC,
    "money": _LONG.map(struct.Struct(">q").pack),
    "interval": st.binary(min_size=16, max_size=16),
    "inet": st.binary(max_size=8),
    "integer[]": st.binary(max_size=40),
}
_NAMES: Final = sorted(_TYPES)


@st.composite
def _cases(draw: st.DrawFn) -> tuple[tuple[Attribute, ...], tuple[str, ...], list[Any]]:
    """A table, its key, and a field for each column: what PostgreSQL sends, mostly."""
    spelled = draw(st.lists(st.sampled_from(_NAMES), min_size=1, max_size=8))
    columns = tuple(
        Attribute(f"c{place}", 20, -1, draw(st.booleans()), name)
        for place, name in enumerate(spelled)
    )
    key = draw(st.lists(st.sampled_from([c.name for c in columns]), unique=True, max_size=2))
    fields: list[Any] = []
    for name in spelled:
        kind = draw(st.sampled_from("bbbbbbbbnut?"))
        value = draw(st.one_of(_TYPES[name], _TYPES[name], _TYPES[name], st.binary(max_size=20)))
        fields.append((kind.encode(), value))
    return columns, tuple(key), fields


def _streamed(fields: list[Any]) -> bytes:
    parts = [
        kind + struct.pack(">i", len(value)) + value if kind in b"bt?" else kind
        for kind, value in fields
    ]
    return struct.pack(">h", len(fields)) + b"".join(parts)


def _copied(fields: list[Any]) -> bytes:
    parts = [
        struct.pack(">i", -1) if kind == b"n" else struct.pack(">i", len(value)) + value
        for kind, value in fields
    ]
    return struct.pack(">h", len(fields)) + b"".join(parts)


def _outcome(function: Any, *arguments: Any) -> object:
    try:
        return function(*arguments)
    except UnexpectedNull as null:
        return ("widen", null.column)
    except Failed as failure:
        return ("failed", str(failure))


def _both(columns: tuple[Attribute, ...], key: tuple[str, ...]) -> tuple[Any, Any]:
    return RowTranscoder(columns, key), RowTranscoder(columns, key, compiled=False)


@settings(max_examples=120, deadline=None)
@given(_cases())
def test_rows_have_the_same_bytes_or_the_same_error(case: Any) -> None:
    columns, key, fields = case
    ours, reference = _both(columns, key)
    assert ours.program is not None
    assert reference.program is None
    frame = b"head" + _streamed(fields) + b"tail"
    assert _outcome(ours.stream_row, frame, 4) == _outcome(reference.stream_row, frame, 4)
    assert _outcome(ours.old_row, frame, 4) == _outcome(reference.old_row, frame, 4)
    copied = _copied(fields)
    assert _outcome(ours.copy_row, copied, 0) == _outcome(reference.copy_row, copied, 0)
    rows = [copied, copied]
    assert _outcome(ours.copied, rows) == _outcome(reference.copied, rows)


@settings(max_examples=120, deadline=None)
@given(_cases(), st.data())
def test_torn_and_bent_frames_are_what_python_makes_of_them(case: Any, data: st.DataObject) -> None:
    columns, key, fields = case
    ours, reference = _both(columns, key)
    for whole, roads in (
        (_streamed(fields), ("stream_row", "old_row")),
        (_copied(fields), ("copy_row",)),
    ):
        cut = data.draw(st.integers(0, len(whole)))
        place = data.draw(st.integers(0, len(whole) - 1))
        bent = bytearray(whole)
        bent[place] = data.draw(st.integers(0, 255))
        for frame in (whole[:cut], bytes(bent)):
            for road in roads:
                assert _outcome(getattr(ours, road), frame, 0) == _outcome(
                    getattr(reference, road), frame, 0
                )


def test_many_columns_and_wide_rows_leave_no_bound_behind() -> None:
    columns = tuple(Attribute(f"c{n}", 25, -1, False, "text") for n in range(300))
    ours, reference = _both(columns, ("c7", "c299"))
    fields = [(b"b", bytes([65 + n % 26]) * (n * 37 % 5000)) for n in range(300)]
    fields[5] = fields[200] = (b"u", b"")
    assert ours.stream_row(_streamed(fields), 0) == reference.stream_row(_streamed(fields), 0)


@pytest.mark.parametrize("at", [-1, 1, 1 << 40])
def test_an_offset_outside_the_frame_is_a_torn_row(at: int) -> None:
    columns = (Attribute("id", 20, -1, True, "bigint"),)
    ours, reference = _both(columns, ("id",))
    frame = _streamed([(b"b", bytes(8))])
    assert _outcome(ours.stream_row, frame, at) == _outcome(reference.stream_row, frame, at)


# --- messages of the log ---------------------------------------------------------------------------------------

_OID: Final = 77
_COLUMNS: Final = (
    Attribute("id", 20, -1, True, "bigint"),
    Attribute("name", 25, -1, True, "text"),
    Attribute("note", 25, -1, False, "text"),
)


def _rows_of(identity: Any) -> RowDecoder:
    relation = Relation(
        _OID,
        TableId("public", "t"),
        identity,
        tuple(RelationColumn(c.name, c.type_oid, -1, c.name == "id") for c in _COLUMNS),
    )
    return RowDecoder(relation, Hints(_COLUMNS, ("id",)), set())


def _frame(lsn: int, message: bytes) -> bytes:
    return b"w" + struct.pack("!QQq", lsn, lsn, 0) + message


_ROW: Final = st.builds(
    lambda id_, name, note: _streamed([(b"b", struct.pack(">q", id_)), name, note]),
    st.integers(0, 3),
    st.sampled_from([(b"b", b"x"), (b"n", b""), (b"u", b""), (b"t", b"y")]),
    st.sampled_from([(b"b", b"xyz"), (b"n", b""), (b"u", b"")]),
)
_MESSAGES: Final = st.lists(
    st.one_of(
        st.builds(lambda row: b"I" + struct.pack("!I", _OID) + b"N" + row, _ROW),
        st.builds(lambda row: b"U" + struct.pack("!I", _OID) + b"N" + row, _ROW),
        st.builds(
            lambda kind, old, new: b"U" + struct.pack("!I", _OID) + kind + old + b"N" + new,
            st.sampled_from([b"K", b"O"]),
            _ROW,
            _ROW,
        ),
        st.builds(
            lambda kind, row: b"D" + struct.pack("!I", _OID) + kind + row,
            st.sampled_from([b"K", b"O"]),
            _ROW,
        ),
        st.just(b"I" + struct.pack("!I", 5) + b"N" + _streamed([])),
        st.just(b"D" + struct.pack("!I", 5) + b"K" + _streamed([])),
        st.just(b"C" + struct.pack("!bQQq", 0, 900, 948, 5)),
        st.just(b"B" + struct.pack("!Qqi", 900, 5, 7)),
    ),
    max_size=12,
)


def _decoded(frames: list[bytes], identity: Any) -> object:
    rows = _rows_of(identity)
    decoder = Decoder(lambda relation: rows if relation.oid == _OID else None)
    described = [
        _frame(1, b"R" + struct.pack("!I", oid) + b"public\0t\0" + b"d" + struct.pack("!h", 0))
        for oid in (_OID, 5)
    ]
    items: list[Item] = []
    items += decoder.decode(described)
    first = rows.table
    try:
        items += decoder.decode(frames)
    except Failed as failure:
        return str(failure)
    tables = [first] if rows.table is first else [first, rows.table]
    return [_with_table_number(item, tables) for item in items]


def _with_table_number(item: Any, tables: list[Any]) -> object:
    """Tables are compared by identity, and each decoder makes its own."""
    table = getattr(item, "table", None)
    if table is None:
        return item
    assert type(item).__name__ == "Change"
    return (tables.index(table) if table in tables else "between", *item[1:])


@settings(max_examples=120, deadline=None)
@given(_MESSAGES, st.sampled_from(["default", "full"]))
def test_messages_become_the_same_items(messages: list[bytes], identity: str) -> None:
    frames = [_frame(100 + place, message) for place, message in enumerate(messages)]
    compiled = _decoded(frames, identity)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pgoutput, "native", None)
        assert _decoded(frames, identity) == compiled
