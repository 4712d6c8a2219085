"""The compiled way from Avro rows to COPY's tuples, held to the Python way: the same bytes, or the same refusal."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.avro_binary import bytes_bytes, long_bytes
from cdc.errors import Rejected
from cdc.table import Column
from connectors.postgres import tuples
from connectors.postgres.tuples import TupleTranscoder
from connectors.postgres.types_builtin import codec_of_name

pytestmark = pytest.mark.skipif(tuples.native is None, reason="there is no compiled form")

TYPES: Final = (
    "smallint",
    "integer",
    "bigint",
    "oid",
    "real",
    "double precision",
    "boolean",
    "text",
    "character varying(20)",
    "bytea",
    "uuid",
    "jsonb",
    "json",
    "numeric(12,2)",
    "numeric(38,10)",
    "numeric(5,0)",
    "numeric",
    "money",
    "date",
    "timestamp without time zone",
    "timestamp(3) without time zone",
    "timestamp with time zone",
    "time without time zone",
    "time(3) without time zone",
    "time with time zone",
    "interval",
    "bit(1)",
    "bit varying",
    "inet",
    "point",
    "integer[]",
    "int4range",
)

_TEXTS: Final = st.one_of(
    st.datetimes().map(lambda at: at.isoformat() + "Z"),
    st.datetimes().map(lambda at: at.isoformat(timespec="milliseconds") + "Z"),
    st.from_regex(
        r"\d{4}-[01]\d-[0-3]\d[T ][0-2]\d:[0-6]\d:[0-6]\d(\.\d{1,7})?(Z|\+01)?", fullmatch=True
    ),
    st.uuids().map(str),
    st.sampled_from(["infinity", "-infinity", "24:00:00", "P1Y2M", "10.0.0.1/8", "[1,5)", "{}"]),
    st.text(max_size=30),
).map(str.encode)
_CONTENTS: Final = st.one_of(_TEXTS, st.binary(max_size=20))
_EDGES: Final = [
    sign * (edge + off)
    for edge in (0, 1 << 15, 1 << 31, 1 << 32, 1 << 58, (1 << 63) - 2, 86_400_000, 86_400_000_000)
    for off in (-1, 0, 1)
    for sign in (1, -1)
]
_NUMBERS: Final = st.one_of(
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.integers(-100_000, 100_000),
    st.sampled_from(
        [*_EDGES, 9_223_372_036_825_200_000, -9_223_372_036_832_400_000, 9_223_372_036_825_200]
    ),
)
_FIELDS: Final = st.one_of(
    _NUMBERS.map(long_bytes),
    _CONTENTS.map(bytes_bytes),
    st.tuples(st.integers(-3, 20), _CONTENTS).map(
        lambda pair: long_bytes(pair[0]) + bytes_bytes(pair[1])
    ),
    st.floats(width=32).map(lambda number: struct.pack("<f", number)),
    st.floats().map(lambda number: struct.pack("<d", number)),
    st.binary(max_size=12),
)
_TAGS: Final = st.sampled_from([b"\x02", b"\x02", b"\x02", b"\x00", b"\x01", b"\x04", b""])


def column(spelled: str, *, nullable: bool) -> Column:
    codec = codec_of_name(spelled)
    assert codec is not None
    return Column("c", codec.avro, nullable, spelled)


def outcome(function: Callable[[bytes], object], row: bytes) -> object:
    try:
        return function(row)
    except Rejected as rejected:
        return rejected.what, rejected.remedy


@lru_cache(maxsize=256)
def both(columns: tuple[tuple[str, bool], ...]) -> tuple[TupleTranscoder, TupleTranscoder]:
    made = [column(spelled, nullable=nullable) for spelled, nullable in columns]
    return TupleTranscoder(made), TupleTranscoder(made, compiled=False)


def agree(columns: list[tuple[str, bool]], row: bytes) -> object:
    compiled, plain = both(tuple(columns))
    made = outcome(plain.tuple_of, row)
    assert outcome(compiled.tuple_of, row) == made
    assert outcome(compiled.columns_of, row) == outcome(plain.columns_of, row)
    if isinstance(made, bytes):
        assert compiled.headed(b"head", row) == plain.headed(b"head", row) == b"head" + made[2:]
        assert compiled.tuples([row, row]) == plain.tuples([row, row]) == made + made
    return made


@pytest.mark.parametrize("spelled", TYPES)
def test_any_bytes_give_the_same_field_or_the_same_refusal(spelled: str) -> None:
    @settings(max_examples=60, deadline=None)
    @given(_FIELDS, _TAGS)
    def check(field: bytes, tag: bytes) -> None:
        agree([(spelled, False)], field)
        agree([(spelled, True)], tag + field)

    check()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(TYPES), _FIELDS, _TAGS, st.booleans()), max_size=8))
def test_rows_of_any_columns_are_the_same(
    fields: list[tuple[str, bytes, bytes, bool]],
) -> None:
    columns = [(spelled, nullable) for spelled, _, _, nullable in fields]
    row = b"".join((tag if nullable else b"") + field for _, field, tag, nullable in fields)
    agree(columns, row)


@settings(max_examples=100, deadline=None)
@given(st.integers(-(10**12), 10**12), st.text(), st.data())
def test_a_torn_row_is_refused_and_never_read_past_its_end(
    amount: int, text: str, data: st.DataObject
) -> None:
    columns = [("numeric(12,2)", True), ("text", True), ("bigint", True)]
    size = (amount.bit_length() >> 3) + 1
    whole = (
        b"\x02"
        + bytes_bytes(amount.to_bytes(size, "big", signed=True))
        + b"\x02"
        + bytes_bytes(text.encode())
        + b"\x02"
        + long_bytes(amount)
    )
    assert isinstance(agree(columns, whole), bytes)
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert isinstance(agree(columns, whole[:cut]), tuple)
    agree(columns, whole[:cut] + bytes([data.draw(st.integers(0, 255))]) + whole[cut + 1 :])


def test_what_is_no_bytes_is_a_mistake_of_the_caller() -> None:
    made = TupleTranscoder([column("bigint", nullable=False)])
    with pytest.raises(TypeError):
        made.tuples([None])  # type: ignore[list-item]
