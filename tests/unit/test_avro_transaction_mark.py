"""BEGIN and END: what is read directly is what fastavro reads, and any other writer's schema still goes its way."""

from __future__ import annotations

import json
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.avro import decoder as decoder_module
from cdc.avro.framing import frame
from cdc.avro.packaged import packaged_schema
from cdc.avro.transaction_mark import decode_mark, is_our_mark
from cdc.errors import Rejected
from cdc.event import Record
from cdc.testing.registry import MemoryRegistry
from tests.unit.avro_bench import decoder, read_all, written

PARSED: Any = fastavro.parse_schema(packaged_schema("transaction_value"))
LONGS = st.integers(-(2**63), 2**63 - 1)
MARKS = st.fixed_dictionaries(
    {
        "status": st.sampled_from(["BEGIN", "END"]),
        "id": st.text(),
        "event_count": st.none() | LONGS,
        "data_collections": st.none()
        | st.lists(
            st.none() | st.fixed_dictionaries({"data_collection": st.text(), "event_count": LONGS}),
            max_size=4,
        ),
        "ts_ms": LONGS,
    }
)
quick = settings(deadline=None, database=None, max_examples=200)


def told(mark: dict[str, Any]) -> tuple[bool, str, list[tuple[str, int]], int]:
    collections = [each for each in mark["data_collections"] or () if each is not None]
    counts = [(each["data_collection"], each["event_count"]) for each in collections]
    return mark["status"] == "END", mark["id"], counts, mark["ts_ms"]


@quick
@given(MARKS)
def test_a_mark_is_read_as_fastavro_reads_it(mark: dict[str, Any]) -> None:
    data = written(PARSED, mark)
    assert decode_mark(data) == told(read_all(PARSED, data))
    assert decode_mark(b"frame" + data, 5) == told(mark)


@quick
@given(MARKS, st.data())
def test_a_mark_that_is_cut_or_has_more_behind_it_is_torn(
    mark: dict[str, Any], data: st.DataObject
) -> None:
    whole = written(PARSED, mark)
    for torn in (whole[: data.draw(st.integers(0, len(whole) - 1))], whole + b"\x00"):
        with pytest.raises((ValueError, IndexError)):
            decode_mark(torn)


def test_an_array_in_blocks_that_say_their_size_is_read_too() -> None:
    item = b"\x02\x04ab\x0e"
    data = b"\x06END\x063:4\x00\x02" + b"\x01" + bytes([2 * len(item)]) + item + b"\x00\x00"
    assert decode_mark(data) == told(read_all(PARSED, data)) == (True, "3:4", [("ab", 7)], 0)


def test_an_array_of_several_blocks_is_read_to_its_end() -> None:
    blocks = b"\x02\x02\x04ab\x0e" + b"\x04\x00\x02\x02c\x10" + b"\x00"
    data = b"\x06END\x063:4\x00\x02" + blocks + b"\x00"
    assert decode_mark(data) == told(read_all(PARSED, data))
    assert decode_mark(data)[2] == [("ab", 7), ("c", 8)]


def test_another_status_is_no_mark() -> None:
    mark = {"status": "ABORT", "id": "3:4", "event_count": None, "data_collections": None}
    with pytest.raises(ValueError, match="not a mark"):
        decode_mark(written(PARSED, {**mark, "ts_ms": 0}))


def test_a_mark_of_another_schema_is_read_by_that_schema() -> None:
    schema = packaged_schema("transaction_value")
    schema["fields"] = list(reversed(schema["fields"]))
    text = json.dumps(schema)
    assert not is_our_mark(text)
    registry = MemoryRegistry()
    number = registry.register("shop.transaction-value", text)
    mark = {"status": "BEGIN", "id": "7:88", "event_count": None, "ts_ms": 5}
    value = frame(number) + written(
        fastavro.parse_schema(schema), {**mark, "data_collections": None}
    )
    read = decoder(registry).transaction(Record("shop.transaction", 0, None, value))
    assert (read.ended, read.xid, read.commit_lsn, read.commit_ms) == (False, 7, 88, 5)


def test_our_own_marks_go_the_direct_way(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = MemoryRegistry()
    number = registry.register(
        "shop.transaction-value", json.dumps(packaged_schema("transaction_value"), indent=1)
    )
    mark = {"status": "END", "id": "7:88", "event_count": 0, "data_collections": [], "ts_ms": 5}
    value = frame(number) + written(PARSED, mark)
    monkeypatch.delattr(decoder_module, "decode")
    assert decoder(registry).transaction(Record("shop.transaction", 0, None, value)).ended
    with pytest.raises(Rejected):
        decoder(registry).transaction(Record("shop.transaction", 0, None, value[:-1]))
