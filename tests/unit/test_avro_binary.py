"""Avro's binary form against fastavro, which knows nothing of our tables."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cdc.avro_binary import (
    LONG_MAX,
    LONG_MIN,
    bytes_at,
    bytes_bytes,
    items_at,
    long_at,
    long_bytes,
    optional,
    raw_at,
    string_at,
    string_bytes,
)

_EDGES = [sign * (1 << bits) + by for bits in range(63) for by in (-1, 0, 1) for sign in (1, -1)]


def written(schema: str | dict[str, Any], value: object) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
    return out.getvalue()


@pytest.mark.parametrize("value", [*_EDGES, LONG_MIN, LONG_MAX])
def test_a_long_has_the_bytes_that_fastavro_writes_and_reads_back(value: int) -> None:
    made = long_bytes(value)
    assert made == written("long", value)
    # behind other bytes, and with and without bytes behind it: the reader looks ahead
    for tail in (b"", b"\xff", b"\xff" * 20, b"\x00" * 20):
        assert long_at(b"\x80" + made + tail, 1) == (value, 1 + len(made))


@given(st.integers(LONG_MIN, LONG_MAX), st.binary(max_size=12))
def test_any_long_comes_back(value: int, tail: bytes) -> None:
    assert long_bytes(value) == written("long", value)
    assert long_at(long_bytes(value) + tail, 0) == (value, len(long_bytes(value)))


@pytest.mark.parametrize("value", [LONG_MAX + 1, LONG_MIN - 1])
def test_a_number_of_more_than_64_bits_is_refused(value: int) -> None:
    with pytest.raises(OverflowError):
        long_bytes(value)
    with pytest.raises(ValueError, match="64 bits"):
        raw_at(b"\xff" * 9 + b"\x7f", 0)


@pytest.mark.parametrize("cut", [b"", b"\x80", b"\xff\xff\xff", b"\xff" * 9])
def test_a_cut_number_is_an_error(cut: bytes) -> None:
    with pytest.raises(IndexError):
        raw_at(cut, 0)


@given(st.text())
@example("☃" * 9000)
def test_a_string_has_the_bytes_that_fastavro_writes_and_reads_back(value: str) -> None:
    made = string_bytes(value)
    assert made == written("string", value)
    assert string_at(made + b"x", 0) == (value, len(made))


@given(st.lists(st.none() | st.binary()))
def test_optional_bytes_in_an_array_read_back(values: list[bytes | None]) -> None:
    encoded = written({"type": "array", "items": ["null", "bytes"]}, values)

    def item(data: bytes, at: int) -> tuple[bytes | None, int]:
        return bytes_at(data, at + 1) if data[at] else (None, at + 1)

    assert items_at(encoded + b"rest", 0, item) == (values, len(encoded))
    parts = [optional(None if value is None else bytes_bytes(value)) for value in values]
    ours = (long_bytes(len(values)) if values else b"") + b"".join(parts) + b"\x00"
    assert ours == encoded


def test_an_array_in_several_blocks_reads_as_one() -> None:
    # two items; then one in a block that says its size in bytes
    encoded = long_bytes(2) + b"\x02\x04" + long_bytes(-1) + long_bytes(1) + b"\x06" + b"\x00"
    assert items_at(encoded, 0, long_at) == ([1, 2, 3], len(encoded))


@pytest.mark.parametrize("torn", [b"\x08ab", b"\x01", b"\xff\xff\xff\xff\x0f"])
def test_a_length_that_passes_the_end_or_is_negative_is_an_error(torn: bytes) -> None:
    with pytest.raises(ValueError, match="passes the end"):
        bytes_at(torn, 0)
