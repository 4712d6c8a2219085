"""Every record that Debezium wrote reads as what it says."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import Any

import fastavro
import pytest

from cdc.avro.decoder import EventDecoder
from cdc.event import Delivered
from cdc.position import Position, TransactionId
from cdc.table import TableId
from tests.golden.debezium import (
    PREFIX,
    Sample,
    data_samples,
    registry,
    subjects,
    transaction_samples,
)


def reader() -> EventDecoder:
    return EventDecoder(prefix=PREFIX, registry=registry())


def name_of(sample: Sample) -> str:
    return f"{sample.record.topic}@{sample.record.offset}"


def expected_position(value: Any) -> Position:
    lsn, block = value["source"]["lsn"], value["transaction"]
    if block is None:
        return Position(0, lsn, 0)
    last_commit = json.loads(value["source"]["sequence"])[0]
    return Position(0, lsn if last_commit is None else int(last_commit), block["total_order"])


def row_of(topic: str, row: bytes) -> Any:
    """The row read by the record ``Value`` that Debezium registered, alone."""
    envelope = subjects()[f"{topic}-value"]
    schema = fastavro.parse_schema({**envelope["fields"][0]["type"][1], "namespace": "row"})
    stream = io.BytesIO(row)
    value = fastavro.schemaless_reader(stream, schema, None)
    assert stream.tell() == len(row)
    return value


def printed(value: object) -> object:
    """A value in the form in which the samples hold it."""
    match value:
        case Decimal():
            return f"{value:f}"
        case bytes():
            return value
        case dict():
            return {name: printed(each) for name, each in value.items()}
        case list():
            return [printed(each) for each in value]
    return value


def told(value: Any, like: Any) -> Any:
    """A sample's value, its bytes taken from the text that JSON has for them."""
    if isinstance(like, bytes) and isinstance(value, str):
        return bytes.fromhex(value)
    if isinstance(like, bytes) and isinstance(value, dict):
        return bytes.fromhex(next(iter(value.values())))
    if isinstance(like, dict) and isinstance(value, dict):
        return {name: told(each, like.get(name)) for name, each in value.items()}
    return value


@pytest.mark.parametrize("sample", data_samples(), ids=name_of)
def test_an_event_reads_as_debezium_meant_it(sample: Sample) -> None:
    (event,) = reader().data([sample.record])
    if sample.value is None:
        assert event is None
        return
    assert isinstance(event, Delivered), event
    source = sample.value["source"]
    assert event.op == sample.value["op"]
    assert event.position == expected_position(sample.value)
    assert event.xid == source["txId"]
    assert event.table.id == TableId(source["schema"], source["table"])
    assert event.collection == f"{source['schema']}.{source['table']}"
    assert event.unchanged == ()
    for image, row in (("before", event.before), ("after", event.after)):
        said = sample.value[image]
        if said is None:
            assert row is None
        else:
            assert row is not None
            read = printed(row_of(sample.record.topic, row))
            assert read == told(said, read)
            assert list(reader().values(event.table, row)) == list(said)
    if sample.key is not None:
        assert event.key is not None
        assert event.table.key == tuple(sample.key)
        assert dict(reader().key_values(event.table, event.key)) == sample.key
    assert event.size == len(sample.record.key or b"") + len(sample.record.value or b"")


def test_all_events_in_one_batch_share_one_table_for_each_topic() -> None:
    events = reader().data([sample.record for sample in data_samples()])
    tables = {event.table for event in events if isinstance(event, Delivered)}
    assert len(tables) == 2


def test_positions_only_grow_within_a_topic() -> None:
    events = reader().data([sample.record for sample in data_samples()])
    for topic in {sample.record.topic for sample in data_samples()}:
        positions = [e.position for e in events if isinstance(e, Delivered) and e.topic == topic]
        assert positions == sorted(positions)


def test_a_changed_key_names_the_other_one_in_the_keys_own_bytes() -> None:
    events = reader().data([sample.record for sample in data_samples()])
    pairs = [
        (event.op, event.key, event.other_key)
        for event in events
        if isinstance(event, Delivered) and event.other_key is not None
    ]
    deletes = [(key, other) for op, key, other in pairs if op == "d"]
    creates = [(other, key) for op, key, other in pairs if op == "c"]
    assert deletes == creates != []


@pytest.mark.parametrize("sample", transaction_samples(), ids=name_of)
def test_a_transactions_mark_reads_as_debezium_meant_it(sample: Sample) -> None:
    mark = reader().transaction(sample.record)
    said = TransactionId.parse(sample.value["id"])
    assert mark.ended == (sample.value["status"] == "END")
    assert (mark.xid, mark.commit_lsn) == said
    assert mark.counts == tuple(
        (each["data_collection"], each["event_count"])
        for each in sample.value["data_collections"] or ()
    )


def with_value(sample: Sample, **changed: object) -> bytes:
    """The sample's value written anew with other columns in ``after``."""
    assert sample.record.value is not None
    schema = fastavro.parse_schema(subjects()[f"{sample.record.topic}-value"])
    value: Any = fastavro.schemaless_reader(io.BytesIO(sample.record.value[5:]), schema, None)
    value["after"] |= changed
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, value)
    return sample.record.value[:5] + out.getvalue()


def test_debeziums_placeholder_means_unchanged_in_every_form_it_has() -> None:
    text = "__debezium_unavailable_value"
    update = next(
        s for s in data_samples() if s.record.topic.endswith("type_zoo") and s.value["op"] == "u"
    )
    value = with_value(
        update, txt=text, bin=text.encode(), ints=list(text.encode()), texts=[text], vc=f"{text}!"
    )
    (event,) = reader().data([update.record._replace(value=value)])
    assert isinstance(event, Delivered), event
    assert event.unchanged == ("txt", "bin", "ints", "texts")


def test_a_changed_key_tells_the_columns_that_its_record_lacks() -> None:
    """Debezium puts its placeholder into the new row too; taken for a value, it would overwrite the replica's."""
    moved = next(
        sample.record
        for sample in data_samples()
        if sample.record.topic.endswith(".bench_orders")
        and any(name == "__debezium.oldkey" for name, _ in sample.record.headers)
    )
    assert moved.value is not None
    schema = fastavro.parse_schema(subjects()[f"{moved.topic}-value"])
    value: Any = fastavro.schemaless_reader(io.BytesIO(moved.value[5:]), schema, None)
    value["after"]["note"] = "__debezium_unavailable_value"
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, value)
    (event,) = reader().data([moved._replace(value=moved.value[:5] + out.getvalue())])
    assert isinstance(event, Delivered)
    assert event.op == "c"
    assert event.unchanged == ("note",)
