"""The replica's table for a row schema: found and compared, or made, under ``schema.evolution``.

What a table has beyond the source's columns is left alone. What it lacks, or has of another type, is never worked
around: it follows as far as the policy goes (`replica_ddl`), or stops with the statement to run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier

from cdc.errors import Failed
from cdc.table import Table, TableId
from connectors.postgres.forms import source_type_of
from connectors.postgres.replica_columns import ColumnChanges, column_changes, widens
from connectors.postgres.replica_ddl import (
    FoundColumn,
    Policy,
    ReplicaDdl,
    WantedColumn,
    drop_not_null,
    text_of,
)
from connectors.postgres.replica_memory import RememberedColumn
from connectors.postgres.statements import KeyColumn, StagedColumn, names, qualified, raw

Session = psycopg.Connection[tuple[Any, ...]]

# With a typmod of -1 the names of bit and bpchar stay apart from bit(1) and char(1).
_TYPES = """
SELECT t.column_, s.type IS NOT NULL, format_type(s.type, -1), format_type(g.type, -1)
FROM unnest(%s::text[], %s::text[], %s::text[]) AS t (column_, source, staged),
     LATERAL (SELECT to_regtype(t.source)) AS s (type),
     LATERAL (SELECT to_regtype(t.staged)) AS g (type)
"""

_RELATION = """
SELECT c.oid::int8, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""

_COLUMNS = """
SELECT attname::text, attnum::int4, format_type(atttypid, atttypmod), format_type(atttypid, -1), attnotnull,
       atthasdef OR attidentity <> '', attgenerated <> ''
FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""

_PRIMARY_KEY = "SELECT conname::text FROM pg_constraint WHERE conrelid = %s AND contype = 'p'"

# The operator with strategy 3 of a btree family is its equality.
_INDEXES = """
SELECT i.indisprimary, i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indisvalid AND i.indisunique,
       array_agg(a.attname::text ORDER BY k.place),
       array_agg(format('%%I.%%s', n.nspname, o.oprname) ORDER BY k.place)
FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place)
JOIN LATERAL unnest(i.indclass::oid[]) WITH ORDINALITY AS c (opclass, place) ON c.place = k.place
LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
JOIN pg_opclass oc ON oc.oid = c.opclass
LEFT JOIN pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amopstrategy = 3
     AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
LEFT JOIN pg_operator o ON o.oid = ao.amopopr
LEFT JOIN pg_namespace n ON n.oid = o.oprnamespace
WHERE i.indrelid = %s AND (i.indisunique OR i.indisexclusion) AND k.place <= i.indnkeyatts
GROUP BY i.indexrelid, i.indisprimary, i.indimmediate, i.indpred IS NULL, i.indexprs IS NULL, i.indisvalid,
         i.indisunique
ORDER BY i.indisprimary DESC, i.indexrelid
"""


# Their receive functions take each other's binary form: casts without a function, an enum's label, a domain's base.
_SAME_FORM = """
SELECT t.column_
FROM unnest(%s::text[], %s::text[], %s::text[]) AS t (column_, staged, stored)
JOIN pg_type AS s ON s.oid = to_regtype(t.stored)
WHERE EXISTS (SELECT FROM pg_cast WHERE castsource = to_regtype(t.staged) AND casttarget = s.oid AND castmethod = 'b')
   OR s.typtype = 'e' AND t.staged = 'text'
   OR s.typtype = 'd' AND s.typbasetype = to_regtype(t.staged)
"""


@dataclass(frozen=True)
class ReplicaTable:
    """A target table, as far as a row schema is concerned.

    ``columns`` stand in the row schema's order; ``written`` are those of them that can be written (a column that the
    replica generates is not). ``writable`` names every column of the target that can be written, its own ones
    included. ``other_unique``: a constraint beside the key may meet rows of a batch in the wrong order.
    """

    id: TableId
    columns: tuple[StagedColumn, ...]
    written: tuple[StagedColumn, ...]
    key: tuple[KeyColumn, ...]
    writable: tuple[str, ...]
    other_unique: bool

    @property
    def target(self) -> Composable:
        """Its quoted name."""
        return qualified(self.id)


class Made(NamedTuple):
    """A table that is fit, what to remember of its columns, and those whose values could not follow their type."""

    table: ReplicaTable
    columns: Mapping[str, RememberedColumn]
    emptied: tuple[str, ...]


def exists(session: Session, target: TableId) -> bool:
    """Whether the replica has the table. Failed when the name is taken by what is no table."""
    return _oid(session, target) is not None


def find_or_make(
    session: Session,
    table: Table,
    target: TableId,
    staged_types: Sequence[str],
    policy: Policy,
    remembered: Mapping[str, RememberedColumn],
    *,
    shared: bool = False,
) -> Made:
    """The replica's table for this row schema, fit to take its rows. Runs its DDL in the open transaction.

    ``staged_types`` are those, in column order, that rows are staged as. ``shared``: rows of an older row schema may
    come behind those of this one, so a column may have a wider type. Failed when there is none that fits, with the
    statement to run.
    """
    if not table.key:
        raise Failed(
            f"{table.id} has no key, so its rows cannot be found in the replica",
            "give it a primary key, or take it out of the capture",
        )
    wanted = _wanted(session, table, staged_types)
    oid = _oid(session, target)
    emptied: tuple[str, ...] = ()
    ddl = ReplicaDdl(session, target, policy)
    if oid is None:
        ddl.run(f"{target} is missing", _create(session, table, target, wanted))
        oid = _oid(session, target)
    else:
        found = _columns(session, oid)
        own = {name: column.number for name, column in found.items()}
        _follow_columns(ddl, column_changes(table.columns, own, remembered), found, wanted)
        found = _columns(session, oid)
        emptied = _follow_types(ddl, table, found, wanted, shared=shared)
        emptied += _follow_key(ddl, session, oid, table)
        _drop_strictness(ddl, table, _columns(session, oid))
    found = _columns(session, oid)
    _check_own_columns(table, target, found, session)
    columns = _staged(session, table, wanted, found)
    key, other_unique = _key(session, oid, table, target, columns)
    replica = ReplicaTable(
        target,
        columns,
        tuple(column for column in columns if not found[column.name].generated),
        key,
        tuple(name for name, column in found.items() if not column.generated),
        other_unique,
    )
    now = {
        name: RememberedColumn(remembered[name].number, column.number)
        for name, column in found.items()
        if name in remembered and remembered[name].own == column.number
    }
    now |= {c.name: RememberedColumn(c.number, found[c.name].number) for c in table.columns}
    return Made(replica, now, emptied)


def _staged(
    session: Session, table: Table, wanted: dict[str, WantedColumn], found: dict[str, FoundColumn]
) -> tuple[StagedColumn, ...]:
    """Each column staged as the type that it is stored as, where that takes the binary form; else to be cast."""
    others = [name for name, want in wanted.items() if want.staged != found[name].base_type]
    same = session.execute(
        _SAME_FORM,
        (others, [wanted[name].staged for name in others], [found[n].base_type for n in others]),
    )
    cast = {name: found[name].base_type for name in others}
    alike = {name: cast.pop(name) for (name,) in same}
    # An explicit cast to a type with a modifier would cut a value silently; an assignment does not.
    return tuple(
        StagedColumn(
            column.name,
            alike.get(column.name, wanted[column.name].staged),
            cast.get(column.name, ""),
        )
        for column in table.columns
    )


def _follow_columns(
    ddl: ReplicaDdl,
    changes: ColumnChanges,
    found: Mapping[str, FoundColumn],
    wanted: Mapping[str, WantedColumn],
) -> None:
    """Renames, drops and new columns, in the order in which names become free."""
    if changes.gone:
        ddl.drop(changes.gone, {name for name in changes.gone if found[name].strict})
    if changes.renamed:
        ddl.rename(changes.renamed)
    if changes.replaced:
        ddl.replace(changes.replaced, wanted)
    if changes.added:
        ddl.add(changes.added, wanted)


def _follow_types(
    ddl: ReplicaDdl,
    table: Table,
    found: Mapping[str, FoundColumn],
    wanted: Mapping[str, WantedColumn],
    *,
    shared: bool,
) -> tuple[str, ...]:
    """Bring columns into their types; the names of those that lost their values over it."""
    emptied = []
    for name, want in wanted.items():
        have = found[name]
        # The same type without a modifier holds all that one with a modifier does.
        if have.type == want.type or have.type == have.base_type == want.base_type:
            continue
        if shared and widens(want.type, have.type):
            continue
        if not ddl.retype(name, have.type, want.type, in_key=name in table.key):
            emptied.append(name)
    return tuple(emptied)


def _follow_key(
    ddl: ReplicaDdl, session: Session, oid: int | None, table: Table
) -> tuple[str, ...]:
    """Where no unique index is on just the key, the primary key becomes that; its columns, if rows had to go for it."""
    for _, usable, names_, _ in session.execute(_INDEXES, (oid,)):
        if usable and set(names_) == set(table.key):
            return ()
    row = session.execute(_PRIMARY_KEY, (oid,)).fetchone()
    return () if ddl.rekey(table.key, row[0] if row else None) else table.key


def _drop_strictness(ddl: ReplicaDdl, table: Table, found: Mapping[str, FoundColumn]) -> None:
    strict = [
        column.name
        for column in table.columns
        if column.nullable and found[column.name].not_null and column.name not in table.key
    ]
    if strict:
        ddl.drop_not_null(strict)


def _wanted(session: Session, table: Table, staged_types: Sequence[str]) -> dict[str, WantedColumn]:
    """The type to give each column: the source's, where the replica has it too, else the one it is staged as."""
    sources = {column.name: source_type_of(column) for column in table.columns}
    known = session.execute(_TYPES, (list(sources), list(sources.values()), list(staged_types)))
    return {
        name: WantedColumn(sources[name], base, staged)
        if has_it
        else WantedColumn(staged, staged, staged)
        for name, has_it, base, staged in known
    }


def _oid(session: Session, target: TableId) -> int | None:
    found = session.execute(_RELATION, target).fetchone()
    if found is None:
        return None
    if found[1] not in ("r", "p"):
        raise Failed(
            f"{target} in the replica is not a table", "rename it, or set collection.name.format"
        )
    return int(found[0])


def _columns(session: Session, oid: int | None) -> dict[str, FoundColumn]:
    return {row[0]: FoundColumn(*row[1:]) for row in session.execute(_COLUMNS, (oid,))}


def _check_own_columns(
    table: Table, target: TableId, found: dict[str, FoundColumn], session: Session
) -> None:
    ours = {column.name for column in table.columns}
    for name, column in found.items():
        if name not in ours and column.not_null and not (column.has_default or column.generated):
            raise Failed(
                f"{target}.{name} is not in the source, and NOT NULL without a default: no row could be added",
                f"run there: {text_of(drop_not_null(target, [name]), session)}",
            )


def _key(
    session: Session,
    oid: int | None,
    table: Table,
    target: TableId,
    columns: Sequence[StagedColumn],
) -> tuple[tuple[KeyColumn, ...], bool]:
    """The key with its operators, and whether there are other unique or exclusion constraints."""
    by_name = {column.name: column for column in columns}
    key: tuple[KeyColumn, ...] | None = None
    others = False
    for _, usable, names_, operators in session.execute(_INDEXES, (oid,)):
        if key is None and usable and set(names_) == set(table.key):
            operator = dict(zip(names_, operators, strict=True))
            key = tuple(KeyColumn(by_name[name], operator[name]) for name in table.key)
        else:
            others = True
    if key is None:
        statement = SQL("ALTER TABLE {} ADD UNIQUE ({})").format(
            qualified(target), names(table.key)
        )
        raise Failed(
            f"{target} has no unique index on just the key of the source's table ({', '.join(table.key)})",
            f"run there: {text_of(statement, session)}",
        )
    return key, others


def _create(
    session: Session, table: Table, target: TableId, types: dict[str, WantedColumn]
) -> list[Composed]:
    known = session.execute("SELECT FROM pg_namespace WHERE nspname = %s", (target.schema,))
    columns = [
        SQL("{} {}{}").format(
            Identifier(column.name),
            raw(types[column.name].type),
            SQL("" if column.nullable else " NOT NULL"),
        )
        for column in table.columns
    ]
    create = SQL("CREATE TABLE {} ({}, PRIMARY KEY ({}))").format(
        qualified(target), SQL(", ").join(columns), names(table.key)
    )
    schema = SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(target.schema))
    return [create] if known.fetchone() else [schema, create]
