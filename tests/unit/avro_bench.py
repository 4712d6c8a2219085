"""The benchmark's table with Avro rows by fastavro, and an encoder and decoder over a registry in memory."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import fastavro

from cdc.avro.decoder import EventDecoder
from cdc.avro.encoder import EventEncoder
from cdc.avro.row_schema import value_schema
from cdc.event import Record
from cdc.table import Column, Table, TableId
from cdc.testing.registry import MemoryRegistry

LSN = 29_453_576
COMMITTED_US = 1_795_446_147_016_123
NOW_NS = 1_795_446_149_223_337_080


def named(primitive: str, name: str) -> dict[str, object]:
    return {"type": primitive, "connect.version": 1, "connect.name": name}


DECIMAL_12_2: dict[str, object] = {
    "type": "bytes",
    "scale": 2,
    "precision": 12,
    "connect.version": 1,
    "connect.parameters": {"scale": "2", "connect.decimal.precision": "12"},
    "connect.name": "org.apache.kafka.connect.data.Decimal",
    "logicalType": "decimal",
}

BENCH_COLUMNS = (
    Column("id", "long", nullable=False),
    Column("customer_id", "int", nullable=False),
    Column("status", "string", nullable=True),
    Column("amount", DECIMAL_12_2, nullable=True),
    Column("note", "string", nullable=True),
    Column("created_at", named("string", "io.debezium.time.ZonedTimestamp"), nullable=True),
    Column("updated_at", named("long", "io.debezium.time.MicroTimestamp"), nullable=True),
    Column("active", "boolean", nullable=True),
    Column("score", "double", nullable=True),
    Column("payload", named("string", "io.debezium.data.Json"), nullable=True),
)

BENCH_ROW: dict[str, object] = {
    "id": 40_000,
    "customer_id": 20_375,
    "status": "returned",
    "amount": b"\x53\x4f\x97",
    "note": "eccbc87e4b5ce2fe28308fd9f2a7baf3a87ff679a2f3e71d9181a67b7542122ce4da3b7fb",
    "created_at": "2026-01-01T00:00:03.000369Z",
    "updated_at": 1_769_904_002_100_963,
    "active": True,
    "score": 1.11,
    "payload": '{"n": 3, "src": "web", "tags": ["a", "b", 3]}',
}


def bench_orders(name: str = "bench_orders", identity: Any = "default") -> Table:
    return Table(TableId("public", name), BENCH_COLUMNS, ("id",), identity)


def value_record(table: Table, topic: str = "t") -> Any:
    """The parsed schema of the row record alone."""
    envelope = json.loads(value_schema(topic, table))
    return fastavro.parse_schema({**envelope["fields"][0]["type"][1], "namespace": "row"})


def written(schema: Any, value: object) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, value)
    return out.getvalue()


def read_all(schema: Any, data: bytes) -> Any:
    stream = io.BytesIO(data)
    value = fastavro.schemaless_reader(stream, schema, None)
    assert stream.tell() == len(data), "bytes left over"
    return value


def bench_row(**changed: object) -> bytes:
    return written(value_record(bench_orders()), {**BENCH_ROW, **changed})


def by_registry(registry: MemoryRegistry, framed: bytes) -> Any:
    """What fastavro reads from framed bytes, by the schema that their id names."""
    assert framed[0] == 0
    text = registry.schema(int.from_bytes(framed[1:5], "big"))
    return read_all(fastavro.parse_schema(json.loads(text)), framed[5:])


def value_of(registry: MemoryRegistry, record: Record) -> Any:
    assert record.value is not None
    return by_registry(registry, record.value)


def encoder(registry: MemoryRegistry, **options: Any) -> EventEncoder:
    given: Mapping[str, Any] = {
        "prefix": "shop",
        "database": "bench",
        "generation": 3,
        "registry": registry,
        "partition": lambda _topic, key: 0 if key is None else key[-1] % 4,
        "partitions": lambda _topic: 4,
        "version": "9.9",
        "clock": lambda: NOW_NS,
    }
    return EventEncoder(**{**given, **options})


def decoder(registry: MemoryRegistry, prefix: str = "shop") -> EventDecoder:
    return EventDecoder(prefix=prefix, registry=registry)
