"""Rows both ways: held to what fastavro reads and writes, and to the bytes that went in."""

from __future__ import annotations

import datetime as dt
import io
import json
import pickle
import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.avro_binary import long_bytes
from cdc.errors import Failed, Rejected
from connectors.postgres.calendar import civil, days_of
from connectors.postgres.decimals import numeric_value
from connectors.postgres.exact_rows import UnexpectedNull
from connectors.postgres.moments import FOREVER, NEVER
from connectors.postgres.transcoder import RowTranscoder
from connectors.postgres.tuples import TupleTranscoder
from connectors.postgres.types import Attribute, column_of

pytestmark = pytest.mark.usefixtures("both_forms")

Value = bytes | None


def attribute(name: str, formatted: str, *, not_null: bool = False) -> Attribute:
    return Attribute(name, 20, -1, not_null, formatted)


ORDERS: Final = (
    attribute("id", "bigint", not_null=True),
    attribute("customer_id", "integer", not_null=True),
    attribute("status", "text"),
    attribute("amount", "numeric(12,2)"),
    attribute("note", "character varying(120)"),
    attribute("created_at", "timestamp with time zone"),
    attribute("updated_at", "timestamp without time zone"),
    attribute("active", "boolean"),
    attribute("score", "double precision"),
    attribute("payload", "jsonb"),
)


def streamed(values: list[Value]) -> bytes:
    parts = [b"n" if v is None else b"b" + struct.pack(">i", len(v)) + v for v in values]
    return struct.pack(">h", len(values)) + b"".join(parts)


def copied(values: list[Value]) -> bytes:
    parts = [struct.pack(">i", -1) if v is None else struct.pack(">i", len(v)) + v for v in values]
    return struct.pack(">h", len(values)) + b"".join(parts)


def schema_of(columns: tuple[Attribute, ...]) -> Any:
    return fastavro.parse_schema(
        {
            "type": "record",
            "name": "Value",
            "fields": [
                {
                    "name": column.name,
                    "type": ["null", column.avro] if column.nullable else column.avro,
                }
                for column in map(column_of, columns)
            ],
        }
    )


def decoded(columns: tuple[Attribute, ...], row: bytes) -> dict[str, Any]:
    stream = io.BytesIO(row)
    value = fastavro.schemaless_reader(stream, schema_of(columns), None)
    assert stream.read() == b""
    assert isinstance(value, dict)
    return value


def encoded(columns: tuple[Attribute, ...], value: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema_of(columns), value)
    return out.getvalue()


_EPOCH: Final = dt.datetime(2000, 1, 1)  # noqa: DTZ001 - PostgreSQL's, without a zone
_MOMENTS: Final = st.datetimes()
_AMOUNTS: Final = st.decimals(Decimal("-9999999999.99"), Decimal("9999999999.99"), places=2).filter(
    # fastavro gives these one byte more than Java does: both read them.
    lambda amount: int(-amount * 100) not in {1 << bits for bits in (7, 15, 23, 31, 39)}
)

_ORDER: Final = st.fixed_dictionaries(
    {
        "id": st.integers(-(1 << 63), (1 << 63) - 1),
        "customer_id": st.integers(-(1 << 31), (1 << 31) - 1),
        "status": st.none() | st.text(),
        "amount": st.none() | _AMOUNTS,
        "note": st.none() | st.text(max_size=120),
        "created_at": st.none() | _MOMENTS,
        "updated_at": st.none() | _MOMENTS,
        "active": st.none() | st.booleans(),
        "score": st.none() | st.floats(allow_nan=False),
        "payload": st.none() | st.text().map(json.dumps),
    }
)


def micros(moment: dt.datetime) -> int:
    return (moment - _EPOCH) // dt.timedelta(microseconds=1)


def binary_and_avro(order: dict[str, Any]) -> tuple[list[Value], dict[str, Any]]:
    """The plain way: PostgreSQL's binary values, and the values that fastavro is to write."""
    order = {column.name: order[column.name] for column in ORDERS}
    binary: dict[str, Callable[[Any], bytes]] = {
        "id": lambda v: struct.pack(">q", v),
        "customer_id": lambda v: struct.pack(">i", v),
        "status": str.encode,
        "amount": lambda v: numeric_value(str(v).encode()),
        "note": str.encode,
        "created_at": lambda v: struct.pack(">q", micros(v)),
        "updated_at": lambda v: struct.pack(">q", micros(v)),
        "active": lambda v: bytes((v,)),
        "score": lambda v: struct.pack(">d", v),
        "payload": lambda v: b"\x01" + v.encode(),
    }
    avro: dict[str, Callable[[Any], object]] = {
        "created_at": lambda v: v.isoformat(timespec="microseconds") + "Z",
        "updated_at": lambda v: micros(v) + 946_684_800_000_000,
    }
    return (
        [None if v is None else binary[name](v) for name, v in order.items()],
        {n: v if v is None or n not in avro else avro[n](v) for n, v in order.items()},
    )


@settings(max_examples=200, deadline=None)
@given(_ORDER)
def test_a_row_has_the_bytes_that_fastavro_writes_and_goes_back_to_its_own(
    order: dict[str, Any],
) -> None:
    values, avro = binary_and_avro(order)
    transcoder = RowTranscoder(ORDERS, ("id",))
    back = TupleTranscoder([column_of(column) for column in ORDERS], ("id",))
    frame = b"head" + streamed(values) + b"tail"
    row, key, unchanged, end = transcoder.stream_row(frame, 4)
    assert row == encoded(ORDERS, avro)
    assert (key, unchanged, end) == (long_bytes(order["id"]), (), len(frame) - 4)
    assert transcoder.copy_row(copied(values), 0) == (row, key, len(copied(values)))
    assert transcoder.old_row(frame, 4) == (row, key, (), end)
    assert back.tuple_of(row) == copied(values)
    assert back.columns_of(row) == values
    assert back.key_tuple(key) == copied(values[:1])
    assert back.key_text(key) == (str(order["id"]),)


@pytest.mark.parametrize("value", [FOREVER, NEVER])
def test_infinity_is_a_word_or_the_drivers_number(value: int) -> None:
    columns = (
        attribute("z", "timestamp with time zone"),
        attribute("t", "timestamp without time zone"),
        attribute("m", "timestamp(3) without time zone"),
    )
    packed: list[Value] = [struct.pack(">q", value)] * 3
    row, _, _ = RowTranscoder(columns).copy_row(copied(packed), 0)
    expected = 9_223_372_036_825_200_000 if value > 0 else -9_223_372_036_832_400_000
    assert decoded(columns, row) == {
        "z": "infinity" if value > 0 else "-infinity",
        "t": expected,
        "m": expected // 1000,
    }
    assert TupleTranscoder([column_of(c) for c in columns]).columns_of(row) == packed


@settings(deadline=None)
@given(st.integers(-211_813_488_000_000_000, 9_223_371_331_199_999_999))
def test_every_timestamp_of_postgresql_comes_back(value: int) -> None:
    columns = (
        attribute("z", "timestamp with time zone"),
        attribute("t", "timestamp without time zone"),
    )
    packed: list[Value] = [struct.pack(">q", value)] * 2
    row, _, _ = RowTranscoder(columns).copy_row(copied(packed), 0)
    assert TupleTranscoder([column_of(c) for c in columns]).columns_of(row) == packed


@settings(deadline=None)
@given(st.integers(-2_451_507, 2_145_031_948))
def test_the_calendar_goes_both_ways(day: int) -> None:
    year, month, of_month = civil(day)
    assert days_of(year, month, of_month) == day
    if 1 <= year <= 9999:
        assert (dt.date(year, month, of_month) - dt.date(2000, 1, 1)).days == day


def test_a_value_that_is_no_number_is_empty_bytes_and_never_zero() -> None:
    columns = (attribute("c", "numeric(12,2)"), attribute("v", "numeric"))
    transcoder = RowTranscoder(columns)
    back = TupleTranscoder([column_of(column) for column in columns])
    rows = []
    for special in (b"NaN", b"Infinity", b"-Infinity"):
        fixed = numeric_value(b"NaN")
        packed: list[Value] = [fixed, numeric_value(special)]
        row, _, _ = transcoder.copy_row(copied(packed), 0)
        rows.append(row)
        assert back.columns_of(row) == packed
    assert rows == [b"\x02\x00\x02\x00\x00", b"\x02\x00\x02\x02\x00", b"\x02\x00\x02\x01\x00"]
    with pytest.raises(Failed, match="Infinity"):
        transcoder.copy_row(copied([numeric_value(b"Infinity"), None]), 0)


def test_text_and_binary_give_the_same_row() -> None:
    values, _ = binary_and_avro(
        {
            "id": 7, "customer_id": -1, "status": "a\\b", "amount": Decimal("-12.30"), "note": "",
            "created_at": dt.datetime(2026, 11, 23, 12, 0, 0, 5),  # noqa: DTZ001
            "updated_at": dt.datetime(44, 3, 15),  # noqa: DTZ001
            "active": True, "score": -0.1, "payload": "[1]",
        }
    )  # fmt: skip
    texts = [
        b"7", b"-1", b"a\\b", b"-12.30", b"", b"2026-11-23 17:45:00.000005+05:45",
        b"0044-03-15 00:00:00", b"t", b"-0.1", b"[1]",
    ]  # fmt: skip
    frame = struct.pack(">h", 10) + b"".join(
        b"t" + struct.pack(">i", len(text)) + text for text in texts
    )
    transcoder = RowTranscoder(ORDERS, ("id",))
    assert transcoder.stream_row(frame, 0)[:3] == transcoder.stream_row(streamed(values), 0)[:3]


def test_an_unchanged_value_is_named_and_its_placeholder_written() -> None:
    columns = (
        attribute("id", "integer", not_null=True),
        attribute("a", "text"),
        attribute("b", "text", not_null=True),
        attribute("c", "bytea"),
        attribute("d", "numeric"),
        Attribute(
            "e", 1009, -1, not_null=False, formatted_type="text[]", inner=attribute("", "text")
        ),
        Attribute(
            "f",
            1007,
            -1,
            not_null=False,
            formatted_type="integer[]",
            inner=attribute("", "integer"),
        ),
    )
    frame = struct.pack(">h", 7) + b"b" + struct.pack(">ii", 4, 1) + b"uuuuuu"
    row, key, unchanged, end = RowTranscoder(columns, ("id",)).stream_row(frame, 0)
    held = "__debezium_unavailable_value"
    assert decoded(columns, row) == {
        "id": 1, "a": held, "b": held, "c": held.encode(), "d": None, "e": [held], "f": list(held.encode()),
    }  # fmt: skip
    assert (key, unchanged, end) == (b"\x02", ("a", "b", "c", "d", "e", "f"), len(frame))


def test_an_old_image_of_the_key_alone_has_fillers_where_null_may_not_stand() -> None:
    columns = (
        attribute("id", "integer", not_null=True),
        attribute("n", "numeric(20,6)", not_null=True),
        attribute("t", "text", not_null=True),
        attribute("f", "boolean", not_null=True),
        attribute("z", "timestamp with time zone", not_null=True),
        attribute("o", "text"),
    )
    frame = struct.pack(">h", 6) + b"b" + struct.pack(">ii", 4, 5) + b"nnnnn"
    row, key, unchanged, end = RowTranscoder(columns, ("id",)).old_row(frame, 0)
    assert decoded(columns, row) == {
        "id": 5, "n": Decimal("0.000000"), "t": "", "f": False, "z": "1970-01-01T00:00:00Z", "o": None,
    }  # fmt: skip
    assert (key, unchanged, end) == (b"\x0a", (), len(frame))


@pytest.mark.parametrize("road", ["stream_row", "copy_row", "old_row"])
def test_a_null_where_none_may_be_is_said_and_not_filled(road: str) -> None:
    columns = (attribute("id", "integer", not_null=True), attribute("b", "text", not_null=True))
    values: list[Value] = [struct.pack(">i", 1), None] if road != "old_row" else [None, b"x"]
    frame = copied(values) if road == "copy_row" else streamed(values)
    with pytest.raises(UnexpectedNull) as caught:
        getattr(RowTranscoder(columns, ("id",)), road)(frame, 0)
    assert caught.value.column == ("id" if road == "old_row" else "b")
    assert pickle.loads(pickle.dumps(caught.value)).column == caught.value.column


def test_a_key_has_its_columns_in_its_own_order_without_unions() -> None:
    columns = (
        attribute("a", "integer"),
        attribute("b", "text", not_null=True),
        attribute("c", "date"),
    )
    values: list[Value] = [struct.pack(">i", 3), b"x", struct.pack(">i", 1)]
    _, key, _ = RowTranscoder(columns, ("c", "b", "a")).copy_row(copied(values), 0)
    assert key == long_bytes(10_958) + b"\x02x" + long_bytes(3)
    back = TupleTranscoder([column_of(column) for column in columns], ("c", "b", "a"))
    assert back.key_columns_of(key) == values[::-1]
    assert back.key_text(key) == ("2000-01-02", "x", "3")
    assert RowTranscoder(columns).copy_row(copied(values), 0)[1] == b""


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_torn_row_is_refused_and_never_read_as_another(data: st.DataObject) -> None:
    order = data.draw(_ORDER)
    values, _ = binary_and_avro(order)
    whole = streamed(values)
    transcoder = RowTranscoder(ORDERS, ("id",))
    row, *_ = transcoder.stream_row(whole, 0)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(Failed):
        transcoder.stream_row(whole[:cut], 0)
    back = TupleTranscoder([column_of(column) for column in ORDERS])
    with pytest.raises(Rejected):
        back.tuple_of(row[: data.draw(st.integers(0, len(row) - 1))])
    with pytest.raises(Rejected):
        back.tuple_of(row + b"\x00")


def test_a_tuple_of_another_shape_is_refused() -> None:
    transcoder = RowTranscoder(ORDERS[:2])
    with pytest.raises(Failed, match="other than 2 columns"):
        transcoder.copy_row(copied([None]), 0)
    with pytest.raises(Failed, match="4 bytes where the type has 8"):
        transcoder.copy_row(copied([b"1234", b"1234"]), 0)
    with pytest.raises(Failed, match="not among"):
        RowTranscoder(ORDERS[:2], ("nothing",))
