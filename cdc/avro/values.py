"""Rows decoded for people and for stores that do not take bytes: plain Python values by column name.

Numbers stay numbers where Python's are exact; decimals, dates and times become text in ISO's or PostgreSQL's form.
A value that such a text cannot show (infinity, years past 9999) stays the number that the wire has.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

import fastavro

from cdc.table import Column, Table

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US = 86_400_000_000


def row_values(table: Table, row: bytes) -> dict[str, object]:
    """The values of a row of the table. Raises whatever fastavro raises for torn bytes; ValueError for leftovers."""
    return {
        column.name: readable(column.avro, value)
        for column, value in zip(table.columns, wire_values(table, row), strict=True)
    }


def key_record_values(table: Table, key: bytes) -> dict[str, object]:
    """The values of a key of the table; raises as ``row_values`` does."""
    columns = table.key_columns
    raw = decode(_key_record(table), key)
    return {
        column.name: readable(column.avro, value)
        for column, value in zip(columns, raw.values(), strict=True)
    }


def wire_values(table: Table, row: bytes) -> list[Any]:
    """The values of a row in the order of columns, as they are on the wire; raises as ``row_values`` does."""
    return list(decode(_row_record(table), row).values())


@lru_cache(maxsize=1024)
def _row_record(table: Table) -> Any:
    return _record_of(table.columns)


@lru_cache(maxsize=1024)
def _key_record(table: Table) -> Any:
    return _record_of(table.key_columns)


def _record_of(columns: Sequence[Column]) -> Any:
    # Names of our own, and no logical types: so names cannot meet and values come as the wire has them.
    fields = []
    for index, column in enumerate(columns):
        avro = _bare(column.avro, f"c{index}")
        fields.append({"name": f"c{index}", "type": ["null", avro] if column.nullable else avro})
    return fastavro.parse_schema({"type": "record", "name": "Row", "fields": fields})


def _bare(avro: Any, path: str) -> Any:
    """A self-contained type with nothing but its shape; named types are named for where they stand."""
    match avro:
        case list():
            return [_bare(branch, f"{path}_{n}") for n, branch in enumerate(avro)]
        case {"type": "record", "fields": fields}:
            return {
                "type": "record",
                "name": path,
                "fields": [
                    {"name": f["name"], "type": _bare(f["type"], f"{path}_{n}")}
                    for n, f in enumerate(fields)
                ],
            }
        case {"type": "array", "items": items}:
            return {"type": "array", "items": _bare(items, f"{path}_i")}
        case {"type": "map", "values": values}:
            return {"type": "map", "values": _bare(values, f"{path}_v")}
        case {"type": "enum", "symbols": symbols}:
            return {"type": "enum", "name": path, "symbols": symbols}
        case {"type": "fixed", "size": size}:
            return {"type": "fixed", "name": path, "size": size}
        case {"type": inner}:
            return _bare(inner, path)
    return avro


def decode(schema: Any, data: bytes) -> Any:
    """What fastavro reads from all of ``data``; EOFError, ValueError and its like when it is no such record."""
    stream = io.BytesIO(data)
    value = fastavro.schemaless_reader(stream, schema, None)
    if stream.tell() != len(data):
        raise ValueError("bytes left over behind the record")
    return value


def readable(avro: Any, value: Any) -> object:
    """A value as fastavro read it by the bare type, for reading by people."""
    if value is None:
        return None
    match avro:
        case list():
            return readable(next(branch for branch in avro if branch != "null"), value)
        case {"connect.name": str(name)} if name in _FORMS:
            return _FORMS[name](avro, value)
        case {"logicalType": "decimal"}:
            return _decimal(avro, value)
        case {"type": "record", "fields": fields}:
            return {
                field["name"]: readable(field["type"], value[field["name"]]) for field in fields
            }
        case {"type": "array", "items": items}:
            return [readable(items, item) for item in value]
        case {"type": "map", "values": values}:
            return {key: readable(values, item) for key, item in value.items()}
    plain: object = value
    return plain


def _decimal(avro: Mapping[str, Any], value: bytes) -> str:
    return _scaled(value, int(avro.get("scale", 0)))


def _variable_decimal(_: Mapping[str, Any], value: Mapping[str, Any]) -> str:
    return _scaled(value["value"], value["scale"])


def _scaled(unscaled: bytes, scale: int) -> str:
    number = int.from_bytes(unscaled, "big", signed=True)
    # Built from digits: arithmetic would round to the context's precision.
    digits = tuple(map(int, str(abs(number))))
    return f"{Decimal((int(number < 0), digits, -scale)):f}"


def _date(_: Mapping[str, Any], days: int) -> object:
    try:
        return date.fromordinal(days + date(1970, 1, 1).toordinal()).isoformat()
    except (ValueError, OverflowError):
        return days


def _timestamp(unit_us: int) -> Callable[[Mapping[str, Any], int], object]:
    def form(_: Mapping[str, Any], value: int) -> object:
        try:
            moment = _EPOCH + timedelta(microseconds=value * unit_us)
        except OverflowError:
            return value
        return moment.replace(tzinfo=None).isoformat(sep=" ")

    return form


def _time(unit_us: int) -> Callable[[Mapping[str, Any], int], object]:
    def form(_: Mapping[str, Any], value: int) -> object:
        us = value * unit_us
        if us == _DAY_US:
            return "24:00:00"
        if not 0 <= us < _DAY_US:
            return value
        return (_EPOCH + timedelta(microseconds=us)).time().isoformat()

    return form


_FORMS: dict[str, Callable[[Mapping[str, Any], Any], object]] = {
    "org.apache.kafka.connect.data.Decimal": _decimal,
    "io.debezium.data.VariableScaleDecimal": _variable_decimal,
    "io.debezium.time.Date": _date,
    "io.debezium.time.Timestamp": _timestamp(1000),
    "io.debezium.time.MicroTimestamp": _timestamp(1),
    "io.debezium.time.Time": _time(1000),
    "io.debezium.time.MicroTime": _time(1),
}
