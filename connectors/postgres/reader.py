"""The two doors for verification: locked, fenced reads of the source, and snapshots of the replica."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Literal

from cdc.config import ConnectorConfig
from cdc.errors import CdcError, Failed
from cdc.fence import FENCE_PREFIX, Fence, Snapshot
from cdc.protocols import RangeReader, ReplicaState
from cdc.table import Table, TableId
from connectors.postgres import (
    catalog,
    checkpoints,
    partition_checkpoints,
    replica_tables,
    snapshots,
)
from connectors.postgres.connection import connect
from connectors.postgres.decoding import Shapes
from connectors.postgres.errors import translate, translated
from connectors.postgres.masks import Mask, told_in_sql
from connectors.postgres.publication import published
from connectors.postgres.range_reader import NoRows, PostgresRangeReader
from connectors.postgres.settings import SourceSettings
from connectors.postgres.sink_settings import SinkSettings
from connectors.postgres.source import PostgresSource
from connectors.postgres.statements import qualified

_ESTIMATE = """
SELECT greatest(sum(c.reltuples), 0)::int8 FROM pg_class c
WHERE c.oid IN (SELECT relid FROM pg_partition_tree(%s::text::regclass))
   OR c.oid = %s::text::regclass
"""
_SHAPE = """
SELECT attname::text, attrelid::int8 << 16 | attnum, format_type(atttypid, atttypmod)
FROM pg_attribute WHERE attrelid = %s::text::regclass AND attnum > 0 AND NOT attisdropped
"""
_LOCK_TIMEOUT_MS = 10_000


class _NotThere(Failed):
    """A table that a read should lock does not exist."""


class PostgresSourceSide:
    """`cdc.protocols.SourceSide` for PostgreSQL. One read at a time; connects at first use, and anew after a failure."""

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings
        self._source = PostgresSource(settings)
        self._not_compared: dict[TableId, tuple[str, ...]] = {}
        self._side: psycopg.Connection[Any] | None = None

    @contextmanager
    def read(self, table: Table, fence: str, low: int) -> Iterator[tuple[RangeReader, Snapshot]]:
        """Lock, snapshot, read, fence, commit: in this order no rewrite stands between snapshot and fence."""
        side = self._connection()
        with _reading(side, table.id, self._settings.lock_timeout_ms, f"verifying {table.id}"):
            snapshot = snapshots.visible(side)
            of_it = published(side, self._settings.publication, table.id)
            masks = self._look(side, table, of_it.columns)
            _check_shape(side, table, masks)
            yield PostgresRangeReader(side, table, table.id, of_it.row_filter, masks), snapshot
            emitted = Fence(fence, "verify", self._settings.prefix, table.id, snapshot, low)
            snapshots.emit_unflushed(side, FENCE_PREFIX, emitted.to_message())
        with translated("emitting a fence"):
            snapshots.flush(side)

    def emit(self, prefix: str, content: bytes) -> int:
        """``pg_logical_emit_message``, flushed."""
        with translated(f"emitting a message {prefix}"):
            return snapshots.emit(self._connection(), prefix, content)

    def mark(self, fence: Fence) -> int:
        """A fence that closes no read."""
        return self.emit(FENCE_PREFIX, fence.to_message())

    def snapshot(self) -> Snapshot:
        """``pg_current_snapshot()``."""
        with translated("taking a snapshot"):
            return snapshots.visible(self._connection())

    def tables(self) -> Sequence[Table]:
        """Those that capture takes, in the shapes that it would give them now, without what cannot be compared."""
        found = []
        for rows in self._source.decoders():
            masked = {name for name, mask in rows.masks.items() if not told_in_sql(mask)}
            whole = rows.table
            self._not_compared[whole.id] = tuple(sorted(masked))
            columns = tuple(column for column in whole.columns if column.name not in masked)
            found.append(Table(whole.id, columns, whole.key, whole.identity))
        return found

    def incomparable(self, table: Table) -> str:
        """A copy by another SELECT holds other rows."""
        if table.id in self._settings.overrides:
            return "snapshot.select.statement.overrides: its copy need not hold every row"
        return ""

    def not_compared(self, table: Table) -> Sequence[str]:
        """Columns under a hash that the server has no function for."""
        return self._not_compared.get(table.id, ())

    def estimate(self, table: Table) -> int:
        """What the last ANALYZE or VACUUM counted."""
        side = self._connection()
        name = qualified(table.id).as_string(side)
        with translated(f"looking at {table.id}"):
            row = side.execute(_ESTIMATE, (name, name)).fetchone()
        return int(row[0]) if row and row[0] else 0

    def close(self) -> None:
        """Ends a read that is under way; its fence is never emitted."""
        self._source.close()
        if self._side is not None:
            self._side.close()
            self._side = None

    def _look(
        self, side: psycopg.Connection[Any], table: Table, published_columns: Sequence[str] | None
    ) -> Mapping[str, Mask]:
        """The masks of the table's columns, under the lock. Failed when its columns are others than they were."""
        rules = self._settings.columns
        if published_columns is not None:
            taken = {name for name in published_columns if rules.takes(table.id, name)}
            if taken - set(self.not_compared(table)) != {column.name for column in table.columns}:
                raise _changed(table)
        if not rules.masks:
            return {}
        found = catalog.table(side, table.id)
        relation = catalog.relation(side, found, self._settings.publication)
        return Shapes(rules).rows(relation, catalog.hints(side, relation)).masks

    def _connection(self) -> psycopg.Connection[Any]:
        if self._side is None or self._side.closed:
            self._side = connect(
                self._settings.conninfo,
                connector=self._settings.connector,
                purpose="verify",
                # With row security on, a policy would hide rows in silence; off, it is an error.
                session={"row_security": "off"},
            )
        return self._side


class PostgresReplicaSide:
    """`cdc.protocols.ReplicaSide` for PostgreSQL. One read at a time; connects at first use, and anew after a failure."""

    def __init__(self, settings: SinkSettings) -> None:
        self._settings = settings
        self._side: psycopg.Connection[Any] | None = None

    def state(self, sink: str, source: str) -> ReplicaState:
        """One short transaction."""
        side = self._connection()
        with _in_snapshot(side, "reading the replica's checkpoint"):
            return _state(side, sink, source)

    @contextmanager
    def read(
        self, table: Table, sink: str, source: str
    ) -> Iterator[tuple[RangeReader, ReplicaState]]:
        """The lock comes before the snapshot here too: after a rewrite an older one would see an empty table."""
        side = self._connection()
        target = self._settings.target(table.id, f"{source}.{table.id}")
        doing = f"verifying {target} in the replica"
        try:
            with _reading(side, target, _LOCK_TIMEOUT_MS, doing):
                state = _state(side, sink, source)
                yield PostgresRangeReader(side, table, target), state
                return
        except _NotThere:
            side = self._connection()
            with _in_snapshot(side, doing):
                state = _state(side, sink, source)
                if replica_tables.exists(side, target):
                    raise  # it came up between these two looks
        yield NoRows(), state

    def close(self) -> None:
        """Safe to repeat."""
        if self._side is not None:
            self._side.close()
            self._side = None

    def _connection(self) -> psycopg.Connection[Any]:
        if self._side is None or self._side.closed:
            self._side = connect(
                self._settings.conninfo,
                connector=self._settings.connector,
                purpose="verify",
                session={"row_security": "off"},
            )
        return self._side


@contextmanager
def _reading(
    side: psycopg.Connection[Any], table: TableId, lock_timeout_ms: int, doing: str
) -> Iterator[None]:
    """A transaction with the table locked before its snapshot is taken; the first query in the block takes it."""
    with _in_snapshot(side, doing):
        side.execute(SQL("SET LOCAL lock_timeout = {}").format(Literal(f"{lock_timeout_ms}ms")))
        try:
            side.execute(SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(qualified(table)))
        except (errors.UndefinedTable, errors.InvalidSchemaName) as error:
            raise _NotThere(f"{table} is not there, while {doing}") from error
        yield


@contextmanager
def _in_snapshot(side: psycopg.Connection[Any], doing: str) -> Iterator[None]:
    """A transaction of one snapshot, which the first query in the block takes."""
    try:
        with side.transaction():
            side.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield
    except CdcError:
        raise
    except psycopg.Error as error:
        raise translate(error, doing) from error
    finally:
        if side.broken or side.pgconn.transaction_status:
            side.close()


def _state(side: psycopg.Connection[Any], sink: str, source: str) -> ReplicaState:
    try:
        if partition_checkpoints.any_held(side, (sink, source)):
            return ReplicaState(partition_checkpoints.load(side, sink, source))
        return ReplicaState(checkpoints.load(side, sink, source))
    except (errors.UndefinedTable, errors.InvalidSchemaName) as error:
        raise Failed(
            "the replica holds no checkpoint: no sink has ever run on it", "start the sink"
        ) from error


def _check_shape(side: psycopg.Connection[Any], table: Table, masked: Mapping[str, Mask]) -> None:
    """That the columns are the same ones, of the same types: rows of two shapes differ without being different."""
    name = qualified(table.id).as_string(side)
    now = {column: (number, type_) for column, number, type_ in side.execute(_SHAPE, (name,))}
    for column in table.columns:
        number, type_ = now.get(column.name, (0, ""))
        if column.number not in (0, number) or (
            column.source_type not in ("", type_) and column.name not in masked
        ):
            raise _changed(table)


def _changed(table: Table) -> Failed:
    return Failed(
        f"schema: {table.id} changed its columns since the verification began", "verify it again"
    )


def open_source_side(config: ConnectorConfig) -> PostgresSourceSide:
    """The source's door by its configuration."""
    return PostgresSourceSide(SourceSettings.of(config))


def open_replica_side(config: ConnectorConfig) -> PostgresReplicaSide:
    """The replica's door by its configuration."""
    return PostgresReplicaSide(SinkSettings.of(config))
