"""The replica's table for a row schema: found and compared, or made, under ``schema.evolution``.

What a table has beyond the source's columns is left alone. What it lacks, or has of another type, is never worked
around: with ``basic`` a missing table or column is made and NOT NULL is dropped where the source's rows may hold
null; anything else stops with the statement to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier

from cdc.errors import Failed
from cdc.table import Column, Table, TableId
from connectors.postgres.sink_settings import SchemaEvolution
from connectors.postgres.statements import KeyColumn, StagedColumn, names, qualified, raw
from connectors.postgres.types import source_type_of

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
SELECT attname::text, format_type(atttypid, atttypmod), format_type(atttypid, -1), attnotnull,
       atthasdef OR attidentity <> '', attgenerated <> ''
FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""

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


class _Found(NamedTuple):
    type: str
    base_type: str
    not_null: bool
    has_default: bool
    generated: bool


class _Wanted(NamedTuple):
    """A column's type, the same without a modifier, and the type it is staged as."""

    type: str
    base_type: str
    staged: str


def exists(session: Session, target: TableId) -> bool:
    """Whether the replica has the table. Failed when the name is taken by what is no table."""
    return _oid(session, target) is not None


def find_or_make(
    session: Session,
    table: Table,
    target: TableId,
    staged_types: Sequence[str],
    evolution: SchemaEvolution,
) -> ReplicaTable:
    """The replica's table for this row schema, fit to take its rows. Runs its DDL in the open transaction.

    ``staged_types`` are those, in column order, that rows are staged as. Failed when there is none that fits, with the statement to run.
    """
    if not table.key:
        raise Failed(
            f"{table.id} has no key, so its rows cannot be found in the replica",
            "give it a primary key, or take it out of the capture",
        )
    wanted = _wanted(session, table, staged_types)
    oid = _oid(session, target)
    if oid is None:
        _run(session, evolution, f"{target} is missing", _create(session, table, target, wanted))
        oid = _oid(session, target)
    found = _columns(session, oid)
    if missing := [column for column in table.columns if column.name not in found]:
        _run(
            session,
            evolution,
            f"{target} lacks {', '.join(column.name for column in missing)}",
            [_add_columns(target, missing, wanted)],
        )
        found = _columns(session, oid)
    if strict := [
        column.name
        for column in table.columns
        if column.nullable and found[column.name].not_null and column.name not in table.key
    ]:
        _run(
            session,
            evolution,
            f"{target} has NOT NULL on {', '.join(strict)}, which may be null in the source",
            [_drop_not_null(target, strict)],
        )
    _check_types(target, found, wanted, session)
    _check_own_columns(table, target, found, session)
    columns = _staged(session, table, wanted, found)
    key, other_unique = _key(session, oid, table, target, columns)
    return ReplicaTable(
        target,
        columns,
        tuple(column for column in columns if not found[column.name].generated),
        key,
        tuple(name for name, column in found.items() if not column.generated),
        other_unique,
    )


def _staged(
    session: Session, table: Table, wanted: dict[str, _Wanted], found: dict[str, _Found]
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


def _wanted(session: Session, table: Table, staged_types: Sequence[str]) -> dict[str, _Wanted]:
    """The type to give each column: the source's, where the replica has it too, else the one it is staged as."""
    sources = {c.name: c.source_type or source_type_of(c.avro) for c in table.columns}
    known = session.execute(_TYPES, (list(sources), list(sources.values()), list(staged_types)))
    return {
        name: _Wanted(sources[name], base, staged) if has_it else _Wanted(staged, staged, staged)
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


def _columns(session: Session, oid: int | None) -> dict[str, _Found]:
    return {row[0]: _Found(*row[1:]) for row in session.execute(_COLUMNS, (oid,))}


def _check_types(
    target: TableId,
    found: dict[str, _Found],
    wanted: dict[str, _Wanted],
    session: Session,
) -> None:
    for name, want in wanted.items():
        have = found[name]
        # The same type without a modifier holds all that one with a modifier does.
        if have.type == want.type or have.type == have.base_type == want.base_type:
            continue
        raise Failed(
            f"{target}.{name} is {have.type} in the replica and {want.type} in the source",
            "run there: "
            + _text(
                SQL("ALTER TABLE {} ALTER COLUMN {} TYPE {}").format(
                    qualified(target), Identifier(name), raw(want.type)
                ),
                session,
            ),
        )


def _check_own_columns(
    table: Table, target: TableId, found: dict[str, _Found], session: Session
) -> None:
    ours = {column.name for column in table.columns}
    for name, column in found.items():
        if name not in ours and column.not_null and not (column.has_default or column.generated):
            raise Failed(
                f"{target}.{name} is not in the source, and NOT NULL without a default: no row could be added",
                f"run there: {_text(_drop_not_null(target, [name]), session)}",
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
            f"run there: {_text(statement, session)}",
        )
    return key, others


def _create(
    session: Session, table: Table, target: TableId, types: dict[str, _Wanted]
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


def _add_columns(target: TableId, columns: Sequence[Column], types: dict[str, _Wanted]) -> Composed:
    # Nullable whatever the source says: rows that are there have no value until the source sends one.
    return SQL("ALTER TABLE {} {}").format(
        qualified(target),
        SQL(", ").join(
            SQL("ADD COLUMN {} {}").format(Identifier(column.name), raw(types[column.name].type))
            for column in columns
        ),
    )


def _drop_not_null(target: TableId, columns: Sequence[str]) -> Composed:
    return SQL("ALTER TABLE {} {}").format(
        qualified(target),
        SQL(", ").join(
            SQL("ALTER COLUMN {} DROP NOT NULL").format(Identifier(name)) for name in columns
        ),
    )


def _run(
    session: Session, evolution: SchemaEvolution, why: str, statements: Sequence[Composed]
) -> None:
    if evolution == "none":
        text = "; ".join(_text(statement, session) for statement in statements)
        raise Failed(f"{why} in the replica", f"run there, or set schema.evolution=basic: {text}")
    for statement in statements:
        session.execute(statement)


def _text(statement: Composed, session: Session) -> str:
    return statement.as_string(session)
