"""fastavro is the reference: what it reads from ours, and what ours reads from what it wrote."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import fastavro
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc.avro.framing import frame
from cdc.avro.names import collection_name
from cdc.avro.row_schema import key_schema, value_schema
from cdc.avro.walk import walker
from cdc.avro.written_schema import self_contained
from cdc.event import Change, Delivered, Record
from cdc.position import Position
from cdc.table import TableId
from cdc.testing.registry import MemoryRegistry
from tests.unit.avro_bench import (
    COMMITTED_US,
    decoder,
    encoder,
    read_all,
    value_of,
    value_record,
    written,
)
from tests.unit.avro_random import TYPES, TableWithRows, tables_with_rows

slow = settings(
    deadline=None, database=None, max_examples=40, suppress_health_check=list(HealthCheck)
)


@slow
@given(tables_with_rows(), st.data())
def test_what_the_encoder_writes_is_what_fastavro_reads_and_the_decoder_gives_back(
    made: TableWithRows, data: st.DataObject
) -> None:
    registry = MemoryRegistry()
    ours = encoder(registry)
    xid, commit = data.draw(st.integers(1, 2**32 - 1)), data.draw(st.integers(10, 2**62))
    changes = []
    for order, (row, key) in enumerate(zip(made.rows, made.keys, strict=True), 1):
        op: Any = data.draw(st.sampled_from("rcud"))
        before = row if op == "d" or data.draw(st.booleans()) else None
        after = None if op == "d" else row
        lsn = data.draw(st.integers(0, 2**62))
        changes.append(Change(made.table, op, lsn, order * 3, key, before, after))
    ours.begin(xid, commit, COMMITTED_US)
    records = [record for record in ours.changes(changes)[1:] if record.value is not None]

    schema = value_record(made.table)
    for change, record in zip(changes, records, strict=True):
        decoded = value_of(registry, record)
        for name, image in (("before", change.before), ("after", change.after)):
            assert decoded[name] == (None if image is None else read_all(schema, image))
        assert decoded["source"]["lsn"] == change.lsn
        assert decoded["op"] == change.op

    events = decoder(registry).data(records)
    for change, event in zip(changes, events, strict=True):
        assert isinstance(event, Delivered), event
        assert event.table.same_shape(made.table)
        assert event.position == Position(3, commit, change.total_order)
        assert (event.op, event.xid) == (change.op, xid)
        assert (event.key, event.before, event.after) == (
            change.key,
            change.before,
            change.after,
        )
        assert event.collection == collection_name(made.table.id)


@slow
@given(tables_with_rows())
def test_decoded_values_stand_under_the_columns_own_names(made: TableWithRows) -> None:
    registry = MemoryRegistry()
    reader = decoder(registry)
    plain = (int, bool, float, str)
    for row, key, expected in zip(made.rows, made.keys, made.values, strict=True):
        values = reader.values(made.table, row)
        assert list(values) == [column.name for column in made.table.columns]
        for column, value in zip(made.table.columns, expected, strict=True):
            if column.avro in ("int", "long", "boolean", "double", "string") or value is None:
                assert values[column.name] == value
            assert isinstance(values[column.name], (*plain, bytes, list, dict, type(None)))
        assert reader.key_values(made.table, key) == {made.table.key[0]: expected[0]}


def _shuffled_envelope(made: TableWithRows, random: random.Random, *, generation: bool) -> Any:
    """An envelope as another version may have registered it: other orders, fields more and less, value-first unions."""
    schema = json.loads(value_schema("shop.x", made.table))
    row = schema["fields"][0]["type"][1]
    row["name"], row["namespace"] = "Value", "shop.x"
    for field in row["fields"]:
        if isinstance(field["type"], list) and random.random() < 0.3:
            field["type"].reverse()
            del field["default"]
    source = schema["fields"][2]["type"]
    kept = [f for f in source["fields"] if generation or f["name"] != "generation"]
    kept.append({"name": "extra", "type": ["null", "string"], "default": None})
    random.shuffle(kept)
    source["fields"] = kept
    rest = [f for f in schema["fields"][2:] if f["name"] not in ("ts_us", "ts_ns")]
    rest.append({"name": "later", "type": {"type": "map", "values": "long"}})
    random.shuffle(rest)
    images = schema["fields"][:2]
    at = random.randrange(len(rest) + 1)
    schema["fields"] = rest[:at] + images + rest[at:]
    return schema


@slow
@given(tables_with_rows(), st.randoms(use_true_random=False), st.booleans(), st.booleans())
def test_envelopes_of_any_order_read_the_same(
    made: TableWithRows, random: random.Random, generation: bool, block: bool
) -> None:
    envelope = _shuffled_envelope(made, random, generation=generation)
    registry = MemoryRegistry()
    registry.put(1, key_schema("shop.x", made.table))
    registry.put(2, json.dumps(envelope))
    schema = fastavro.parse_schema(envelope)
    fields = [f["name"] for f in value_record(made.table)["fields"]]
    records = []
    for order, (row, key) in enumerate(zip(made.values, made.keys, strict=True), 1):
        value = {
            "before": None,
            "after": dict(zip(fields, row, strict=True)),
            "source": {
                "version": "1",
                "connector": "postgresql",
                "name": "shop",
                "ts_ms": 1,
                "snapshot": "false",
                "db": "d",
                "sequence": f'["77","{100 + order}"]',
                "schema": "s",
                "table": "t",
                "txId": 9,
                "lsn": 100 + order,
                "generation": 4,
                "extra": "x" * order,
            },
            "transaction": {"id": "9:88", "total_order": order, "data_collection_order": order}
            if block
            else None,
            "op": "c",
            "ts_ms": order,
            "later": {"a": order},
        }
        records.append(Record("shop.x", 0, frame(1) + key, frame(2) + written(schema, value)))
    for order, event in enumerate(decoder(registry).data(records), 1):
        assert isinstance(event, Delivered), event
        assert event.table.same_shape(replace(made.table, id=TableId("s", "t")))
        assert event.after == made.rows[order - 1]
        assert event.xid == 9
        if block and generation:
            assert event.position == Position(4, 88, order)
        elif block:
            assert event.position == Position(0, 77, order)
        else:
            assert event.position == Position(0, 100 + order, 0)


@slow
@given(st.data())
def test_a_walk_ends_where_fastavro_stopped_writing(data: st.DataObject) -> None:
    for avro, values in TYPES:
        walk = walker(self_contained(json.dumps(["null", avro])))
        value = data.draw(st.none() | values)
        content = written(fastavro.parse_schema(["null", avro]), value)
        assert walk(b"..." + content + b"...", 3) == 3 + len(content)
