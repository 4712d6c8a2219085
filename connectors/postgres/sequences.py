"""Sequences, which logical replication leaves out: at a cut-over the replica's are moved to where the source's stand.

A sequence of an identity or serial column is the replica's own for the column of the target table; one that belongs to
no column has the same name on both sides. Values only move forward, in the direction in which the sequence counts.
https://www.postgresql.org/docs/current/logical-replication-restrictions.html
"""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from cdc.config import ConnectorConfig
from cdc.connector import SequenceMove
from cdc.errors import ConfigError
from cdc.table import TableId
from connectors.postgres.connection import connect
from connectors.postgres.errors import translated
from connectors.postgres.settings import SourceSettings
from connectors.postgres.sink_settings import SinkSettings
from connectors.postgres.source import PostgresSource

Session = psycopg.Connection[tuple[Any, ...]]

# A sequence depends on its column: 'i' for an identity, 'a' for a serial or OWNED BY.
_SEQUENCES = """
SELECT sn.nspname, s.relname, tn.nspname, t.relname, a.attname
FROM pg_class s
JOIN pg_namespace sn ON sn.oid = s.relnamespace
LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.refclassid = 'pg_class'::regclass
    AND d.deptype IN ('a', 'i')
LEFT JOIN pg_class t ON t.oid = d.refobjid
LEFT JOIN pg_namespace tn ON tn.oid = t.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE s.relkind = 'S' AND sn.nspname = ANY(%s)
ORDER BY 1, 2
"""

_BOUNDS = """
SELECT seqincrement, seqmin, seqmax FROM pg_sequence WHERE seqrelid = %s::text::regclass
"""

_OWNED = """
SELECT n.nspname, s.relname
FROM pg_class t
JOIN pg_namespace tn ON tn.oid = t.relnamespace
JOIN pg_attribute a ON a.attrelid = t.oid
JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid AND d.refobjsubid = a.attnum
    AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
JOIN pg_namespace n ON n.oid = s.relnamespace
WHERE (tn.nspname, t.relname, a.attname) = (%s, %s, %s)
"""

_NAMED = """
SELECT n.nspname, s.relname FROM pg_class s JOIN pg_namespace n ON n.oid = s.relnamespace
WHERE s.relkind = 'S' AND (n.nspname, s.relname) = (%s, %s)
"""


class _Sequence(NamedTuple):
    """``table`` and ``column`` are empty for one that belongs to no column."""

    name: TableId
    table: TableId | None
    column: str


class _Value(NamedTuple):
    """The last value, and whether it was handed out; and how the sequence counts."""

    last: int
    called: bool
    increment: int
    lowest: int
    highest: int

    @property
    def following(self) -> int:
        """What it hands out next."""
        return self.last + self.increment if self.called else self.last


def sync_sequences(
    source: ConnectorConfig, sink: ConnectorConfig, margin: int
) -> list[SequenceMove]:
    """Move the replica's sequences past the source's by ``margin`` further steps; each is told, moved or not.

    ConfigError where no table is published: then the connector has never run, and nothing would be moved.
    """
    settings, target = SourceSettings.of(source), SinkSettings.of(sink)
    captured = PostgresSource(settings)
    try:
        tables = {table.id for table in captured.tables()}
    finally:
        captured.close()
    if not tables:
        raise ConfigError(
            f"{source.name} has published no table yet", "start it once, or check its publication"
        )
    moves = []
    with (
        connect(settings.conninfo, connector=settings.connector, purpose="sequences") as there,
        connect(target.conninfo, connector=target.connector, purpose="sequences") as here,
    ):
        for sequence in _sequences(there, tables):
            with translated(f"moving sequence {sequence.name}"):
                moves.append(_move(there, here, sequence, target, source["topic.prefix"], margin))
    return moves


def _sequences(session: Session, tables: set[TableId]) -> list[_Sequence]:
    """Those of captured tables' columns, and in the same schemas those of no column."""
    with translated("looking for sequences"):
        rows = session.execute(_SEQUENCES, (sorted({t.schema for t in tables}),)).fetchall()
    found = [
        _Sequence(TableId(schema, name), TableId(of, table) if table else None, column or "")
        for schema, name, of, table, column in rows
    ]
    return [one for one in found if one.table is None or one.table in tables]


def _move(
    there: Session,
    here: Session,
    sequence: _Sequence,
    settings: SinkSettings,
    prefix: str,
    margin: int,
) -> SequenceMove:
    value = _value(there, sequence.name)
    name = _counterpart(here, sequence, settings, prefix)
    if name is None:
        return SequenceMove(str(sequence.name), "", "missing", value.following, None, None)
    own = _value(here, name)
    wanted = value.following + margin * value.increment
    ahead = own.following >= wanted if value.increment > 0 else own.following <= wanted
    if ahead:
        return SequenceMove(
            str(sequence.name), str(name), "ahead", value.following, own.following, own.following
        )
    wanted = max(own.lowest, min(own.highest, wanted))
    here.execute("SELECT setval(%s::text::regclass, %s, false)", (_quoted(name, here), wanted))
    return SequenceMove(
        str(sequence.name), str(name), "moved", value.following, own.following, wanted
    )


def _counterpart(
    here: Session, sequence: _Sequence, settings: SinkSettings, prefix: str
) -> TableId | None:
    if sequence.table is None:
        found = here.execute(_NAMED, sequence.name).fetchone()
    else:
        target = settings.target(sequence.table, f"{prefix}.{sequence.table}")
        found = here.execute(_OWNED, (*target, sequence.column)).fetchone()
    return TableId(*found) if found else None


def _value(session: Session, name: TableId) -> _Value:
    last = session.execute(_last(name)).fetchone()
    bounds = session.execute(_BOUNDS, (_quoted(name, session),)).fetchone()
    assert last is not None
    assert bounds is not None
    return _Value(*last, *bounds)


def _last(name: TableId) -> Composed:
    return SQL("SELECT last_value, is_called FROM {}").format(Identifier(*name))


def _quoted(name: TableId, session: Session) -> str:
    return Identifier(*name).as_string(session)
