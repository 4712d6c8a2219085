from __future__ import annotations

import json
from typing import Any

import pytest

from cdc.avro.framing import frame
from cdc.errors import Rejected
from cdc.event import Change, Delivered, Record, TransactionMark, Truncate
from cdc.position import Position
from cdc.protocols import EventDecoder as EventDecoderSeam
from cdc.table import Column, Table, TableId
from cdc.testing.registry import MemoryRegistry
from tests.unit.avro_bench import (
    BENCH_ROW,
    COMMITTED_US,
    LSN,
    bench_orders,
    bench_row,
    decoder,
    encoder,
    value_of,
    value_record,
    written,
)
from tests.unit.avro_random import VARIABLE_DECIMAL

pytestmark = pytest.mark.usefixtures("both_forms")


def sent(registry: MemoryRegistry, *changes: Change) -> list[Record]:
    ours = encoder(registry)
    ours.begin(770, LSN, COMMITTED_US)
    return ours.changes(changes)[1:]


def delivered(events: list[Delivered | Rejected | None]) -> list[Delivered]:
    assert all(isinstance(event, Delivered) for event in events), events
    return [event for event in events if isinstance(event, Delivered)]


def test_an_event_carries_where_it_stood_and_what_it_weighs() -> None:
    registry, table, row = MemoryRegistry(), bench_orders(), bench_row()
    (record,) = sent(registry, Change(table, "c", LSN, 1, b"\x02", None, row))
    ours: EventDecoderSeam = decoder(registry)
    (event,) = delivered(ours.data([record._replace(partition=3, offset=99)]))
    assert (event.topic, event.partition, event.offset) == ("shop.public.bench_orders", 3, 99)
    assert event.size == len(record.key or b"") + len(record.value or b"")
    assert event.collection == "public.bench_orders"


def test_the_same_schemas_give_the_same_table_and_new_ones_a_new_one() -> None:
    registry, row = MemoryRegistry(), bench_row()
    wider = Table(
        TableId("public", "bench_orders"),
        (*bench_orders().columns, Column("x", "int", nullable=True)),
        ("id",),
    )
    ours = encoder(registry)
    ours.begin(770, LSN, COMMITTED_US)
    reader = decoder(registry)
    old = [Change(bench_orders(), "c", LSN, 1, b"\x02", None, row)]
    new = [Change(wider, "c", LSN, 1, b"\x02", None, row + b"\x00")]
    events = [delivered(reader.data(ours.changes(batch)[-1:]))[0] for batch in (old, new, old)]
    assert events[0].table is events[2].table is not events[1].table
    assert events[1].table.same_shape(wider)


def test_each_transaction_keeps_its_own_position_and_times_through_one_encoder_and_decoder() -> (
    None
):
    registry, table, row = MemoryRegistry(), bench_orders(), bench_row()
    ours, reader = encoder(registry), decoder(registry)
    records, expected = [], []
    for xid, commit in ((770, LSN), (771, LSN + 80), (0, LSN + 89), (770, LSN + 160)):
        ours.begin(xid, commit, COMMITTED_US + xid)
        for order in (1, 64, 8191, 8192, 1_000_000):
            records += ours.changes([Change(table, "c", LSN, order, b"\x02", None, row)])[-1:]
            expected.append((Position(3, commit, order), xid))
        ours.end()
    events = delivered(reader.data(records))
    assert [(event.position, event.xid) for event in events] == expected
    again = delivered(reader.data(records[::-1]))
    assert [(event.position, event.xid) for event in again] == expected[::-1]
    sources = [value_of(registry, record)["source"] for record in records]
    assert [source["ts_us"] for source in sources] == [COMMITTED_US + xid for _, xid in expected]
    assert [source["txId"] or 0 for source in sources] == [xid for _, xid in expected]


def test_a_truncate_is_of_the_table_that_its_topic_had() -> None:
    registry, table, row = MemoryRegistry(), bench_orders(), bench_row()
    ours = encoder(registry)
    ours.begin(770, LSN, COMMITTED_US)
    records = ours.changes([Change(table, "c", LSN, 1, b"\x02", None, row)])[1:]
    emptied = ours.truncate(Truncate(table, LSN, 2))
    created, *truncates = delivered(decoder(registry).data(records + emptied))
    assert {event.table for event in truncates} == {created.table}
    (alone, *_) = delivered(decoder(registry).data(emptied))
    assert (alone.table.key, alone.key, alone.op) == ((), None, "t")


def test_unchanged_columns_and_other_keys_come_from_headers() -> None:
    registry, table, row = MemoryRegistry(), bench_orders(), bench_row()
    records = sent(
        registry,
        Change(table, "u", LSN, 1, b"\x02", None, row, ("note", "payload")),
        Change(table, "d", LSN, 3, b"\x02", row, None, (), b"\x50"),
        Change(table, "c", LSN, 4, b"\x50", None, row, (), b"\x02"),
    )
    events = decoder(registry).data(records)
    assert events.pop(2) is None  # the tombstone
    update, delete, create = delivered(events)
    assert update.unchanged == ("note", "payload")
    assert (delete.other_key, create.other_key) == (b"\x50", b"\x02")


def test_another_key_of_an_older_schema_is_put_into_the_keys_own() -> None:
    registry, table, row = MemoryRegistry(), bench_orders(), bench_row()
    (record,) = sent(registry, Change(table, "c", LSN, 1, b"\x02", None, row))
    older = {
        "type": "record",
        "name": "Key",
        "fields": [{"name": "gone", "type": "string"}, {"name": "id", "type": "int"}],
    }
    registry.put(77, json.dumps(older))
    header = ("__debezium.oldkey", frame(77) + b"\x02x\x0a")
    (event,) = decoder(registry).data([record._replace(headers=(header,))])
    assert isinstance(event, Rejected)  # it has fields that the key of today has not
    older["fields"] = older["fields"][1:]
    registry.put(78, json.dumps(older))
    header = ("__debezium.oldkey", frame(78) + b"\x0a")
    (read,) = delivered(decoder(registry).data([record._replace(headers=(header,))]))
    assert read.other_key == b"\x0a"


def test_a_value_that_looks_like_debeziums_placeholder_stays_one_in_ours() -> None:
    registry, table = MemoryRegistry(), bench_orders()
    row = bench_row(note="__debezium_unavailable_value")
    records = sent(registry, Change(table, "u", LSN, 1, b"\x02", None, row))
    (event,) = delivered(decoder(registry).data(records))
    assert event.unchanged == ()


def test_a_topic_of_another_prefix_is_rejected() -> None:
    registry, table, row = MemoryRegistry(), bench_orders(), bench_row()
    records = sent(registry, Change(table, "c", LSN, 1, b"\x02", None, row))
    (answer,) = decoder(registry, prefix="other").data(records)
    assert isinstance(answer, Rejected)
    assert "other." in answer.what


def test_marks_name_collections_as_events_do() -> None:
    registry, table, row = MemoryRegistry(), bench_orders("odd name"), bench_row()
    ours = encoder(registry)
    ours.begin(770, LSN, COMMITTED_US)
    begin, record = ours.changes([Change(table, "c", LSN, 1, b"\x02", None, row)])
    (end,) = ours.end()
    reader = decoder(registry)
    (event,) = delivered(reader.data([record]))
    committed_ms = COMMITTED_US // 1000
    assert reader.transaction(begin) == TransactionMark(False, 770, LSN, (), -1, committed_ms)
    assert reader.transaction(end._replace(offset=5)) == TransactionMark(
        True, 770, LSN, ((event.collection, 1),), 5, committed_ms
    )
    assert event.table.id == table.id


@pytest.mark.parametrize(
    "value", [None, b"", b"\x00\x00\x00\x00\x63a", b"\x00\x00\x00\x00\x01\x02"]
)
def test_what_is_no_mark_and_no_watermark_is_rejected(value: bytes | None) -> None:
    registry = MemoryRegistry()
    encoder(registry).begin(1, 2, 3)
    reader = decoder(registry)
    for read in (reader.transaction, reader.watermark):
        with pytest.raises(Rejected):
            read(Record("shop.transaction", 0, None, value))


def test_a_data_record_is_no_mark_and_no_watermark() -> None:
    registry, table, row = MemoryRegistry(), bench_orders(), bench_row()
    (record,) = sent(registry, Change(table, "c", LSN, 1, b"\x02", None, row))
    reader = decoder(registry)
    for read in (reader.transaction, reader.watermark):
        with pytest.raises(Rejected):
            read(record)


def test_values_are_readable_and_lossless() -> None:
    def named(primitive: str, name: str) -> dict[str, object]:
        return {"type": primitive, "connect.name": f"io.debezium.time.{name}"}

    types: dict[str, tuple[Any, Any, object]] = {
        "far": (
            VARIABLE_DECIMAL,
            {"scale": 2, "value": (-(10**60)).to_bytes(30, "big", signed=True)},
            "-1" + "0" * 58 + ".00",
        ),
        "date": (named("int", "Date"), 20_000, "2024-10-04"),
        "late": (named("int", "Date"), 2**31 - 1, 2**31 - 1),
        "ms": (named("long", "Timestamp"), -1, "1969-12-31 23:59:59.999000"),
        "never": (named("long", "MicroTimestamp"), 2**63 - 1, 2**63 - 1),
        "time": (named("long", "MicroTime"), 1, "00:00:00.000001"),
        "midnight": (named("int", "Time"), 86_400_000, "24:00:00"),
        "list": (
            {"type": "array", "items": ["null", VARIABLE_DECIMAL]},
            [None, {"scale": 1, "value": b"\x0f"}],
            [None, "1.5"],
        ),
    }
    table = Table(
        TableId("s", "t"),
        tuple(Column(name, avro, nullable=True) for name, (avro, _, _) in types.items()),
        (),
    )
    row = written(value_record(table), {name: value for name, (_, value, _) in types.items()})
    read = decoder(MemoryRegistry()).values(table, row)
    assert read == {name: expected for name, (_, _, expected) in types.items()}


def test_bytes_that_are_no_row_are_rejected() -> None:
    reader, row = decoder(MemoryRegistry()), bench_row()
    assert reader.values(bench_orders(), row)["id"] == BENCH_ROW["id"]
    for torn in (b"", row[:-1], row + b"\x00"):
        with pytest.raises(Rejected):
            reader.values(bench_orders(), torn)
    with pytest.raises(Rejected):
        reader.key_values(bench_orders(), b"")
