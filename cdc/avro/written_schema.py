"""From registered schemas back to tables: what a writer's key and value schema say of the rows.

Reads ours and Debezium's; fields are found by name, extra ones are let be.
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any, get_args

from cdc.avro.row_schema import (
    COLUMN_NAME_PARAMETER,
    IDENTITY_PARAMETER,
    MISSING_PARAMETER,
    NUMBERS_PARAMETER,
    SOURCE_TYPE_PARAMETER,
)
from cdc.errors import Rejected
from cdc.table import Column, Identity, Table, TableId

_NAMED = ("record", "enum", "fixed")


def self_contained(text: str) -> Any:
    """A schema (JSON text) with every reference to a named type replaced by that type, in JSON's shape.

    Rejected for one that refers to what it does not define, or to itself (Connect's cannot).
    """
    try:
        return _inlined(json.loads(text), "", {}, ())
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Rejected(f"a schema that cannot be used: {error}") from error


def _inlined(schema: Any, space: str, known: dict[str, Any], inside: tuple[str, ...]) -> Any:
    if isinstance(schema, list):
        return [_inlined(branch, space, known, inside) for branch in schema]
    if isinstance(schema, str):
        return _referred(schema, space, known, inside)
    kind = schema["type"]
    if kind in _NAMED:
        full = _full_name(schema["name"], schema.get("namespace", space))
        inner_space = full.rpartition(".")[0]
        inside = (*inside, full)
        result = dict(schema)
        if kind == "record":
            result["fields"] = [
                {**field, "type": _inlined(field["type"], inner_space, known, inside)}
                for field in schema["fields"]
            ]
        # A reference may stand in another namespace than the definition.
        result["name"], result["namespace"] = full.rpartition(".")[2], inner_space
        known[full] = result
        return result
    if kind == "array":
        return {**schema, "items": _inlined(schema["items"], space, known, inside)}
    if kind == "map":
        return {**schema, "values": _inlined(schema["values"], space, known, inside)}
    if isinstance(kind, dict | list):
        return _inlined(kind, space, known, inside)
    inlined = _inlined(kind, space, known, inside)
    return schema if isinstance(inlined, str) else {**inlined, **_without_type(schema)}


def _without_type(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != "type"}


_PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")


def _referred(name: str, space: str, known: dict[str, Any], inside: tuple[str, ...]) -> Any:
    if name in _PRIMITIVES:
        return name
    for full in (_full_name(name, space), name):
        if full in inside:
            raise ValueError(f"type {full} contains itself")
        if full in known:
            # What the definition says of the column that it stands at is not said of the one that refers to it.
            return without_column_parameters(known[full])
    raise ValueError(f"type {name} is not defined")


def without_column_parameters(avro: Any) -> Any:
    """The type without what our connect.parameters say of a column, which is no part of the type."""
    if not isinstance(avro, dict) or "connect.parameters" not in avro:
        return avro
    parameters = {
        name: value
        for name, value in avro["connect.parameters"].items()
        if name not in (COLUMN_NAME_PARAMETER, SOURCE_TYPE_PARAMETER)
    }
    schema = {name: value for name, value in avro.items() if name != "connect.parameters"}
    if parameters:
        schema["connect.parameters"] = parameters
    return schema["type"] if schema.keys() == {"type"} else schema


def _full_name(name: str, space: str) -> str:
    return name if "." in name or not space else f"{space}.{name}"


def fields_of(schema: Any) -> dict[str, Any]:
    """The types of a record's fields by name, in order; of an optional record as well. Empty for anything else."""
    record = optional_type(schema)[0]
    if not isinstance(record, dict) or record.get("type") != "record":
        return {}
    return {field["name"]: field["type"] for field in record["fields"]}


def optional_type(schema: Any) -> tuple[Any, bool, bool]:
    """(type, whether it may be null, whether null is the union's second branch) of a field's type.

    A union of several types beside null is no column of Connect's: Rejected.
    """
    if not isinstance(schema, list):
        return schema, False, False
    match schema:
        case ["null", other]:
            return other, True, False
        case [other, "null"]:
            return other, True, True
        case [only]:
            raise Rejected(f"a union of one type: {only}")
    raise Rejected("a union of several types, which no column has")


def table_of(table_id: TableId, key: Any, envelope: Any) -> Table:
    """The table that these self-contained schemas describe. ``key`` is None for records without a key.

    Rejected for what is no envelope, and for a key that is not made of the row's columns.
    """
    row = row_schema(envelope)
    columns = _columns(row)
    by_field = {
        field["name"]: column.name for field, column in zip(row["fields"], columns, strict=True)
    }
    key_fields = list(fields_of(key)) if key is not None else []
    for name in key_fields:
        if name not in by_field:
            raise Rejected(
                f"field {name} of the key is no column of {table_id}",
                "keys must be made of columns: leave out what adds fields to keys",
            )
    identity = row.get("connect.parameters", {}).get(IDENTITY_PARAMETER, "default")
    if identity not in get_args(Identity):
        raise Rejected(f"an unknown replica identity: {identity}")
    return Table(table_id, tuple(columns), tuple(by_field[name] for name in key_fields), identity)


def row_schema(envelope: Any) -> Any:
    """The record of ``before`` and ``after``; Rejected for what is no envelope of Debezium's form."""
    fields = fields_of(envelope)
    if not {"before", "after", "source", "op"} <= fields.keys():
        raise Rejected(
            "the record is no change event of Debezium's form",
            "send whole envelopes: leave out transformations that flatten them",
        )
    row, before = optional_type(fields["after"])[0], optional_type(fields["before"])[0]
    if not isinstance(row, dict) or row.get("type") != "record" or before != row:
        raise Rejected("before and after of the event are not of one record")
    return row


def _columns(row: dict[str, Any]) -> list[Column]:
    parameters = row.get("connect.parameters", {})
    fields = row["fields"]
    numbers = list(map(int, filter(None, parameters.get(NUMBERS_PARAMETER, "").split(","))))
    missing = json.loads(parameters.get(MISSING_PARAMETER, "{}"))
    columns = []
    for field, number in zip(fields, numbers or [0] * len(fields), strict=True):
        column = _column(field)
        value = missing.get(column.name)
        columns.append(
            replace(
                column, number=number, missing=None if value is None else base64.b64decode(value)
            )
        )
    return columns


def _column(field: dict[str, Any]) -> Column:
    avro, nullable, _ = optional_type(field["type"])
    parameters: dict[str, Any] = (
        avro.get("connect.parameters", {}) if isinstance(avro, dict) else {}
    )
    return Column(
        name=field.get(COLUMN_NAME_PARAMETER)
        or parameters.get(COLUMN_NAME_PARAMETER)
        or field["name"],
        avro=without_column_parameters(avro),
        nullable=nullable,
        source_type=field.get(SOURCE_TYPE_PARAMETER) or parameters.get(SOURCE_TYPE_PARAMETER) or "",
    )
