"""Net changes as rows: of a staging table (their kind, then their columns), of the target itself, or as parameters."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from cdc.table import Table
from connectors.postgres.net_changes import NetChanges, Pieces, Row, State, Value
from connectors.postgres.statements import DELETE, EXPECTED, UPDATE, UPSERT
from connectors.postgres.tuples import HEADER, TRAILER, TupleTranscoder

_CHUNK_BYTES = 256 * 1024
"""Of rows that are joined before they are handed to libpq, however large a batch is: each time that is done the
interpreter's lock is given away and has to be waited for."""

_NULL = b"\xff\xff\xff\xff"
_size = struct.Struct(">i").pack


@dataclass(slots=True)
class Staged:
    """What was laid out: the kind of each row, and the kind of each group of updates by the columns it lacks."""

    kinds: list[int] = field(default_factory=list)
    groups: dict[frozenset[int], int] = field(default_factory=dict)

    def kind(self, state: State) -> int:
        """The kind of a row with this state."""
        if state is None:
            return DELETE
        if isinstance(state, Pieces) and state.missing:
            return self.groups.setdefault(state.missing, UPDATE + 2 * len(self.groups))
        return UPSERT

    def tally(self) -> Iterator[tuple[int, int]]:
        """Each kind that occurs, in the order to apply them, and how many of its rows are expected."""
        counts = Counter(self.kinds)
        for kind in sorted({kind & ~EXPECTED for kind in counts}):
            yield kind, counts[kind + EXPECTED]

    def lacking(self, kind: int) -> frozenset[int]:
        """The columns, by position, that rows of a kind lack."""
        return next((lacks for lacks, number in self.groups.items() if number == kind), frozenset())


class StagedRows:
    """Lays out the changes of one row schema."""

    def __init__(self, table: Table, transcoder: TupleTranscoder) -> None:
        self._transcoder = transcoder
        self._width = len(table.columns)
        positions = {column.name: at for at, column in enumerate(table.columns)}
        self._key_at = [positions[name] for name in table.key]
        self._key_leads = self._key_at == list(range(len(self._key_at)))
        self._rest = _NULL * (self._width - len(self._key_at))

    def copy(self, changes: NetChanges, staged: Staged, *, fresh: bool) -> Iterator[bytes]:
        """A COPY BINARY stream for the staging table, made while it is sent; with the fresh rows, or without."""
        headed = self._transcoder.headed
        expected = changes.expected
        upsert, upsert_expected = self._head(UPSERT), self._head(UPSERT + EXPECTED)
        parts = [HEADER]
        size = 0
        for key, state in _states(changes, fresh=fresh):
            if type(state) is bytes:
                if key in expected:
                    staged.kinds.append(UPSERT + EXPECTED)
                    parts.append(headed(upsert_expected, state))
                else:
                    staged.kinds.append(UPSERT)
                    parts.append(headed(upsert, state))
            else:
                kind = staged.kind(state) + (key in expected)
                staged.kinds.append(kind)
                parts.append(self._head(kind) + self._fields(key, state))
            size += len(parts[-1])
            if size >= _CHUNK_BYTES:
                yield b"".join(parts)
                parts.clear()
                size = 0
        parts.append(TRAILER)
        yield b"".join(parts)

    def copy_fresh(self, changes: NetChanges) -> Iterator[bytes]:
        """A COPY BINARY stream of the fresh rows for the target."""
        yield HEADER
        chunk: list[bytes] = []
        size = 0
        for row in changes.fresh.values():
            if type(row) is bytes:
                chunk.append(row)
                size += len(row)
            else:
                yield self._transcoder.tuples(chunk) + self._pieced(row)
                chunk.clear()
                size = 0
            if size >= _CHUNK_BYTES:
                yield self._transcoder.tuples(chunk)
                chunk.clear()
                size = 0
        yield self._transcoder.tuples(chunk) + TRAILER

    def parameters(
        self, changes: NetChanges, staged: Staged, rows: int, *, fresh: bool
    ) -> list[Value]:
        """The same as for the staging table as one flat list, filled up with empty rows to the number of ``rows``."""
        values: list[Value] = []
        for key, state in _states(changes, fresh=fresh):
            kind = staged.kind(state) + (key in changes.expected)
            staged.kinds.append(kind)
            values.append(kind.to_bytes(2, "big"))
            if state is None:
                values += self._scattered(key)
            elif isinstance(state, Pieces):
                values += state.values
            else:
                values += self._transcoder.columns_of(state)
        values += [None] * ((rows - len(staged.kinds)) * (self._width + 1))
        return values

    def _pieced(self, row: Row) -> bytes:
        return self._width.to_bytes(2, "big") + self._fields(b"", row)

    def _fields(self, key: bytes, state: State) -> bytes:
        """The columns of a row that is no Avro record: pieces of one, or a deleted one's key."""
        if isinstance(state, Pieces):
            return b"".join(map(_sized, state.values))
        return self._deleted(key)

    def _head(self, kind: int) -> bytes:
        return struct.pack(">hih", self._width + 1, 2, kind)

    def _deleted(self, key: bytes) -> bytes:
        """The columns of a row of which only the key is known."""
        if self._key_leads:
            return self._transcoder.key_tuple(key)[2:] + self._rest
        return b"".join(map(_sized, self._scattered(key)))

    def _scattered(self, key: bytes) -> list[Value]:
        row: list[Value] = [None] * self._width
        for at, value in zip(self._key_at, self._transcoder.key_columns_of(key), strict=True):
            row[at] = value
        return row


def _states(changes: NetChanges, *, fresh: bool) -> Iterable[tuple[bytes, State]]:
    states = changes.states.items()
    return chain(changes.fresh.items(), states) if fresh else states


def _sized(value: Value) -> bytes:
    return _NULL if value is None else _size(len(value)) + value
