"""Envelopes put around rows: from a run of changes of one table to records.

A value is a concatenation of what a transaction's events share (`cdc.avro.source_bytes`), what those of a table share,
and what is each one's own. The compiled form does the same, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from cdc import accelerators
from cdc.avro.source_bytes import LOW_DIGITS
from cdc.avro_binary import HEADS, LONGS, SMALL, long_bytes
from cdc.event import Change, Record
from cdc.exact_row import ExactRow, exact_header

UNCHANGED_HEADER = "cdc.unchanged"
NEW_KEY_HEADER = "__debezium.newkey"
OLD_KEY_HEADER = "__debezium.oldkey"

Headers = tuple[tuple[str, bytes], ...]

native: Final = accelerators.load("cdc.avro._envelope")
"""The compiled form; None where only Python's runs."""


def headers_of(
    op: str,
    before: bytes | None,
    after: bytes | None,
    unchanged: tuple[str, ...],
    other_key: bytes | None,
    key_frame: bytes,
) -> Headers:
    """The headers of an event whose row is not whole or has texts beside it, or whose key changed."""
    headers = list(exact_header(before, after))
    if unchanged:
        headers.append((UNCHANGED_HEADER, json.dumps(unchanged, ensure_ascii=False).encode()))
    if other_key is not None:
        name = NEW_KEY_HEADER if op == "d" else OLD_KEY_HEADER
        headers.append((name, key_frame + other_key))
    return tuple(headers)


class Shared(NamedTuple):
    """What the events of one table in one transaction share; the compiled form reads it by place.

    ``partition`` gives the partition for the topic and a framed key. ``only_before``, ``only_after`` and ``neither`` are
    what stands in front of rows, ``head`` to ``written_at`` the parts around what differs behind them.
    """

    record: type[Record]
    topic: str
    partition: Callable[[str, bytes | None], int]
    headers: Callable[
        [str, bytes | None, bytes | None, tuple[str, ...], bytes | None, bytes], Headers
    ]
    key_frame: bytes
    only_before: bytes
    only_after: bytes
    neither: bytes
    head: bytes
    """``source`` up to ``sequence``."""
    sequence: bytes
    """``sequence`` up to the LSN in it."""
    between: bytes
    """From behind that up to the LSN's number."""
    tail: bytes
    """From behind that up to ``total_order``."""
    written_at: bytes
    """The envelope's times."""
    tombstones: bool


def envelopes(
    changes: Sequence[Change], at: int, records: list[Record], shared: Shared, sent: int
) -> tuple[int, int]:
    """Append the records of the changes from ``at`` on that are of the same table as the first of them.

    Where they end, and how many events the table has in its transaction then (``sent`` before).
    """
    (_, topic, partition_of, headers_for, key_frame, only_before, only_after, neither) = shared[:8]
    (head, sequence, between, tail, written_at, tombstones) = shared[8:]
    append = records.append
    join = b"".join
    new = tuple.__new__
    ends = {op: b"\x02" + op.encode() + written_at for op in "rcud"}
    table = changes[at].table
    digits_of = bits_of = -1
    before_digits = after_bits = b""
    for place in range(at, len(changes)):
        change = changes[place]
        of, op, lsn, total_order, key, before, after, unchanged, other_key = change
        if of is not table:
            return place, sent
        sent += 1
        framed_key = None if key is None else key_frame + key
        if before is None:
            rows = only_after + after if after is not None else neither
        elif after is None:
            rows = only_before + before + b"\x00"
        else:
            rows = only_before + before + b"\x02" + after
        if lsn < 10_000:  # no real log's is
            text = sequence + str(lsn).encode()
            before_digits = head + long_bytes(len(text) + 2) + text
            after_bits = long_bytes(lsn) + tail
            digits_of = bits_of = -1
            digits = bits = b""
        else:
            if lsn // 10_000 != digits_of:
                digits_of = lsn // 10_000
                text = sequence + str(digits_of).encode()
                before_digits = head + long_bytes(len(text) + 6) + text
            if lsn >> 13 != bits_of:
                bits_of = lsn >> 13
                after_bits = long_bytes(lsn)[2:] + tail
            digits = LOW_DIGITS[lsn % 10_000]
            bits = HEADS[lsn << 1 & 16383]
        value = join(
            (
                rows,
                before_digits,
                digits,
                between,
                bits,
                after_bits,
                LONGS[total_order] if total_order < SMALL else long_bytes(total_order),
                LONGS[sent] if sent < SMALL else long_bytes(sent),
                ends[op],
            )
        )
        partition = partition_of(topic, framed_key)
        headers: Headers = ()
        if (
            unchanged
            or other_key is not None
            or isinstance(after, ExactRow)
            or isinstance(before, ExactRow)
        ):
            headers = headers_for(op, before, after, unchanged, other_key, key_frame)
        append(new(Record, (topic, partition, framed_key, value, headers, -1)))
        if after is None and tombstones and framed_key is not None:
            append(new(Record, (topic, partition, framed_key, None, headers, -1)))
    return len(changes), sent
