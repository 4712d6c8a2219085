"""Our schemas are those that Debezium registers, apart from what we say we add."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import pytest

from cdc.avro.packaged import packaged_schema
from cdc.avro.row_schema import key_schema, value_schema
from cdc.avro.written_schema import self_contained, table_of
from cdc.event import Change
from cdc.table import Table, TableId
from cdc.testing.registry import MemoryRegistry
from tests.golden.debezium import PREFIX, data_samples, subjects
from tests.unit.avro_bench import COMMITTED_US, LSN, bench_orders, bench_row, encoder

TABLES = [TableId("public", "bench_orders"), TableId("public", "type_zoo")]


def as_written(table_id: TableId) -> Table:
    topic = f"{PREFIX}.{table_id}"
    return table_of(
        table_id,
        self_contained(json.dumps(subjects()[f"{topic}-key"])),
        self_contained(json.dumps(subjects()[f"{topic}-value"])),
    )


def without_additions(schema: Any) -> Any:
    row, source = schema["fields"][0]["type"][1], schema["fields"][2]["type"]
    assert row.pop("connect.parameters") == {"cdc.replica.identity": "default"}
    assert source["fields"].pop() == {
        "name": "generation",
        "type": ["null", "long"],
        "default": None,
    }
    return schema


@pytest.mark.parametrize("table_id", TABLES, ids=str)
def test_a_table_gets_the_schemas_that_debezium_registered(table_id: TableId) -> None:
    topic = f"{PREFIX}.{table_id}"
    table = as_written(table_id)
    assert json.loads(key_schema(topic, table)) == subjects()[f"{topic}-key"]
    ours = without_additions(json.loads(value_schema(topic, table)))
    assert ours == subjects()[f"{topic}-value"]


def test_the_benchmarks_table_gets_them_from_its_columns() -> None:
    topic = f"{PREFIX}.public.bench_orders"
    ours = without_additions(json.loads(value_schema(topic, bench_orders())))
    assert ours == subjects()[f"{topic}-value"]


def test_the_transaction_topic_has_debeziums_schemas() -> None:
    assert packaged_schema("transaction_key") == subjects()[f"{PREFIX}.transaction-key"]
    assert packaged_schema("transaction_value") == subjects()[f"{PREFIX}.transaction-value"]


def test_our_reader_schema_takes_what_debezium_wrote() -> None:
    topic = f"{PREFIX}.public.bench_orders"
    writer = fastavro.parse_schema(subjects()[f"{topic}-value"])
    reader = fastavro.parse_schema(json.loads(value_schema(topic, bench_orders())))
    for sample in data_samples():
        if sample.record.topic == topic and sample.record.value:
            value: Any = fastavro.schemaless_reader(
                io.BytesIO(sample.record.value[5:]), writer, reader
            )
            assert value["op"] == sample.value["op"]
            assert value["source"]["generation"] is None


def test_debeziums_reader_schema_takes_what_we_write() -> None:
    topic = f"{PREFIX}.public.bench_orders"
    registry, table = MemoryRegistry(), bench_orders()
    ours = encoder(registry, prefix=PREFIX)
    ours.begin(770, LSN, COMMITTED_US)
    record = ours.changes([Change(table, "c", LSN, 1, b"\x02", None, bench_row())])[1]
    assert record.value is not None
    written_by = json.loads(registry.schema(int.from_bytes(record.value[1:5], "big")))
    value: Any = fastavro.schemaless_reader(
        io.BytesIO(record.value[5:]),
        fastavro.parse_schema(written_by),
        fastavro.parse_schema(subjects()[f"{topic}-value"]),
    )
    assert value["after"]["customer_id"] == 20_375
    assert "generation" not in value["source"]
