"""Rows of test tables as Avro records, for tests that need bytes but no registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cdc.avro_binary import NULL, bytes_at, long_at, long_bytes, optional, string_at, string_bytes
from cdc.errors import Rejected
from cdc.table import Column, Table, TableId


def make_table(name: str, *columns: str, key: Sequence[str] = ("id",)) -> Table:
    """A table (``schema.name``) with a bigint for each key column and a nullable text for every other."""
    return Table(
        TableId.parse(name),
        tuple(
            Column(column, "long", nullable=False, source_type="bigint")
            if column in key
            else Column(column, "string", nullable=True, source_type="text")
            for column in columns
        ),
        tuple(key),
    )


def row_bytes(table: Table, values: Mapping[str, object]) -> bytes:
    """A whole row; a column that is absent is null."""
    return b"".join(_written(column, values.get(column.name)) for column in table.columns)


def key_bytes(table: Table, values: Mapping[str, object]) -> bytes:
    """The key record of a row."""
    return b"".join(_written(column, values.get(column.name)) for column in table.key_columns)


def row_values(table: Table, row: bytes) -> dict[str, object]:
    """The values of a row. Rejected when the bytes are not a row of this table."""
    return _read(table.columns, row)


def key_values(table: Table, key: bytes) -> dict[str, object]:
    """The values of a key record. Rejected when the bytes are not a key of this table."""
    return _read(table.key_columns, key)


def _written(column: Column, value: object) -> bytes:
    match value:
        case int():
            data = long_bytes(value)
        case str():
            data = string_bytes(value)
        case None if column.nullable:
            return NULL
        case _:
            raise TypeError(f"{value!r} in column {column.name}")
    return optional(data) if column.nullable else data


def _read(columns: Sequence[Column], data: bytes) -> dict[str, object]:
    values: dict[str, object] = {}
    at = 0
    try:
        for column in columns:
            values[column.name], at = _value_at(column, data, at)
    except (IndexError, ValueError) as error:
        raise Rejected(f"a torn row: {data!r}") from error
    if at != len(data):
        raise Rejected(f"{len(data) - at} bytes too many behind a row")
    return values


def _value_at(column: Column, data: bytes, at: int) -> tuple[object, int]:
    if column.nullable:
        tag, at = long_at(data, at)
        if not tag:
            return None, at
    match column.avro:
        case "long" | "int":
            return long_at(data, at)
        case "string":
            return string_at(data, at)
        case _:
            return bytes_at(data, at)
