"""Watermarks as bytes: ``schemas/watermark.avsc``, by fastavro."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import fastavro

from cdc.avro.packaged import packaged_schema
from cdc.fence import Watermark
from cdc.table import TableId


@cache
def _schema() -> Any:
    return fastavro.parse_schema(packaged_schema("watermark"))


def encode_watermark(watermark: Watermark) -> bytes:
    """The Avro bytes of a watermark, unframed."""
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
        },
    )
    return out.getvalue()


def decode_watermark(writer_schema: Any, content: bytes) -> Watermark:
    """Read what ``encode_watermark`` or an older or newer version of it wrote, resolved to our schema.

    Raises whatever fastavro raises for torn bytes; ValueError for bytes left over.
    """
    data = io.BytesIO(content)
    raw: Any = fastavro.schemaless_reader(data, writer_schema, _schema())
    if data.tell() != len(content):
        raise ValueError("bytes left over behind the watermark")
    return Watermark(
        fence=raw["fence"],
        kind=raw["kind"],
        table=TableId(**raw["table"]) if raw["table"] else None,
        generation=raw["generation"],
        lsn=raw["lsn"],
        ends={(end["topic"], end["partition"]): end["offset"] for end in raw["ends"]},
        void=raw["void"],
        phase=raw["phase"],
        rows=raw["rows"],
    )
