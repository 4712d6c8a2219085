"""Applies net changes to one table of a replica: by a staging table, or inline for a few rows.

A staging table belongs to the session, is filled by COPY BINARY as rows are transcoded, and is empty again after
each transaction. A few rows travel as parameters of prepared statements instead, which costs less than a COPY.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import errors
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.sql import Composable, Composed, Identifier

from cdc.table import Table
from connectors.postgres import statements
from connectors.postgres.net_changes import Move, NetChanges, Value
from connectors.postgres.replica_tables import ReplicaTable
from connectors.postgres.staged_rows import Groups, StagedRows
from connectors.postgres.statements import DELETE, UPDATE, UPSERT, StagedColumn
from connectors.postgres.tuples import TupleTranscoder

Session = psycopg.Connection[tuple[Any, ...]]

INLINE_SIZES = (1, 4, 16)
"""Rows of the prepared statements; a batch is filled up to the next size with rows that are none."""

_SCRATCH = "cdc_scratch"
_numbers = itertools.count(1)


class BinaryDumper(Dumper):
    """Passes bytes as the binary form of whatever type the statement gives the parameter."""

    format = Format.BINARY

    def dump(self, obj: Any) -> Any:
        """The bytes as they are."""
        return obj


class TableWriter:
    """Writes what one row schema's events come to into its table. Belongs to one session.

    The session's dumper for bytes has to be ``BinaryDumper``.
    """

    def __init__(
        self, session: Session, table: Table, replica: ReplicaTable, transcoder: TupleTranscoder
    ) -> None:
        self.table = table
        self.replica = replica
        self.transcoder = transcoder
        self._session = session
        self._raw: psycopg.RawCursor[tuple[Any, ...]] = psycopg.RawCursor(session)
        self._rows = StagedRows(table, transcoder)
        self._stage = f"cdc_stage_{next(_numbers)}"
        self._filled_in: int | None = None
        self._inline: dict[tuple[int, frozenset[int], int], bytes] = {}

    def write(self, changes: NetChanges, transaction: int) -> int:
        """Apply all; how many updates and deletes met no row. ``transaction`` numbers the session's transactions."""
        if not changes.states:
            return 0
        groups = self._rows.groups(changes)
        tally = self._rows.tally(changes, groups)
        if len(changes.states) <= INLINE_SIZES[-1] and not self.replica.other_unique:
            return self._run_inline(changes, groups, tally)
        self._fill(changes, groups, transaction)
        rows = statements.rows_of_stage(self._stage)
        target = self.replica.target

        def run(target: Composable) -> int:
            return _missing(
                tally,
                lambda kind: self._session.execute(
                    _statement(self.replica, target, rows, kind, groups)
                ),
            )

        if not self.replica.other_unique:
            return run(target)
        self._session.execute("SAVEPOINT cdc_batch")
        try:
            missing = run(target)
        except (errors.UniqueViolation, errors.ExclusionViolation):
            self._session.execute("ROLLBACK TO SAVEPOINT cdc_batch")
            missing = self._run_aside(target, rows, run)
        self._session.execute("RELEASE SAVEPOINT cdc_batch")
        return missing

    def move(self, move: Move) -> bool:
        """Give the row with the old key its new key and the columns that are known; whether it was there."""
        replica = self.replica
        statement = statements.move(
            replica.target,
            statements.inline_rows(replica.columns, 1),
            _carried(replica, move.row.missing),
            replica.key,
            statements.inline_key(replica.key, len(replica.columns) + 2),
        )
        values: list[Value] = [bytes(2), *move.row.values]
        values += self.transcoder.key_columns_of(move.old_key)
        return self._raw.execute(statement, values).rowcount > 0

    def drop(self) -> None:
        """Drop the staging table. Not to be used again."""
        if self._filled_in is not None:
            self._session.execute(statements.drop(Identifier("pg_temp", self._stage)))

    def _fill(self, changes: NetChanges, groups: Groups, transaction: int) -> None:
        if self._filled_in is None:
            self._session.execute(statements.create_stage(self._stage, self.replica.columns))
        elif self._filled_in == transaction:
            self._session.execute(statements.empty_stage(self._stage))
        self._filled_in = transaction
        with (
            self._session.cursor() as cursor,
            cursor.copy(statements.copy_to_stage(self._stage)) as copy,
        ):
            for chunk in self._rows.copy(changes, groups):
                copy.write(chunk)

    def _run_inline(
        self, changes: NetChanges, groups: Groups, tally: dict[int, tuple[int, int]]
    ) -> int:
        size = next(size for size in INLINE_SIZES if size >= len(changes.states))
        values = self._rows.parameters(changes, groups, size)
        return _missing(
            tally,
            lambda kind: self._raw.execute(
                self._inline_statement(kind, groups, size), values, prepare=True
            ),
        )

    def _inline_statement(self, kind: int, groups: Groups, size: int) -> bytes:
        missing = _lacking(kind, groups)
        if (known := self._inline.get((kind, missing, size))) is None:
            rows = statements.inline_rows(self.replica.columns, size)
            statement = _statement(self.replica, self.replica.target, rows, kind, groups)
            known = self._inline[kind, missing, size] = statement.as_bytes(self._session)
        return known

    def _run_aside(
        self, target: Composable, rows: Composable, run: Callable[[Composable], int]
    ) -> int:
        """Apply to a copy of the touched rows that has no other constraints, then put them back together.

        A batch holds no row twice and its end is a state that the source was in, so that its rows fit together and
        beside those that were not touched; it is only on the way there that two may hold one unique value.
        """
        scratch = Identifier("pg_temp", _SCRATCH)
        key = self.replica.key
        self._session.execute(statements.create_scratch(target, _SCRATCH))
        self._session.execute(statements.index_scratch(_SCRATCH, key))
        self._session.execute(statements.take_touched(target, scratch, rows, key))
        missing = run(scratch)
        self._session.execute(statements.put_back(target, scratch, self.replica.writable))
        self._session.execute(statements.drop(scratch))
        return missing


def _missing(
    tally: dict[int, tuple[int, int]], run: Callable[[int], psycopg.Cursor[tuple[Any, ...]]]
) -> int:
    """Run the statement of each kind, in order, and add up the rows that were expected and not there."""
    missing = 0
    for kind, (_, expected) in tally.items():
        row = run(kind).fetchone()
        found = int(row[0]) if row else 0
        missing += found if kind == UPSERT else expected - found
    return missing


def _statement(
    replica: ReplicaTable, target: Composable, rows: Composable, kind: int, groups: Groups
) -> Composed:
    if kind == DELETE:
        return statements.delete(target, rows, replica.key)
    if kind == UPSERT:
        return statements.upsert(target, rows, replica.written, replica.key)
    carried = _carried(replica, _lacking(kind, groups))
    return statements.update(target, rows, carried, replica.key, kind)


def _carried(replica: ReplicaTable, missing: frozenset[int]) -> list[StagedColumn]:
    written = set(replica.written)
    return [c for at, c in enumerate(replica.columns) if at not in missing and c in written]


def _lacking(kind: int, groups: Groups) -> frozenset[int]:
    if kind < UPDATE:
        return frozenset()
    return next(missing for missing, number in groups.items() if number == kind)
