"""How keys are laid out.

    <prefix>:<schema.table>:<key>             a hash, one field for each column that is not NULL
    cdc:deleted:<prefix>:<schema.table>:<key> the position at which that row was deleted; expires
    cdc:truncated:<prefix>:<schema.table>     the position below which no row of the table counts
    cdc:<sink>:<source>:<topic>/<partition>   a hash: how far the partition is, and whose it is
    cdc:<sink>:<source>:<topic>/<partition>:withheld   keys whose whole row is awaited, with offsets
    cdc:<sink>:<source>:partitions, :tables   which partitions there are; the state of each table

The columns of a key of several stand in key order, with colons between them. In every part ``%``, ``:`` and control
characters are written as ``%XX``, so that two different rows never share a key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from cdc.position import Position, TopicPartition

_ESCAPED = re.compile(rb"[%:\x00-\x20\x7f]")
_GLOB = re.compile(rb"[*?\[\]\\^]")


class RowKeys(NamedTuple):
    """Where a row stands, and where its deletion is remembered."""

    row: bytes
    deleted: bytes


def escaped(part: bytes) -> bytes:
    """A part of a key that is none of its separators."""
    return _ESCAPED.sub(lambda found: b"%%%02X" % ord(found[0]), part)


def table_key(prefix: str, collection: str) -> bytes:
    """What the keys of a table's rows begin with."""
    return escaped(prefix.encode()) + b":" + escaped(collection.encode())


def row_keys(table: bytes, key: Iterable[bytes]) -> RowKeys:
    """The keys of a row, by the values of its key columns in key order."""
    row = table + b":" + b":".join(escaped(part) for part in key)
    return RowKeys(row, b"cdc:deleted:" + row)


def truncated_key(table: bytes) -> bytes:
    """Where the position of the newest TRUNCATE stands."""
    return b"cdc:truncated:" + table


def rows_pattern(table: bytes) -> bytes:
    """A pattern that matches the keys of all rows of a table, and of nothing else."""
    return _GLOB.sub(lambda found: b"\\" + found[0], table) + b":*"


class SinkKeys:
    """The keys of what is remembered of one sink and its source."""

    def __init__(self, sink: str, source: str) -> None:
        self._base = b"cdc:" + escaped(sink.encode()) + b":" + escaped(source.encode())
        self.partitions = self._base + b":partitions"
        self.tables = self._base + b":tables"

    def state(self, at: TopicPartition) -> bytes:
        """The partition's state."""
        return self._base + b":" + name_of(at)

    def withheld(self, at: TopicPartition) -> bytes:
        """The keys that it withholds."""
        return self.state(at) + b":withheld"


def name_of(at: TopicPartition) -> bytes:
    """A partition's name among those of its sink."""
    return escaped(at.topic.encode()) + b"/%d" % at.partition


def partition_named(name: bytes) -> TopicPartition:
    """The partition with this name."""
    topic, _, number = name.rpartition(b"/")
    text = re.sub(rb"%([0-9A-F]{2})", lambda found: bytes.fromhex(found[1].decode()), topic)
    return TopicPartition(text.decode(), int(number))


def guard(position: Position, offset: int) -> bytes:
    """A position as digits of one length, which compare as text: Lua's numbers are exact below 2**53 only.

    Records without a position are ordered by their offset: that tells repeats of reading, not of writing.
    """
    generation, lsn, order = position if position.generation else (0, offset, 0)
    return b"%010d%020d%020d" % (generation, lsn, order)
