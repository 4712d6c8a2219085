"""BEGIN and END read directly, where their writer's schema is ours: at one-row transactions they are most records."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from cdc.avro.packaged import packaged_schema
from cdc.avro.walk import torn
from cdc.avro_binary import items_at, long_at, string_at

_Value = TypeVar("_Value")


def is_our_mark(schema: str) -> bool:
    """Whether this text of a registered schema is the one that ``decode_mark`` reads by."""
    same: bool = json.loads(schema) == packaged_schema("transaction_value")
    return same


def decode_mark(data: bytes) -> dict[str, Any]:
    """What fastavro reads from all of ``data`` by ``schemas/transaction_value.avsc``.

    IndexError and ValueError when it is no such record.
    """
    status, at = string_at(data, 0)
    transaction_id, at = string_at(data, at)
    event_count, at = _optional_at(data, at, long_at)
    collections, at = _optional_at(data, at, _collections_at)
    ts_ms, at = long_at(data, at)
    if at != len(data):
        raise ValueError("bytes left over behind the record")
    return {
        "status": status,
        "id": transaction_id,
        "event_count": event_count,
        "data_collections": collections,
        "ts_ms": ts_ms,
    }


def _optional_at(
    data: bytes, at: int, read: Callable[[bytes, int], tuple[_Value, int]]
) -> tuple[_Value | None, int]:
    """A value of ``["null", T]``."""
    tag = data[at]
    if tag == 2:
        return read(data, at + 1)
    if tag:
        torn()
    return None, at + 1


def _collections_at(data: bytes, at: int) -> tuple[list[dict[str, Any] | None], int]:
    return items_at(data, at, _optional_collection_at)


def _optional_collection_at(data: bytes, at: int) -> tuple[dict[str, Any] | None, int]:
    return _optional_at(data, at, _collection_at)


def _collection_at(data: bytes, at: int) -> tuple[dict[str, Any], int]:
    collection, at = string_at(data, at)
    count, at = long_at(data, at)
    return {"data_collection": collection, "event_count": count}, at
