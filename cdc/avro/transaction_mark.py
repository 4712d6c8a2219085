"""BEGIN and END read directly, where their writer's schema is ours: at one-row transactions they are most records.

In line for what nearly all of them are; a call for each value, as in ``cdc.avro_binary``, costs as much as fastavro.
"""

from __future__ import annotations

import json

from cdc.avro.packaged import packaged_schema
from cdc.avro.walk import STEPS
from cdc.avro_binary import items_at, long_at, string_at

_BEGIN = b"\x0aBEGIN"
_END = b"\x06END"
_UNCOUNTED = b"\x00\x00"
_ONE_COLLECTION = b"\x02\x02"
_TORN = "not a mark of the writer's schema"


def is_our_mark(schema: str) -> bool:
    """Whether this text of a registered schema is the one that ``decode_mark`` reads by."""
    same: bool = json.loads(schema) == packaged_schema("transaction_value")
    return same


def decode_mark(data: bytes, at: int = 0) -> tuple[bool, str, list[tuple[str, int]], int]:
    """Whether it is END, the transaction's id, the count of each collection, and when it was committed (ms).

    What stands in ``data`` from ``at`` to their end, by ``schemas/transaction_value.avsc``. IndexError and ValueError
    when that is no such record, or one of another status.
    """
    if data.startswith(_BEGIN, at):
        ended = False
        at += 6
    elif data.startswith(_END, at):
        ended = True
        at += 4
    else:
        raise ValueError(_TORN)
    if step := STEPS[data[at]]:
        transaction_id = data[at + 1 : at + step].decode()
        at += step
    else:
        transaction_id, at = string_at(data, at)
    counts: list[tuple[str, int]] = []
    if data.startswith(_UNCOUNTED, at):
        at += 2
    else:
        at = _counts_at(data, at, counts)
    commit_ms, at = long_at(data, at)
    if at != len(data):
        raise ValueError(_TORN)
    return ended, transaction_id, counts, commit_ms


def _counts_at(data: bytes, at: int, counts: list[tuple[str, int]]) -> int:
    """Adds what the mark counts; where that ends."""
    if _is_present(data, at):
        _, at = long_at(data, at + 1)
    else:
        at += 1
    if not _is_present(data, at):
        return at + 1
    at += 1
    if data.startswith(_ONE_COLLECTION, at) and (step := STEPS[data[at + 2]]):
        collection = data[at + 3 : at + 2 + step].decode()
        count, at = long_at(data, at + 2 + step)
        counts.append((collection, count))
        if data[at] == 0:
            return at + 1
        # An array may go on in another block.
    collections, at = items_at(data, at, _collection_at)
    counts.extend(each for each in collections if each is not None)
    return at


def _is_present(data: bytes, at: int) -> bool:
    tag = data[at]
    if tag not in (0, 2):
        raise ValueError(_TORN)
    return tag == 2


def _collection_at(data: bytes, at: int) -> tuple[tuple[str, int] | None, int]:
    if not _is_present(data, at):
        return None, at + 1
    collection, at = string_at(data, at + 1)
    count, at = long_at(data, at)
    return (collection, count), at
