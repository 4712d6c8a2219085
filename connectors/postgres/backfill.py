"""Fenced reads for backfill and repair: rows of one table under one snapshot, and a fence behind them in the log.

The order is the rule (README.md, "The fenced read"): lock the table, take the snapshot, read, hand the rows over,
emit the fence, commit. The lock keeps rewrites, TRUNCATE and ALTER from standing between the snapshot and the fence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import errors, sql
from psycopg.pq import TransactionStatus

from cdc.config import ConnectorConfig
from cdc.errors import ConfigError, Gone
from cdc.event import Rows
from cdc.fence import FENCE_PREFIX, Fence, FenceKind
from cdc.protocols import MOST_READ_BYTES
from cdc.table import KeyRange, TableId
from connectors.postgres import catalog, snapshots
from connectors.postgres.connection import connect
from connectors.postgres.copy_out import copy_at_most, copy_rows
from connectors.postgres.decoding import RowDecoder, Shapes
from connectors.postgres.errors import translate
from connectors.postgres.exact_rows import UnexpectedNull
from connectors.postgres.publication import published
from connectors.postgres.settings import SourceSettings
from connectors.postgres.statements import raw

_NOTHING = sql.SQL("")
_KEYS_AT_FIRST = 64
_PAGES_WORTH_PARTS = 1_000
_SAMPLED_PAGES = 300
_PAGES = """
SELECT coalesce(sum(pg_relation_size(part)), 0) / current_setting('block_size')::int8
FROM (SELECT %(table)s::regclass UNION SELECT relid FROM pg_partition_tree(%(table)s::regclass)) AS parts (part)
"""


class PostgresFencedReader:
    """`cdc.protocols.FencedReader` for PostgreSQL. One read at a time; connects at the first."""

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings
        self._side: psycopg.Connection[Any] | None = None
        self._shapes = Shapes(settings.columns, settings.handling)

    @contextmanager
    def read_range(
        self,
        table: TableId,
        keys: KeyRange,
        limit: int,
        fence: str,
        most_bytes: int = MOST_READ_BYTES,
    ) -> Iterator[Rows]:
        """In the order of the key's own comparison."""
        with self._fenced(table, fence, "backfill") as read:
            read.source = self._settings.overrides.get(table)
            order = sql.SQL("ORDER BY {} LIMIT {}").format(read.rows.key_list, limit)
            found, whole = read(read.within(keys), order, most_bytes)
            more = not whole or len(found) == limit
            yield Rows(read.rows.table, found, found[-1][0] if found and more else None)

    @contextmanager
    def read_keys(
        self,
        table: TableId,
        keys: Sequence[bytes],
        fence: str,
        most_bytes: int = MOST_READ_BYTES,
    ) -> Iterator[Rows]:
        """In no order; as many keys at once as the rows before them allow."""
        with self._fenced(table, fence, "repair") as read:
            found: list[tuple[bytes, bytes]] = []
            at, step, left = 0, _KEYS_AT_FIRST, most_bytes
            while at < len(keys) and left > 0:
                values = sql.SQL(", ").join(
                    read.rows.key_literal(key) for key in keys[at : at + step]
                )
                among = read.among("IN", sql.SQL("(VALUES {})").format(values))
                rows, whole = read(among, _NOTHING, left)
                if not whole and step > 1:
                    # Which of the keys these rows leave out, nobody can tell: fewer keys, and again.
                    step = max(1, step // 8)
                    continue
                found += rows
                at += step
                left -= sum(len(row) for _, row in rows)
                step *= 4
            yield Rows(read.rows.table, found, None, tuple(keys[at:]))

    def split(self, table: TableId, parts: int) -> Rows:
        """By the keys on a sample of the table's pages."""
        side = self._connection()
        try:
            with side.transaction():
                _lock(side, table)
                read = self._look(side, table)
                pages = _pages(side, table)
                keys: list[bytes] = []
                if pages >= _PAGES_WORTH_PARTS:
                    keys = read.sampled_keys(min(100.0, 100.0 * _SAMPLED_PAGES / pages))
        except psycopg.Error as error:
            raise translate(error, f"looking for ranges of {table}") from error
        places = [len(keys) * part // parts for part in range(1, parts)]
        bounds = dict.fromkeys(keys[place] for place in places if place < len(keys))
        return Rows(read.rows.table, [(key, b"") for key in bounds], None)

    def close(self) -> None:
        """Ends a read that is under way; its fence is never emitted."""
        if self._side is not None:
            self._side.close()
            self._side = None

    @contextmanager
    def _fenced(self, table: TableId, fence: str, kind: FenceKind) -> Iterator[_Read]:
        side = self._connection()
        try:
            with side.transaction():
                side.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                _lock(side, table)
                snapshot = snapshots.visible(side)
                yield self._look(side, table)
                message = Fence(fence, kind, self._settings.prefix, table, snapshot).to_message()
                snapshots.emit_unflushed(side, FENCE_PREFIX, message)
            snapshots.flush(side)
        except psycopg.Error as error:
            raise translate(error, f"reading {table}") from error
        finally:
            if side.broken or side.pgconn.transaction_status != TransactionStatus.IDLE:
                self.close()

    def _look(self, side: psycopg.Connection[Any], table: TableId) -> _Read:
        # In the reading transaction: the lock holds the shape that is looked at here.
        found = catalog.table(side, table)
        publication = self._settings.publication
        relation = catalog.relation(side, found, publication)
        rows = self._shapes.rows(relation, catalog.hints(side, relation))
        if not rows.table.key:
            raise ConfigError(
                f"table {table} has no key", "add a primary key: ranges and repairs go by it"
            )
        row_filter = published(side, publication, table).row_filter
        return _Read(side, rows, row_filter, only=not found.partitioned)

    def _connection(self) -> psycopg.Connection[Any]:
        if self._side is None:
            self._side = connect(
                self._settings.conninfo,
                connector=self._settings.connector,
                purpose="reader",
                # With row security on, a policy would hide rows in silence; off, it is an error.
                session={
                    "row_security": "off",
                    "lock_timeout": str(self._settings.lock_timeout_ms),
                },
            )
        return self._side


@dataclass(slots=True)
class _Read:
    """One table under the lock and the snapshot of the transaction that is open."""

    side: psycopg.Connection[Any]
    rows: RowDecoder
    row_filter: str | None
    only: bool
    """An inheritance child is a table of its own; a partition is its root's."""
    source: str | None = None
    """The SELECT that stands in the table's place."""

    def __call__(
        self, condition: sql.Composable, tail: sql.Composable, most_bytes: int
    ) -> tuple[list[tuple[bytes, bytes]], bool]:
        """The published rows for which the condition holds, as (key, row), up to so many bytes; whether these are all."""
        query = self._query(self.rows.select_list, _NOTHING, condition, tail)
        copied, whole = copy_at_most(self.side, query, most_bytes)
        while True:
            try:
                return self.rows.copied(copied), whole
            except UnexpectedNull as null:  # in a NOT NULL that was never validated
                self.rows.widen(null.column)

    def sampled_keys(self, percent: float) -> list[bytes]:
        """The keys on this part of the table's pages, in order."""
        sample = sql.SQL("TABLESAMPLE SYSTEM ({})").format(percent)
        order = sql.SQL("ORDER BY {}").format(self.rows.key_list)
        query = self._query(self.rows.key_select_list, sample, sql.SQL("true"), order)
        return self.rows.copied_keys(list(copy_rows(self.side, query)))

    def _query(
        self,
        columns: sql.Composable,
        sample: sql.Composable,
        condition: sql.Composable,
        tail: sql.Composable,
    ) -> sql.Composed:
        place = sql.SQL("ONLY " if self.only else "") + sql.Identifier(*self.rows.relation.id)
        if self.source is not None and sample is _NOTHING:
            place = sql.SQL("({}) AS t").format(raw(self.source))
        return sql.SQL("SELECT {} FROM {} {} WHERE {} AND {} {}").format(
            columns,
            place,
            sample,
            # It is the catalog's own spelling of the publication's WHERE.
            sql.SQL(self.row_filter or "true"),
            condition,
            tail,
        )

    def within(self, keys: KeyRange) -> sql.Composable:
        """The key compared with a range's bounds."""
        bounds = [
            self.among(operator, self.rows.key_literal(key))
            for operator, key in ((">", keys.after), ("<=", keys.upto))
            if key is not None
        ]
        return sql.SQL(" AND ").join(bounds) if bounds else sql.SQL("true")

    def among(self, operator: LiteralString, values: sql.Composable) -> sql.Composable:
        """The key compared with other keys."""
        return sql.SQL("({}) {} {}").format(self.rows.key_list, sql.SQL(operator), values)


def _lock(side: psycopg.Connection[Any], table: TableId) -> None:
    try:
        side.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(sql.Identifier(*table)))
    except (errors.UndefinedTable, errors.InvalidSchemaName, errors.WrongObjectType) as error:
        raise Gone(
            f"there is no table {table} any more", "create it, or take it out of the lists"
        ) from error


def _pages(side: psycopg.Connection[Any], table: TableId) -> int:
    row = side.execute(_PAGES, {"table": sql.Identifier(*table).as_string(side)}).fetchone()
    assert row is not None
    return int(row[0])


def open_reader(config: ConnectorConfig) -> PostgresFencedReader:
    """A reader by its source's configuration; connects at first use."""
    return PostgresFencedReader(SourceSettings.of(config))
