"""The compiled envelopes are Python's, byte for byte."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.avro import envelopes as python
from cdc.avro.envelopes import Shared, headers_of, native
from cdc.event import Change, Record
from tests.unit.avro_bench import bench_orders

pytestmark = pytest.mark.skipif(native is None, reason="there is no compiler here")

_TABLES: Final = (bench_orders(), bench_orders("other"))
_BYTES: Final = st.one_of(st.none(), st.binary(max_size=40), st.just(bytes(5000)))
_LSN: Final = st.one_of(st.integers(0, 20_000), st.integers(0, (1 << 63) - 1))
_CHANGES: Final = st.lists(
    st.builds(
        Change,
        st.sampled_from(_TABLES),
        st.sampled_from("rcud"),
        _LSN,
        st.one_of(st.integers(1, 20_000), st.integers(1, (1 << 62))),
        _BYTES,
        _BYTES,
        _BYTES,
        st.sampled_from([(), (), ("payload",), ("a", "b")]),
        st.one_of(st.none(), st.none(), st.binary(max_size=5)),
    ),
    min_size=1,
    max_size=8,
)


def _partition(topic: str, key: bytes | None) -> int:
    return 0 if key is None else sum(key) % (3 + len(topic) % 2)


def _shared(*, tombstones: bool) -> Shared:
    parts = (b"key", b"only before", b"only after", b"neither")
    around = (b"head", b"sequence", b'"]between', b"tail", b"written at")
    return Shared(Record, "topic", _partition, headers_of, *parts, *around, tombstones)


@settings(max_examples=300, deadline=None)
@given(_CHANGES, st.booleans(), st.integers(0, 20_000))
def test_records_are_the_same(changes: list[Change], tombstones: bool, sent: int) -> None:
    assert native is not None
    shared = _shared(tombstones=tombstones)
    at = 0
    while at < len(changes):
        reference: list[Record] = []
        compiled: list[Record] = []
        found = python.envelopes(changes, at, reference, shared, sent)
        assert native.envelopes(changes, at, compiled, shared, sent) == found
        assert compiled == reference
        assert all(type(record) is Record for record in compiled)
        at, sent = found


@pytest.mark.parametrize(
    "change",
    [
        (bench_orders(), "c", 1, 1, "text", None, b"", (), None),
        (bench_orders(), "c", 1, 1, b"", None, b"", None, None),
        (bench_orders(), "c", -1, 1, b"", None, b"", (), None),
        (bench_orders(), "cc", 1, 1, b"", None, b"", (), None),
        (bench_orders(), "c", 1),
        None,
    ],
)
def test_what_is_no_change_is_an_error(change: Any) -> None:
    assert native is not None
    with pytest.raises((TypeError, ValueError, OverflowError)):
        native.envelopes([change], 0, [], _shared(tombstones=True), 0)


def test_an_error_of_the_partition_function_passes_through() -> None:
    def fails(_topic: str, _key: bytes | None) -> int:
        raise KeyError("no such topic")

    assert native is not None
    shared = _shared(tombstones=True)._replace(partition=fails)
    change = Change(_TABLES[0], "c", 1, 1, b"", None, b"")
    with pytest.raises(KeyError, match="no such topic"):
        native.envelopes([change], 0, [], shared, 0)
