"""Watermarks as bytes: ``schemas/watermark.avsc``, by fastavro."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import fastavro

from cdc.avro.packaged import packaged_schema
from cdc.fence import Watermark
from cdc.table import Table, TableId


@cache
def _schema() -> Any:
    return fastavro.parse_schema(packaged_schema("watermark"))


class SchemaIds(NamedTuple):
    """Under which ids the registry has a table's schemas; no key's for a table without one."""

    key: int | None
    value: int


def encode_watermark(watermark: Watermark, shape: SchemaIds | None) -> bytes:
    """The Avro bytes of a watermark, unframed; its ``shape`` stands there as the ids of its schemas."""
    out = io.BytesIO()
    fastavro.schemaless_writer(
        out,
        _schema(),
        {
            "fence": watermark.fence,
            "kind": watermark.kind,
            "table": watermark.table._asdict() if watermark.table else None,
            "generation": watermark.generation,
            "lsn": watermark.lsn,
            "ends": [
                {"topic": topic, "partition": partition, "offset": offset}
                for (topic, partition), offset in watermark.ends.items()
            ],
            "void": watermark.void,
            "phase": watermark.phase,
            "rows": watermark.rows,
            "key_schema": shape.key if shape else None,
            "value_schema": shape.value if shape else None,
        },
    )
    return out.getvalue()


def decode_watermark(
    writer_schema: Any, content: bytes, table_of: Callable[[TableId, SchemaIds], Table]
) -> Watermark:
    """Read what ``encode_watermark`` or an older or newer version of it wrote, resolved to our schema.

    ``table_of`` gives the row schema of a table by its schemas' ids.

    Raises whatever fastavro raises for torn bytes; ValueError for bytes left over.
    """
    data = io.BytesIO(content)
    raw: Any = fastavro.schemaless_reader(data, writer_schema, _schema())
    if data.tell() != len(content):
        raise ValueError("bytes left over behind the watermark")
    table = TableId(**raw["table"]) if raw["table"] else None
    shape = None
    if table is not None and raw["value_schema"] is not None:
        shape = table_of(table, SchemaIds(raw["key_schema"], raw["value_schema"]))
    return Watermark(
        fence=raw["fence"],
        kind=raw["kind"],
        table=table,
        generation=raw["generation"],
        lsn=raw["lsn"],
        ends={(end["topic"], end["partition"]): end["offset"] for end in raw["ends"]},
        void=raw["void"],
        phase=raw["phase"],
        rows=raw["rows"],
        shape=shape,
    )
