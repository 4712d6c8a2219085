"""Applies net changes to one table of a replica, by the road that costs least for what they are.

- A few rows travel as parameters of prepared statements.
- Rows that were not there before, by the source's history, are copied straight into the table. Should one be there
  after all, the copy is undone and they go the long way.
- The rest is copied into a staging table, which belongs to the session and is empty again after each transaction,
  and applied from there set by set.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
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
from connectors.postgres.staged_rows import Staged, StagedRows
from connectors.postgres.statements import DELETE, UPSERT, StagedColumn
from connectors.postgres.tuples import TupleTranscoder

Session = psycopg.Connection[tuple[Any, ...]]
Cursor = psycopg.Cursor[tuple[Any, ...]]

_INLINE_SIZES = (1, 4, 16, 64)
"""Rows of the prepared statements; a batch is filled up to the next size with rows that are none."""

_MOST_PARAMETERS = 65535
"""The protocol counts them in 16 bits."""

_LONGEST_DETOUR = 64
"""Batches, at most, that go the long way after fresh rows were found to be there; doubled from one on."""

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
        self.has_stage = False
        self._filled_in = 0
        self._inline: dict[tuple[int, frozenset[int], int], bytes] = {}
        self._sizes = [
            size for size in _INLINE_SIZES if size * (len(table.columns) + 1) <= _MOST_PARAMETERS
        ]
        self._few = self._sizes[-1]
        self._takes_copies = replica.written == replica.columns and not any(
            column.cast for column in replica.columns
        )
        self._detour = 0
        self._next_detour = 1

    def write(self, changes: NetChanges, transaction: int) -> int:
        """Apply all; how many updates and deletes met no row. ``transaction`` numbers the session's transactions."""
        straight = self._goes_straight(changes)
        if not straight and len(changes) <= self._few and not self.replica.other_unique:
            return self._run_inline(changes, fresh=True)
        if not straight and not self.replica.other_unique:
            return self._run_staged(changes, transaction)
        self._make_stage()
        self._session.execute("SAVEPOINT cdc_batch")
        try:
            missing = self._run_straight(changes, transaction, straight=straight)
        except (errors.UniqueViolation, errors.ExclusionViolation):
            self._session.execute("ROLLBACK TO SAVEPOINT cdc_batch")
            missing = self._run_again(changes, transaction, straight=straight)
        self._session.execute("RELEASE SAVEPOINT cdc_batch")
        return missing

    def mismatched(self, changes: NetChanges, transaction: int) -> int:
        """How many rows are there, and are not as the old images of these changes have them. To be asked first."""
        if not changes.old_images:
            return 0
        images = NetChanges(changes.collection, self.table, self.transcoder)
        images.states.update(changes.old_images)
        replica = self.replica
        if len(images) <= self._few:
            size = next(size for size in self._sizes if size >= len(images))
            rows = statements.inline_rows(replica.columns, size)
            statement = statements.differing(replica.target, rows, replica.written, replica.key)
            values = self._rows.parameters(images, Staged(), size, fresh=False)
            found = self._raw.execute(statement, values, prepare=True).fetchone()
        else:
            self._fill(images, transaction, fresh=False)
            rows = statements.rows_of_stage(self._stage)
            statement = statements.differing(replica.target, rows, replica.written, replica.key)
            found = self._session.execute(statement).fetchone()
        return int(found[0]) if found else 0

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
        if self.has_stage:
            self._session.execute(statements.drop(Identifier("pg_temp", self._stage)))

    # --- the roads -------------------------------------------------------------------------------------------

    def _goes_straight(self, changes: NetChanges) -> bool:
        if not self._takes_copies or len(changes.fresh) <= self._few:
            return False
        if self._detour:
            self._detour -= 1
            return False
        return True

    def _run_straight(self, changes: NetChanges, transaction: int, *, straight: bool) -> int:
        """Deletes and updates first: they free what fresh rows may take."""
        missing = 0
        if not straight:
            missing = self._run_staged(changes, transaction)
        elif len(changes.states) > self._few:
            missing = self._run_staged(changes, transaction, fresh=False)
        elif changes.states:
            missing = self._run_inline(changes, fresh=False)
        if straight:
            self._copy(
                statements.copy_to_target(self.replica.target, self.replica.columns),
                self._rows.copy_fresh(changes),
            )
            self._next_detour = 1
        return missing

    def _run_again(self, changes: NetChanges, transaction: int, *, straight: bool) -> int:
        """Apply what met a row with the same key, or with the same value of another unique constraint."""
        if straight:
            self._detour = self._next_detour
            self._next_detour = min(2 * self._next_detour, _LONGEST_DETOUR)
        if not self.replica.other_unique:
            return self._run_staged(changes, transaction)
        return self._run_aside(changes, transaction)

    def _run_staged(self, changes: NetChanges, transaction: int, *, fresh: bool = True) -> int:
        staged = self._fill(changes, transaction, fresh=fresh)
        return self._run(staged, self.replica.target)

    def _run_aside(self, changes: NetChanges, transaction: int) -> int:
        """Apply to a copy of the touched rows that has no other constraints, then put them back together.

        A batch holds no row twice and its end is a state that the source was in, so that its rows fit together and
        beside those that were not touched; it is only on the way there that two may hold one unique value.
        """
        staged = self._fill(changes, transaction, fresh=True)
        rows = statements.rows_of_stage(self._stage)
        scratch = Identifier("pg_temp", _SCRATCH)
        target, key = self.replica.target, self.replica.key
        self._session.execute(statements.create_scratch(target, _SCRATCH))
        self._session.execute(statements.index_scratch(_SCRATCH, key))
        self._session.execute(statements.take_touched(target, scratch, rows, key))
        missing = self._run(staged, scratch)
        self._session.execute(statements.put_back(target, scratch, self.replica.writable))
        self._session.execute(statements.drop(scratch))
        return missing

    def _run_inline(self, changes: NetChanges, *, fresh: bool) -> int:
        count = len(changes) if fresh else len(changes.states)
        size = next(size for size in self._sizes if size >= count)
        staged = Staged()
        values = self._rows.parameters(changes, staged, size, fresh=fresh)
        return _missing(
            staged,
            lambda kind: self._raw.execute(
                self._inline_statement(kind, staged, size), values, prepare=True
            ),
        )

    # --- their parts -----------------------------------------------------------------------------------------

    def _fill(self, changes: NetChanges, transaction: int, *, fresh: bool) -> Staged:
        self._make_stage()
        if self._filled_in == transaction:
            self._session.execute(statements.empty_stage(self._stage))
        self._filled_in = transaction
        staged = Staged()
        self._copy(
            statements.copy_to_stage(self._stage), self._rows.copy(changes, staged, fresh=fresh)
        )
        return staged

    def _make_stage(self) -> None:
        if not self.has_stage:
            self._session.execute(statements.create_stage(self._stage, self.replica.columns))
            self.has_stage = True

    def _copy(self, statement: Composed, stream: Iterable[bytes]) -> None:
        with self._session.cursor() as cursor, cursor.copy(statement) as copy:
            for chunk in stream:
                copy.write(chunk)

    def _run(self, staged: Staged, target: Composable) -> int:
        rows = statements.rows_of_stage(self._stage)
        return _missing(
            staged,
            lambda kind: self._session.execute(
                _statement(self.replica, target, rows, kind, staged.lacking(kind))
            ),
        )

    def _inline_statement(self, kind: int, staged: Staged, size: int) -> bytes:
        missing = staged.lacking(kind)
        if (known := self._inline.get((kind, missing, size))) is None:
            rows = statements.inline_rows(self.replica.columns, size)
            statement = _statement(self.replica, self.replica.target, rows, kind, missing)
            known = self._inline[kind, missing, size] = statement.as_bytes(self._session)
        return known


def _missing(staged: Staged, run: Callable[[int], Cursor]) -> int:
    """Run the statement of each kind, in order, and add up the rows that were expected and not there."""
    missing = 0
    for kind, expected in staged.tally():
        row = run(kind).fetchone()
        found = int(row[0]) if row else 0
        missing += found if kind == UPSERT else expected - found
    return missing


def _statement(
    replica: ReplicaTable, target: Composable, rows: Composable, kind: int, missing: frozenset[int]
) -> Composed:
    if kind == DELETE:
        return statements.delete(target, rows, replica.key)
    if kind == UPSERT:
        return statements.upsert(target, rows, replica.written, replica.key)
    return statements.update(target, rows, _carried(replica, missing), replica.key, kind)


def _carried(replica: ReplicaTable, missing: frozenset[int]) -> list[StagedColumn]:
    written = set(replica.written)
    return [c for at, c in enumerate(replica.columns) if at not in missing and c in written]
