"""Net changes as rows of a staging table: their kind, then their columns, in COPY's binary format or as parameters."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from cdc.table import Table
from connectors.postgres.net_changes import NetChanges, Pieces, Value
from connectors.postgres.statements import DELETE, EXPECTED, UPDATE, UPSERT
from connectors.postgres.tuples import HEADER, TRAILER, TupleTranscoder

Groups = Mapping[frozenset[int], int]
"""The kind of each group of updates, by the positions of the columns that it does not carry."""

_CHUNK_ROWS = 256
"""Rows that are joined before they are handed to libpq: tens of kilobytes, however large a batch is."""

_NULL = b"\xff\xff\xff\xff"
_size = struct.Struct(">i").pack


class StagedRows:
    """Lays out the changes of one row schema."""

    def __init__(self, table: Table, transcoder: TupleTranscoder) -> None:
        self._transcoder = transcoder
        self._width = len(table.columns)
        positions = {column.name: at for at, column in enumerate(table.columns)}
        self._key_at = [positions[name] for name in table.key]
        self._key_leads = self._key_at == list(range(len(self._key_at)))
        self._rest = _NULL * (self._width - len(self._key_at))

    def groups(self, changes: NetChanges) -> dict[frozenset[int], int]:
        """A kind for each set of columns that updates lack."""
        lacking = {
            state.missing: None
            for state in changes.states.values()
            if isinstance(state, Pieces) and state.missing
        }
        return {missing: UPDATE + 2 * at for at, missing in enumerate(lacking)}

    def tally(self, changes: NetChanges, groups: Groups) -> dict[int, tuple[int, int]]:
        """For each kind that occurs, in order, how many rows there are and how many of them are expected."""
        counts: dict[int, tuple[int, int]] = {}
        for key, state in changes.states.items():
            kind = _kind(state, groups)
            rows, expected = counts.get(kind, (0, 0))
            counts[kind] = (rows + 1, expected + (key in changes.expected))
        return dict(sorted(counts.items()))

    def copy(self, changes: NetChanges, groups: Groups) -> Iterator[bytes]:
        """A COPY BINARY stream, made while it is sent."""
        tuple_of = self._transcoder.tuple_of
        expected = changes.expected
        heads = [self._head(kind) for kind in range(UPDATE + 2 * len(groups))]
        upsert_heads = heads[UPSERT], heads[UPSERT + EXPECTED]
        parts = [HEADER]
        add = parts.append
        for key, state in changes.states.items():
            if type(state) is bytes:
                add(upsert_heads[key in expected])
                add(tuple_of(state)[2:])
            elif state is None:
                add(heads[DELETE + (key in expected)])
                add(self._deleted(key))
            elif isinstance(state, Pieces):
                add(heads[_kind(state, groups) + (key in expected)])
                parts.extend(map(_sized, state.values))
            if len(parts) >= 2 * _CHUNK_ROWS:
                yield b"".join(parts)
                parts.clear()
        add(TRAILER)
        yield b"".join(parts)

    def parameters(self, changes: NetChanges, groups: Groups, rows: int) -> list[Value]:
        """The same as one flat list, filled up with empty rows to the number of ``rows``."""
        values: list[Value] = []
        for key, state in changes.states.items():
            values.append((_kind(state, groups) + (key in changes.expected)).to_bytes(2, "big"))
            if state is None:
                values += self._scattered(key)
            elif isinstance(state, Pieces):
                values += state.values
            else:
                values += self._transcoder.columns_of(state)
        values += [None] * ((rows - len(changes.states)) * (self._width + 1))
        return values

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


def _kind(state: bytes | Pieces | None, groups: Groups) -> int:
    if state is None:
        return DELETE
    if isinstance(state, Pieces) and state.missing:
        return groups[state.missing]
    return UPSERT


def _sized(value: Value) -> bytes:
    return _NULL if value is None else _size(len(value)) + value
