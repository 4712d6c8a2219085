"""The compiled way from records to events, held to the Python way: the same event, or the same refusal."""

from __future__ import annotations

import json
import random
import secrets
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdc.avro.decoder import EventDecoder
from cdc.avro.envelope_steps import native
from cdc.avro.framing import frame
from cdc.errors import Rejected
from cdc.event import Change, Delivered, Record
from cdc.testing.registry import MemoryRegistry
from tests.unit.avro_bench import (
    COMMITTED_US,
    LSN,
    bench_orders,
    bench_row,
    by_registry,
    encoder,
    written,
)
from tests.unit.avro_random import TableWithRows, tables_with_rows

pytestmark = pytest.mark.skipif(native is None, reason="there is no compiled form")

slow = settings(
    deadline=None, database=None, max_examples=60, suppress_health_check=list(HealthCheck)
)


def both(registry: MemoryRegistry) -> tuple[EventDecoder, EventDecoder]:
    return (
        EventDecoder(prefix="shop", registry=registry),
        EventDecoder(prefix="shop", registry=registry, compiled=False),
    )


def comparable(answer: Delivered | Rejected | None) -> object:
    if isinstance(answer, Delivered):
        table = answer.table
        return answer._replace(table=(table.id, table.columns, table.key, table.identity))  # type: ignore[arg-type]
    return (answer.what, answer.remedy) if isinstance(answer, Rejected) else None


def agree(compiled: EventDecoder, plain: EventDecoder, records: list[Record]) -> list[object]:
    found = [comparable(answer) for answer in compiled.data(records)]
    assert found == [comparable(answer) for answer in plain.data(records)]
    return found


def data_records(
    registry: MemoryRegistry, changes: list[Change], xid: int, lsn: int
) -> list[Record]:
    ours = encoder(registry)
    ours.begin(xid, lsn, COMMITTED_US)
    records = [*ours.changes(changes), *ours.end()]
    return [record for record in records if record.topic != "shop.transaction"]


@slow
@given(tables_with_rows(), st.data())
def test_any_table_gives_the_same_events(made: TableWithRows, data: st.DataObject) -> None:
    registry = MemoryRegistry()
    keyless = data.draw(st.booleans())
    changes = []
    for order, (row, key) in enumerate(zip(made.rows, made.keys, strict=True), 1):
        op: Any = data.draw(st.sampled_from("rcud"))
        before = row if op == "d" or data.draw(st.booleans()) else None
        after = None if op == "d" else row
        changes.append(Change(made.table, op, LSN, order, None if keyless else key, before, after))
    xid, lsn = data.draw(st.integers(1, 2**32 - 1)), data.draw(st.integers(1, 2**63 - 1))
    agree(*both(registry), data_records(registry, changes, xid, lsn))


def test_torn_records_are_refused_in_the_same_words() -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    by = random.Random(seed)
    registry = MemoryRegistry()
    table, row = bench_orders(), bench_row()
    whole = data_records(
        registry,
        [
            Change(table, "c", LSN, 1, b"\x02", None, row),
            Change(table, "u", LSN, 2, b"\x02", row, bench_row(note=None)),
            Change(table, "d", LSN, 4, b"\x02", row, None),
        ],
        770,
        LSN,
    )
    compiled, plain = both(registry)
    expected = agree(compiled, plain, whole)
    rejected = 0
    for _ in range(4000):
        record = by.choice([record for record in whole if record.value is not None])
        value, key = bytearray(record.value or b""), bytearray(record.key or b"")
        torn = by.choice((value, value, key))
        at = by.randrange(len(torn))
        match by.randrange(4):
            case 0:
                del torn[at:]
            case 1:
                torn[at] ^= 1 << by.randrange(8)
            case 2:
                torn[at : at + 3] = by.randbytes(by.randrange(6))
            case _:
                torn += by.randbytes(2)
        broken = record._replace(value=bytes(value), key=bytes(key))
        first, *others = agree(compiled, plain, [broken, *whole])
        assert others == expected
        rejected += isinstance(first, tuple) and not isinstance(first, Delivered)
    assert rejected > 1000


def test_a_row_whose_unions_have_null_last_gets_the_tags_that_a_table_says() -> None:
    registry = MemoryRegistry()
    table = bench_orders()
    record = data_records(
        registry,
        [Change(table, "u", LSN, 1, b"\x02", bench_row(note=None), bench_row(status=None))],
        7,
        LSN,
    )[0]
    assert record.value is not None
    schema = json.loads(registry.schema(int.from_bytes(record.value[1:5], "big")))
    row = next(branch for branch in schema["fields"][0]["type"] if isinstance(branch, dict))
    for field in row["fields"][::2]:
        if isinstance(field["type"], list):
            field["type"].reverse()
            field.pop("default", None)
    schema_id = registry.register("other-value", json.dumps(schema))
    value = frame(schema_id) + written(
        fastavro.parse_schema(schema), by_registry(registry, record.value)
    )
    compiled, plain = both(registry)
    turned, _ = agree(compiled, plain, [record._replace(value=value)] * 2)
    (as_ever,) = agree(compiled, plain, [record])
    assert isinstance(turned, Delivered)
    assert isinstance(as_ever, Delivered)
    assert (turned.before, turned.after) == (as_ever.before, as_ever.after)


def test_plain_records_do_not_take_the_python_road(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = MemoryRegistry()
    table = bench_orders()
    records = data_records(
        registry,
        [Change(table, "c", LSN, n, b"\x02", None, bench_row()) for n in range(1, 9)],
        7,
        LSN,
    )
    compiled, _ = both(registry)
    compiled.data(records[:1])
    asked: list[Record] = []

    def by_python(_decoder: EventDecoder, given: list[Record]) -> list[None]:
        asked.extend(given)
        return [None] * len(given)

    monkeypatch.setattr(EventDecoder, "_by_python", by_python)
    assert all(isinstance(event, Delivered) for event in compiled.data(records))
    assert not asked


@pytest.mark.parametrize(
    "steps", [(99,), (-1,), (3,), (4, 2, 1), (4, 2, 5, 0, 0), (5, 3, 0), (4, 1 << 30), (2**40,)]
)
def test_steps_that_lead_outside_are_refused(steps: tuple[int, ...]) -> None:
    assert native is not None
    with pytest.raises(ValueError, match="outside"):
        native.Program(None, steps)
