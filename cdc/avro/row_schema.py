"""From a table to the Avro schemas of its topic: what Debezium registers, and ours beside it.

Ours: ``generation`` in ``source``; in the connect.parameters of ``Value``, the record of ``before`` and ``after``,
``cdc.replica.identity``, ``cdc.column.numbers`` and ``cdc.missing.values`` (see `cdc.table.Column`); ``cdc.source.type``
in those of a column whose source type is known. A NOT NULL column that rows are older than has their value as its
default, so that adding it is a backward compatible change. Connect's Avro converter
reads connect.parameters of any type as that schema's parameters, Avro parsers keep them as properties.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping
from typing import Any

import fastavro

from cdc.avro.names import AS_AVRO, NameAdjustment, field_names, namespace
from cdc.avro.packaged import JsonSchema, packaged_schema, schema_text
from cdc.table import AvroType, Column, Table

IDENTITY_PARAMETER = "cdc.replica.identity"
NUMBERS_PARAMETER = "cdc.column.numbers"
MISSING_PARAMETER = "cdc.missing.values"
SOURCE_TYPE_PARAMETER = "cdc.source.type"
COLUMN_NAME_PARAMETER = "__debezium.source.column.name"


def key_schema(topic: str, table: Table, names: NameAdjustment = AS_AVRO) -> str:
    """The schema of the message key: record ``<topic>.Key`` with the key columns in key order."""
    space = namespace(topic, names.schemas)
    columns = [column.name for column in table.columns]
    avro_names = dict(zip(columns, field_names(columns, names.fields), strict=True))
    defined = set[str]()
    return schema_text(
        {
            "type": "record",
            "name": "Key",
            "namespace": space,
            "fields": [
                _field(avro_names[column.name], column, defined, with_source_type=False)
                for column in table.key_columns
            ],
            "connect.name": f"{space}.Key",
        }
    )


def value_schema(
    topic: str, table: Table, connector: str = "postgresql", names: NameAdjustment = AS_AVRO
) -> str:
    """The schema of the message value: record ``<topic>.Envelope``, in Debezium's order since 2.7."""
    space = namespace(topic, names.schemas)
    defined = set[str]()
    fields = field_names((column.name for column in table.columns), names.fields)
    row: JsonSchema = {
        "type": "record",
        "name": "Value",
        "fields": [
            _field(name, column, defined, with_source_type=True)
            for name, column in zip(fields, table.columns, strict=True)
        ],
        "connect.parameters": _table_parameters(table),
        "connect.name": f"{space}.Value",
    }
    return schema_text(
        {
            "type": "record",
            "name": "Envelope",
            "namespace": space,
            "fields": [
                {"name": "before", "type": ["null", row], "default": None},
                {"name": "after", "type": ["null", "Value"], "default": None},
                {"name": "source", "type": source_schema(connector)},
                {
                    "name": "transaction",
                    "type": ["null", packaged_schema("transaction_block")],
                    "default": None,
                },
                {"name": "op", "type": "string"},
                {"name": "ts_ms", "type": ["null", "long"], "default": None},
                {"name": "ts_us", "type": ["null", "long"], "default": None},
                {"name": "ts_ns", "type": ["null", "long"], "default": None},
            ],
            "connect.version": 2,
            "connect.name": f"{space}.Envelope",
        }
    )


def _table_parameters(table: Table) -> dict[str, str]:
    parameters = {IDENTITY_PARAMETER: str(table.identity)}
    if any(column.number for column in table.columns):
        parameters[NUMBERS_PARAMETER] = ",".join(str(column.number) for column in table.columns)
    missing = {
        column.name: base64.b64encode(column.missing).decode()
        for column in table.columns
        if column.missing is not None
    }
    if missing:
        parameters[MISSING_PARAMETER] = json.dumps(missing, ensure_ascii=False)
    return parameters


def source_schema(connector: str) -> JsonSchema:
    """The ``source`` block in the namespace of this connector."""
    schema = packaged_schema("source")
    schema["namespace"] = f"io.debezium.connector.{connector}"
    schema["connect.name"] = f"{schema['namespace']}.Source"
    return schema


def message_schema(connector: str) -> str:
    """The value of ``<prefix>.message``, as Debezium's logical decoding message monitor has it."""
    block = packaged_schema("message_block")
    space = f"io.debezium.connector.{connector}"
    return schema_text(
        {
            "type": "record",
            "name": "MessageValue",
            "namespace": space,
            "fields": [
                {"name": "op", "type": "string"},
                {"name": "ts_ms", "type": ["null", "long"], "default": None},
                {"name": "source", "type": source_schema(connector)},
                {"name": "message", "type": block},
            ],
            "connect.version": 1,
            "connect.name": f"{space}.MessageValue",
        }
    )


def _field(
    name: str, column: Column, defined: set[str], *, with_source_type: bool
) -> dict[str, Any]:
    parameters: dict[str, str] = {}
    if name != column.name:
        parameters[COLUMN_NAME_PARAMETER] = column.name
    if with_source_type and column.source_type:
        parameters[SOURCE_TYPE_PARAMETER] = column.source_type
    once = _once(column.avro, defined)
    field: dict[str, Any] = {"name": name}
    if not isinstance(once, str) or once in _PRIMITIVES:
        once = _with_parameters(once, parameters)
    else:
        # A second use of a named type is its name, which can carry nothing: the field does.
        field |= parameters
    if column.nullable:
        return field | {"type": ["null", once], "default": None}
    field["type"] = once
    if isinstance(once, dict) and "connect.default" in once:
        field["default"] = once["connect.default"]
    elif with_source_type and (default := _default(column)) is not None:
        field["default"] = default
    return field


def _default(column: Column) -> object:
    """The value of older rows as a default in JSON; None where there is none, or no plain one."""
    kind = column.avro if isinstance(column.avro, str) else column.avro["type"]
    if column.missing is None or kind not in _PRIMITIVES:
        return None
    value: Any = fastavro.schemaless_reader(io.BytesIO(column.missing), {"type": kind}, None)
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return None if isinstance(value, float) and not math.isfinite(value) else value


_PRIMITIVES = {"null", "boolean", "int", "long", "float", "double", "bytes", "string"}


def _with_parameters(avro: AvroType, parameters: Mapping[str, str]) -> AvroType:
    if not parameters:
        return avro
    schema: dict[str, Any] = {"type": avro} if isinstance(avro, str) else dict(avro)
    schema["connect.parameters"] = {**schema.get("connect.parameters", {}), **parameters}
    return schema


def _once(avro: AvroType | list[Any], defined: set[str]) -> Any:
    """The type with every named type written out the first time and called by its name after that."""
    match avro:
        case str():
            return avro
        case list():
            return [_once(branch, defined) for branch in avro]
    schema = dict(avro)
    kind = schema["type"]
    if kind in ("record", "enum", "fixed"):
        space = schema.get("namespace")
        full = f"{space}.{schema['name']}" if space else str(schema["name"])
        if full in defined:
            return full
        defined.add(full)
    match schema:
        case {"type": "record", "fields": list(fields)}:
            schema["fields"] = [{**f, "type": _once(f["type"], defined)} for f in fields]
        case {"type": "array", "items": items}:
            schema["items"] = _once(items, defined)  # type: ignore[arg-type]  # JSON's shape is checked by parsers
        case {"type": "map", "values": values}:
            schema["values"] = _once(values, defined)  # type: ignore[arg-type]  # as above
        case {"type": dict() | list() as inner}:
            schema["type"] = _once(inner, defined)
    return schema
