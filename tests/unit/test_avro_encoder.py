from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import pytest

from cdc.avro.framing import frame
from cdc.avro.packaged import packaged_schema, schema_text
from cdc.errors import Refused, Unreachable
from cdc.event import Change, Delivered, Message, Record, Truncate
from cdc.fence import Watermark
from cdc.protocols import EventEncoder as EventEncoderSeam
from cdc.table import Column, Table, TableId
from cdc.testing.registry import MemoryRegistry
from tests.unit.avro_bench import (
    BENCH_COLUMNS,
    COMMITTED_US,
    LSN,
    NOW_NS,
    bench_orders,
    bench_row,
    by_registry,
    decoder,
    encoder,
    value_of,
    value_record,
    written,
)

pytestmark = pytest.mark.usefixtures("both_forms")


def change(table: Table, op: Any, order: int, lsn: int = LSN, **parts: Any) -> Change:
    return Change(
        table,
        op,
        lsn,
        order,
        parts.pop("key", b"\x02"),
        parts.pop("before", None),
        parts.pop("after", None),
        **parts,
    )


def test_the_envelope_says_everything_about_the_change() -> None:
    registry, table, row = MemoryRegistry(), bench_orders(), bench_row()
    ours: EventEncoderSeam = encoder(registry)
    ours.begin(770, LSN, COMMITTED_US)
    begin, record = ours.changes([change(table, "u", 7, LSN + 5, before=row, after=row)])
    decoded = value_of(registry, record)
    assert begin.topic == "shop.transaction"
    assert record.topic == "shop.public.bench_orders"
    assert record.key is not None
    assert by_registry(registry, record.key) == {"id": 1}
    assert record.partition == record.key[-1] % 4
    assert list(decoded) == [
        "before",
        "after",
        "source",
        "transaction",
        "op",
        "ts_ms",
        "ts_us",
        "ts_ns",
    ]
    assert decoded["before"] == decoded["after"]
    assert decoded["after"]["created_at"] == "2026-01-01T00:00:03.000369Z"
    assert decoded["source"] == {
        "version": "9.9",
        "connector": "postgresql",
        "name": "shop",
        "ts_ms": COMMITTED_US // 1000,
        "snapshot": "false",
        "db": "bench",
        "sequence": f'[null,"{LSN + 5}"]',
        "ts_us": COMMITTED_US,
        "ts_ns": COMMITTED_US * 1000,
        "schema": "public",
        "table": "bench_orders",
        "txId": 770,
        "lsn": LSN + 5,
        "xmin": None,
        "origin": None,
        "origin_lsn": None,
        "generation": 3,
    }
    assert decoded["transaction"] == {
        "id": f"770:{LSN}",
        "total_order": 7,
        "data_collection_order": 1,
    }
    assert decoded["op"] == "u"
    assert (decoded["ts_ms"], decoded["ts_us"]) == (NOW_NS // 1_000_000, NOW_NS // 1000)
    assert decoded["ts_ns"] == NOW_NS
    assert record.headers == ()


def test_the_sequence_names_the_commit_before_and_fences_do_not_count_as_one() -> None:
    registry, table, row = MemoryRegistry(), bench_orders(), bench_row()
    ours = encoder(registry)
    for xid, commit in ((770, LSN), (0, LSN + 99), (771, LSN + 200)):
        ours.begin(xid, commit, COMMITTED_US)
        *_, last = ours.changes([change(table, "c", 1, commit, after=row)])
        ours.end()
    assert json.loads(value_of(registry, last)["source"]["sequence"]) == [
        str(LSN),
        str(LSN + 200),
    ]


@pytest.mark.parametrize(
    "lsn", [0, 1, 63, 8191, 8192, 9999, 10_000, 10_001, 2**14 - 1, 2**31, 2**62]
)
def test_every_lsn_is_written_as_it_is(lsn: int) -> None:
    registry, table, row = MemoryRegistry(), bench_orders(), bench_row()
    ours = encoder(registry)
    ours.begin(5, 2**62, COMMITTED_US)
    records = ours.changes(
        [change(table, "c", n + 1, at, after=row) for n, at in enumerate((LSN, lsn, lsn + 1, LSN))]
    )[1:]
    sources = [value_of(registry, record)["source"] for record in records]
    assert [source["lsn"] for source in sources] == [LSN, lsn, lsn + 1, LSN]
    assert [json.loads(source["sequence"])[1] for source in sources] == [
        str(source["lsn"]) for source in sources
    ]


def test_orders_past_the_ready_made_numbers_are_whole() -> None:
    registry, table, row = MemoryRegistry(), bench_orders(), bench_row()
    ours = encoder(registry)
    ours.begin(5, LSN, COMMITTED_US)
    records = ours.changes([change(table, "c", 2 * n + 1, after=row) for n in range(9000)])[1:]
    blocks = [value_of(registry, record)["transaction"] for record in records[8185:]]
    assert [block["total_order"] for block in blocks] == [2 * n + 1 for n in range(8185, 9000)]
    assert [block["data_collection_order"] for block in blocks] == list(range(8186, 9001))


def test_a_delete_is_followed_by_its_tombstone_and_not_when_they_are_off() -> None:
    registry, table, row = MemoryRegistry(), bench_orders(), bench_row()
    for tombstones, expected in ((True, 2), (False, 1)):
        ours = encoder(registry, tombstones=tombstones)
        ours.begin(5, LSN, COMMITTED_US)
        records = ours.changes([change(table, "d", 1, before=row)])[1:]
        assert len(records) == expected
        assert value_of(registry, records[0])["after"] is None
        if tombstones:
            assert records[1] == Record(
                records[0].topic, records[0].partition, records[0].key, None
            )


def test_begin_and_end_carry_the_counts_of_what_was_sent() -> None:
    registry, orders, row = MemoryRegistry(), bench_orders(), bench_row()
    others = bench_orders("others")
    ours = encoder(registry)
    ours.begin(770, LSN, COMMITTED_US)
    records = ours.changes(
        [
            change(orders, "c", 1, after=row),
            change(others, "c", 2, after=row),
            change(orders, "d", 4, before=row),
        ]
    )
    records += ours.message(Message("p", b"x", LSN, transactional=True, total_order=5))
    records += ours.changes([change(orders, "c", 6, after=row)])
    records += ours.truncate(Truncate(others, LSN, 7))
    end = ours.end()
    begins = [r for r in records if r.topic == "shop.transaction"]
    assert [value_of(registry, r) for r in begins] == [
        {
            "status": "BEGIN",
            "id": f"770:{LSN}",
            "event_count": None,
            "data_collections": None,
            "ts_ms": COMMITTED_US // 1000,
        }
    ]
    assert records[0] is begins[0]
    assert end[0].partition == 0
    assert end[0].key == begins[0].key
    assert value_of(registry, end[0]) == {
        "status": "END",
        "id": f"770:{LSN}",
        "event_count": 5,
        "data_collections": [
            {"data_collection": "public.bench_orders", "event_count": 3},
            {"data_collection": "public.others", "event_count": 2},
        ],
        "ts_ms": COMMITTED_US // 1000,
    }
    orders_of = [
        value_of(registry, r)["transaction"]["data_collection_order"]
        for r in records
        if r.topic == "shop.public.bench_orders" and r.value
    ]
    assert orders_of == [1, 2, 3]


def test_a_transaction_that_sent_nothing_leaves_no_mark() -> None:
    ours = encoder(MemoryRegistry())
    ours.begin(770, LSN, COMMITTED_US)
    assert ours.changes([]) == []
    ours.message(Message("p", b"x", LSN, transactional=True))
    assert ours.end() == []


def test_a_row_schema_that_changes_within_a_transaction_goes_on_counting() -> None:
    registry, row = MemoryRegistry(), bench_row()
    before = bench_orders()
    wider = Table(
        before.id, (*BENCH_COLUMNS, Column("x", "int", nullable=True)), ("id",), "default"
    )
    ours = encoder(registry)
    ours.begin(770, LSN, COMMITTED_US)
    records = ours.changes(
        [change(before, "c", 1, after=row), change(wider, "c", 2, after=row + b"\x00")]
    )[1:]
    assert [value_of(registry, r)["transaction"]["data_collection_order"] for r in records] == [
        1,
        2,
    ]
    assert value_of(registry, ours.end()[0])["event_count"] == 2


def test_a_truncate_goes_to_every_partition_under_one_position() -> None:
    registry, table = MemoryRegistry(), bench_orders()
    ours = encoder(registry)
    ours.begin(770, LSN, COMMITTED_US)
    records = ours.truncate(Truncate(table, LSN + 8, 3))[1:]
    assert [r.partition for r in records] == [0, 1, 2, 3]
    assert len({r.value for r in records}) == 1
    assert records[0].key is None
    decoded = value_of(registry, records[0])
    assert (decoded["op"], decoded["before"], decoded["after"]) == ("t", None, None)
    assert decoded["transaction"]["total_order"] == 3
    assert value_of(registry, ours.end()[0])["event_count"] == 1


def test_headers_stand_only_where_they_say_something() -> None:
    registry, table, row = MemoryRegistry(), bench_orders(), bench_row()
    ours = encoder(registry)
    ours.begin(770, LSN, COMMITTED_US)
    plain, unchanged, deleted, tombstone, created = ours.changes(
        [
            change(table, "u", 1, after=row),
            change(table, "u", 3, after=row, unchanged=("note", "päyload")),
            change(table, "d", 5, before=row, other_key=b"\x50"),
            change(table, "c", 6, key=b"\x50", after=row, other_key=b"\x02"),
        ]
    )[1:]
    assert plain.headers == ()
    assert unchanged.headers == (("cdc.unchanged", '["note", "päyload"]'.encode()),)
    assert created.key is not None
    assert deleted.headers == (("__debezium.newkey", created.key),) == tombstone.headers
    assert created.headers == (("__debezium.oldkey", deleted.key),)


def test_a_fences_rows_say_that_they_are_no_transaction() -> None:
    registry, table, row = MemoryRegistry(), bench_orders(), bench_row()
    ours = encoder(registry)
    ours.begin(0, LSN - 1, COMMITTED_US, snapshot="incremental")
    record = ours.changes([change(table, "r", 1, LSN, after=row)])[1]
    decoded = value_of(registry, record)
    assert decoded["source"]["snapshot"] == "incremental"
    assert decoded["source"]["txId"] is None
    assert decoded["transaction"]["id"] == f"0:{LSN - 1}"


def test_a_message_has_debeziums_form_and_its_own_prefix_as_key() -> None:
    registry = MemoryRegistry()
    ours = encoder(registry)
    (record,) = ours.message(Message("audit", b"\x00\xff", LSN, transactional=False))
    assert record.topic == "shop.message"
    assert record.key is not None
    assert by_registry(registry, record.key) == {"prefix": "audit"}
    decoded = value_of(registry, record)
    assert list(decoded) == ["op", "ts_ms", "source", "message"]
    assert decoded["op"] == "m"
    assert decoded["message"] == {"prefix": "audit", "content": b"\x00\xff"}
    assert decoded["source"]["lsn"] == LSN
    assert decoded["source"]["txId"] is None


@pytest.mark.parametrize("table", [None, TableId("public", "bench_orders")])
def test_a_watermark_comes_back_as_it_went(table: TableId | None) -> None:
    registry = MemoryRegistry()
    sent = Watermark(
        "f1", "backfill", table, 3, LSN, {("shop.public.t", 0): 7, ("t", 1): 0}, "", "chunk", 12
    )
    record = encoder(registry).watermark(sent)
    assert (record.topic, record.partition) == ("shop.watermark", 0)
    assert decoder(registry).watermark(record) == sent


def test_the_final_fence_of_a_table_without_rows_brings_its_row_schema() -> None:
    registry, table, row = MemoryRegistry(), bench_orders(), bench_row()
    sent = Watermark("f", "backfill", table.id, 1, LSN, {}, phase="final", shape=table)
    ours, theirs = encoder(registry), decoder(registry)
    found = theirs.watermark(ours.watermark(sent)).shape
    assert found is not None
    assert found.same_shape(table)
    ours.begin(770, LSN, COMMITTED_US)
    records = ours.changes([change(table, "c", 1, after=row)])
    (delivered,) = theirs.data(records[1:])
    assert isinstance(delivered, Delivered)
    assert delivered.table is found
    (emptied,) = theirs.data(ours.truncate(Truncate(table, LSN, 2))[:1])
    assert isinstance(emptied, Delivered)
    assert emptied.table is found


def test_a_watermark_of_an_earlier_version_is_read() -> None:
    registry = MemoryRegistry()
    schema = packaged_schema("watermark")
    schema["fields"] = [f for f in schema["fields"] if not f["name"].endswith("_schema")]
    old = io.BytesIO()
    fastavro.schemaless_writer(
        old,
        fastavro.parse_schema(schema),
        {"fence": "f", "kind": "mark", "table": None, "generation": 1, "lsn": LSN, "ends": []},
    )
    id_ = registry.register("shop.watermark-value", schema_text(schema))
    record = Record("shop.watermark", 0, None, frame(id_) + old.getvalue())
    assert decoder(registry).watermark(record) == Watermark("f", "mark", None, 1, LSN, {})


def test_what_could_not_be_sent_is_not_counted() -> None:
    registry, table, row = MemoryRegistry(), bench_orders(), bench_row()
    late = bench_orders("late")
    ours = encoder(registry)
    ours.begin(770, LSN, COMMITTED_US)
    ours.changes([change(table, "c", 1, after=row)])
    both = [change(table, "c", 2, after=row), change(late, "c", 3, after=row)]
    registry.away = True
    with pytest.raises(Unreachable):
        ours.changes(both)
    registry.away = False
    assert len(ours.changes(both)) == 2
    assert value_of(registry, ours.end()[0])["event_count"] == 3


def test_two_tables_never_share_a_topic() -> None:
    ours = encoder(MemoryRegistry())
    ours.begin(770, LSN, COMMITTED_US)
    row = bench_row()
    ours.changes([change(bench_orders("a b"), "c", 1, after=row)])
    with pytest.raises(Refused, match="share the topic"):
        ours.changes([change(bench_orders("a$b"), "c", 2, after=row)])


def test_a_table_without_key_has_null_keys_and_no_tombstones() -> None:
    registry = MemoryRegistry()
    table = Table(TableId("public", "log"), (Column("line", "string", nullable=True),), (), "full")
    row = written(value_record(table), {"line": "x"})
    ours = encoder(registry)
    ours.begin(770, LSN, COMMITTED_US)
    (record,) = ours.changes([change(table, "d", 1, key=None, before=row)])[1:]
    assert record.key is None
    assert "shop.public.log-key" not in registry.subjects
