"""Torn bytes are answered, never raised: a verdict or an event for each record, whatever stands in it."""

from __future__ import annotations

import random
import secrets

import pytest

from cdc.avro.walk import walker
from cdc.avro.written_schema import self_contained
from cdc.errors import Rejected, Unreachable
from cdc.event import Change, Delivered, Record
from cdc.testing.registry import MemoryRegistry
from tests.unit.avro_bench import COMMITTED_US, LSN, bench_orders, bench_row, decoder, encoder

pytestmark = pytest.mark.usefixtures("both_forms")


def _torn(content: bytes, by: random.Random) -> bytes:
    torn = bytearray(content)
    match by.randrange(5):
        case 0:
            return content[: by.randrange(len(content))]
        case 1:
            return content + by.randbytes(by.randrange(1, 5))
        case 2:
            at = by.randrange(len(content))
            del torn[at : at + by.randrange(1, 9)]
        case 3:
            for _ in range(by.randrange(1, 4)):
                torn[by.randrange(len(torn))] ^= 1 << by.randrange(8)
        case _:
            at = by.randrange(len(torn))
            torn[at : at + 10] = by.randbytes(10)
    return bytes(torn)


def _records(registry: MemoryRegistry) -> list[Record]:
    table, row = bench_orders(), bench_row()
    ours = encoder(registry)
    ours.begin(770, LSN, COMMITTED_US)
    return [
        record
        for record in ours.changes(
            [
                Change(table, "c", LSN, 1, b"\x02", None, row),
                Change(table, "u", LSN, 2, b"\x02", row, row, ("note",)),
                Change(table, "d", LSN, 4, b"\x02", row, None, (), b"\x04"),
            ]
        )
        if record.value is not None and record.topic != "shop.transaction"
    ]


def test_no_torn_record_raises_and_the_next_one_reads_as_ever() -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    by = random.Random(seed)
    registry = MemoryRegistry()
    whole = _records(registry)
    reader = decoder(registry)
    expected = reader.data(whole)
    assert all(isinstance(event, Delivered) for event in expected)
    rejected = 0
    for _ in range(6000):
        record = by.choice(whole)
        assert record.value is not None
        assert record.key is not None
        part = by.randrange(3)
        torn = record._replace(
            value=_torn(record.value, by) if part == 0 else record.value,
            key=_torn(record.key, by) if part == 1 else record.key,
            headers=tuple((name, _torn(content, by)) for name, content in record.headers)
            if part == 2
            else record.headers,
        )
        (answer, *others) = reader.data([torn, *whole])
        assert isinstance(answer, Delivered | Rejected)
        rejected += isinstance(answer, Rejected)
        assert others == expected
    assert rejected > 1000


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x00",
        b"\x00\x00\x00\x00",
        b"\x01\x00\x00\x00\x01\x02",
        b"{}",
        b"\x00\x00\x00\x0f\xff.",
    ],
)
def test_what_is_not_framed_or_of_no_known_schema_is_rejected(value: bytes) -> None:
    (answer,) = decoder(MemoryRegistry()).data([Record("shop.public.t", 1, b"", value, (), 42)])
    assert isinstance(answer, Rejected)
    assert "record 42 of shop.public.t[1]" in answer.what


def test_trailing_bytes_and_truncation_are_rejected() -> None:
    registry = MemoryRegistry()
    record = _records(registry)[0]
    assert record.value is not None
    reader = decoder(registry)
    for _ in range(2):  # with the schemas new, and with the reader made
        for value in (record.value + b"\x00", record.value[:-1], record.value[:40]):
            assert isinstance(reader.data([record._replace(value=value)])[0], Rejected)
        assert isinstance(reader.data([record])[0], Delivered)


@pytest.mark.parametrize(
    ("avro", "content"),
    [
        ('"string"', b"\x03aa"),
        ('"string"', b"\xff\x7f" + b"a" * 99),
        ('"bytes"', b"\xfe\xff\xff\xff\x0f" + b"a" * 99),
        ('"boolean"', b"\x02"),
        ('["null", "int"]', b"\x04\x02"),
        ('["null", "int"]', b"\x01\x02"),
        ('"long"', b"\xff" * 12 + b"\x00"),
        ('{"type": "array", "items": "null"}', b"\xfe\xff\xff\xff\xff\x3f\x00"),
        ('{"type": "map", "values": "int"}', b"\x02\x01a\x02\x00"),
    ],
)
def test_no_walk_passes_what_no_writer_writes(avro: str, content: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        walker(self_contained(avro))(content, 0)


def test_a_registry_that_is_away_is_not_the_records_fault() -> None:
    registry = MemoryRegistry()
    records = _records(registry)
    reader = decoder(registry)
    registry.away = True
    with pytest.raises(Unreachable):
        reader.data(records)
    registry.away = False
    assert all(isinstance(event, Delivered) for event in reader.data(records))
    registry.away = True
    assert all(isinstance(event, Delivered) for event in reader.data(records))
