"""The type table: Debezium's Avro forms, the way back from them, and what is told beside them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

import pytest

from cdc.table import Column
from connectors.postgres.forms import BASE_TYPE, codec_of_column, source_type_of, staged_type_of
from connectors.postgres.intervals import interval_text, interval_value
from connectors.postgres.transcoder import RowTranscoder
from connectors.postgres.tuples import TupleTranscoder
from connectors.postgres.types import Attribute, codec_of, column_of
from connectors.postgres.types_scalar import double_text, real_text


def attribute(formatted: str, **more: Any) -> Attribute:
    if formatted.endswith("[]") and "inner" not in more:
        more["inner"] = attribute(formatted.removesuffix("[]"))
    return Attribute("v", more.pop("oid", 20), -1, not_null=False, formatted_type=formatted, **more)


def logical(avro: str, name: str, parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
    plain = {"type": avro, "connect.version": 1, "connect.name": name}
    return plain if parameters is None else {**plain, "connect.parameters": dict(parameters)}


def decimal(precision: int, scale: int) -> dict[str, Any]:
    return {
        **logical("bytes", "org.apache.kafka.connect.data.Decimal"),
        "scale": scale,
        "precision": precision,
        "connect.parameters": {
            "scale": str(scale),
            "connect.decimal.precision": str(precision),
        },
        "logicalType": "decimal",
    }


# As Debezium 3.7 registered them for a table with a column of each.
DEBEZIUM: Final[Mapping[str, Any]] = {
    "integer": "int",
    "smallint": {"type": "int", "connect.type": "int16"},
    "bigint": "long",
    "numeric(20,6)": decimal(20, 6),
    "numeric": {
        "type": "record",
        "name": "VariableScaleDecimal",
        "namespace": "io.debezium.data",
        "fields": [{"name": "scale", "type": "int"}, {"name": "value", "type": "bytes"}],
        "connect.doc": "Variable scaled decimal",
        "connect.version": 1,
        "connect.name": "io.debezium.data.VariableScaleDecimal",
    },
    "money": {
        **decimal(64, 2),
        "connect.parameters": {"scale": "2"},
    },
    "real": "float",
    "double precision": "double",
    "boolean": "boolean",
    "text": "string",
    "bytea": "bytes",
    "date": logical("int", "io.debezium.time.Date"),
    "time without time zone": logical("long", "io.debezium.time.MicroTime"),
    "time(3) without time zone": logical("int", "io.debezium.time.Time"),
    "time with time zone": logical("string", "io.debezium.time.ZonedTime"),
    "timestamp without time zone": logical("long", "io.debezium.time.MicroTimestamp"),
    "timestamp(3) without time zone": logical("long", "io.debezium.time.Timestamp"),
    "timestamp with time zone": logical("string", "io.debezium.time.ZonedTimestamp"),
    "interval": logical("string", "io.debezium.time.Interval"),
    "jsonb": logical("string", "io.debezium.data.Json"),
    "uuid": logical("string", "io.debezium.data.Uuid"),
    "xml": logical("string", "io.debezium.data.Xml"),
    "bit(5)": logical("bytes", "io.debezium.data.Bits", {"length": "5"}),
    "integer[]": {"type": "array", "items": ["null", "int"]},
    "text[]": {"type": "array", "items": ["null", "string"]},
    "numeric(10,2)[]": {"type": "array", "items": ["null", decimal(10, 2)]},
    "point": {
        "type": "record",
        "name": "Point",
        "namespace": "io.debezium.data.geometry",
        "fields": [
            {"name": "x", "type": "double"},
            {"name": "y", "type": "double"},
            {"name": "wkb", "type": ["null", "bytes"], "default": None},
            {"name": "srid", "type": ["null", "int"], "default": None},
        ],
        "connect.doc": "Geometry (POINT)",
        "connect.version": 1,
        "connect.name": "io.debezium.data.geometry.Point",
    },
}


@pytest.mark.parametrize("spelled", DEBEZIUM)
def test_an_avro_form_is_debeziums_and_tells_its_type(spelled: str) -> None:
    column = column_of(attribute(spelled))
    assert column.avro == DEBEZIUM[spelled]
    assert column.source_type == spelled
    assert source_type_of(column) == spelled
    assert codec_of_column(column).pg_type == spelled


@pytest.mark.parametrize(
    "spelled",
    [
        "character varying", "character varying(120)", "character(6)", "bpchar", "name", '"char"', "oid",
        "json", "inet", "cidr", "macaddr8", "timestamp(0) without time zone", "timestamp(5) without time zone",
        "timestamp(3) with time zone", "time(0) without time zone", "time(4) with time zone", "interval(3)",
        "interval day to second(3)", "bit(1)", "bit varying", "bit varying(9)", "numeric(3,-2)", "numeric(5,0)",
        "int4range", "tstzmultirange", "polygon", "pg_lsn", "tsvector", "character varying(5)[]", "json[]",
        "timestamp(3) without time zone[]",
    ],
)  # fmt: skip
def test_the_exact_type_is_told_where_the_form_does_not(spelled: str) -> None:
    column = column_of(attribute(spelled))
    assert source_type_of(column) == spelled
    assert staged_type_of(column) == spelled
    assert codec_of_column(column).avro == codec_of(attribute(spelled)).avro


def test_a_type_of_the_users_is_told_and_staged_as_one_that_casts_to_it() -> None:
    mood = attribute("public.mood", oid=20_000, typtype="e", labels=("sad", "happy"))
    price = attribute("price", oid=20_001, typtype="d", inner=attribute("numeric(8,2)"))
    text = attribute("citext", oid=20_002, type_name="citext")
    made = [column_of(each) for each in (mood, price, text)]
    assert [source_type_of(column) for column in made] == ["public.mood", "price", "citext"]
    assert [staged_type_of(column) for column in made] == ["text", "numeric(8,2)", "text"]
    assert made[0].avro == logical("string", "io.debezium.data.Enum", {"allowed": "sad,happy"})
    assert isinstance(made[1].avro, dict)
    assert made[1].avro["connect.parameters"][BASE_TYPE] == "numeric(8,2)"


def test_a_users_type_named_like_a_built_in_one_is_not_taken_for_it() -> None:
    assert codec_of(attribute("numeric", oid=20_000, typtype="c")).avro == "string"


def test_a_type_that_is_not_understood_travels_as_text() -> None:
    columns = (attribute("tsquery"), attribute("box3d", oid=20_000))
    transcoder = RowTranscoder(columns)
    assert transcoder.as_text == ("v", "v")
    row, *_ = transcoder.stream_row(b"\x00\x02" + b"t\x00\x00\x00\x01x" * 2, 0)
    assert row == b"\x02\x02x" * 2
    assert TupleTranscoder([column_of(each) for each in columns]).columns_of(row) == [b"x", b"x"]


def test_a_declared_array_of_arrays_is_its_literal() -> None:
    column = column_of(attribute("integer[]", dimensions=2))
    assert column.avro == "string"
    codec = codec_of_column(column)
    literal = b"[2:3][-1:0]={{1,2},{3,NULL}}"
    assert codec.pg_type == "integer[]"
    assert codec.to_text(codec.from_text(literal)) == literal


def test_what_debezium_left_untold_has_a_type_too() -> None:
    forms = {
        "io.debezium.data.VariableScaleDecimal": "numeric",
        "io.debezium.data.geometry.Point": "point",
    }
    for reference, pg_type in forms.items():  # the second use of a record in a schema is its name
        assert staged_type_of(Column("v", reference, nullable=True)) == pg_type
    assert (
        staged_type_of(
            Column("v", logical("long", "io.debezium.time.MicroDuration"), nullable=True)
        )
        == "interval"
    )


def test_xml_keeps_its_text() -> None:
    column = attribute("xml")
    data = b"\x00\x01" + struct.pack(">i", 10) + "<a>äx</a>".encode()
    row, _, end = RowTranscoder((column,)).copy_row(data, 0)
    assert end == len(data)
    assert TupleTranscoder([column_of(column)]).tuple_of(row) == data


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        ("4b189680", "1e+07"), ("3dcccccd", "0.1"), ("00000001", "1e-45"), ("7f7fffff", "3.4028235e+38"),
        ("80000000", "-0"), ("49742400", "1e+06"), ("47c35000", "100000"),
    ],
)  # fmt: skip
def test_a_real_has_the_text_that_postgresql_writes(bits: str, text: str) -> None:
    assert real_text(bytes.fromhex(bits)).decode() == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1e15, "1e+15"), (123456789012345.0, "123456789012345"), (0.0001, "0.0001"), (0.00001, "1e-05"),
        (-2.5, "-2.5"), (1e300, "1e+300"), (float("inf"), "Infinity"), (100.0, "100"), (1.5e-7, "1.5e-07"),
    ],
)  # fmt: skip
def test_a_double_has_the_text_that_postgresql_writes(number: float, text: str) -> None:
    assert double_text(struct.pack(">d", number)).decode() == text


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ((0, 0, 0), "P0Y0M0DT0H0M0S"),
        ((14_706_780_000, 3, 14), "P1Y2M3DT4H5M6.78S"),
        ((-1, -3, -14), "P-1Y-2M-3DT0H0M-0.000001S"),
        ((0, 30, 0), "P0Y0M30DT0H0M0S"),
        ((0, 0, 1), "P0Y1M0DT0H0M0S"),
    ],
)
def test_an_interval_keeps_each_of_its_parts(parts: tuple[int, int, int], text: str) -> None:
    binary = struct.pack(">qii", *parts)
    assert interval_text(binary).decode() == text
    assert interval_value(text.encode()) == binary
