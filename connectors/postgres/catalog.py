"""What the source's catalog says of its tables: all SQL that asks it.

Of a table in the log the catalog is a hint only: it tells today's NOT NULL, labels and primary key, not the row's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from cdc.errors import Gone
from cdc.table import Identity, TableId
from connectors.postgres.attributes import TypedColumn, attributes_of
from connectors.postgres.decoding import Hints
from connectors.postgres.description import Description, Memo, describe
from connectors.postgres.errors import translated
from connectors.postgres.publication import published
from connectors.postgres.relation import Relation, RelationColumn, identity_of

_TABLES = """
SELECT c.oid, n.nspname, c.relname, c.relkind = 'p', c.relpersistence = 'u', c.relreplident::text,
       coalesce(p.columns, '{}'), coalesce(i.columns, '{}')
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (
    SELECT array_agg(a.attname::text ORDER BY k.place) AS columns
    FROM pg_index x
    CROSS JOIN LATERAL unnest(x.indkey::int2[]) WITH ORDINALITY AS k (number, place)
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
    WHERE x.indrelid = c.oid AND x.indisprimary AND k.place <= x.indnkeyatts
) p ON true
LEFT JOIN LATERAL (
    SELECT array_agg(a.attname::text ORDER BY k.place) AS columns
    FROM pg_index x
    CROSS JOIN LATERAL unnest(x.indkey::int2[]) WITH ORDINALITY AS k (number, place)
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
    WHERE x.indrelid = c.oid AND k.place <= x.indnkeyatts
      AND (c.relreplident = 'i' AND x.indisreplident
           -- A deferrable primary key does not serve as an identity.
           OR c.relreplident = 'd' AND x.indisprimary AND x.indimmediate)
) i ON true
WHERE c.relpersistence <> 't' AND c.relkind IN ('r', 'p')
  AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
"""

_UNIQUE = """
SELECT array_agg(a.attname::text)
FROM pg_index x CROSS JOIN LATERAL unnest(x.indkey::int2[]) WITH ORDINALITY AS k (number, place)
JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.number
WHERE x.indrelid = %s AND x.indisunique AND x.indimmediate AND x.indisvalid
  AND x.indpred IS NULL AND x.indexprs IS NULL AND k.place <= x.indnkeyatts
GROUP BY x.indexrelid HAVING bool_and(a.attnotnull)
"""

_COLUMNS = """
SELECT a.attname::text, a.atttypid::int8, a.atttypmod, a.attgenerated <> ''
FROM pg_attribute a
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""


@dataclass(frozen=True, slots=True)
class CatalogTable:
    """A table as the catalog has it now; ``identity_key`` is what the log carries of old rows (empty under FULL)."""

    oid: int
    id: TableId
    partitioned: bool
    unlogged: bool
    identity: Identity
    primary_key: tuple[str, ...]
    identity_key: tuple[str, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """The columns of the message key: the primary key where old images carry it, else the identity's index."""
        if self.identity == "full" or set(self.primary_key) <= set(self.identity_key):
            return self.primary_key or self.identity_key
        return self.identity_key


def tables(connection: psycopg.Connection[Any], *, via_root: bool) -> list[CatalogTable]:
    """Every table that can be captured, by name.

    A partitioned table stands for its partitions when changes are published through the root, and they for it
    otherwise.
    """
    kinds = "AND NOT c.relispartition" if via_root else "AND c.relkind = 'r'"
    with translated("listing the tables"):
        rows = connection.execute(f"{_TABLES} {kinds} ORDER BY 2, 3").fetchall()
    return [_table(row) for row in rows]


def table(connection: psycopg.Connection[Any], name: TableId) -> CatalogTable:
    """One table; Gone when there is none of this name."""
    with translated(f"looking at {name}"):
        row = connection.execute(
            f"{_TABLES} AND n.nspname = %s AND c.relname = %s", tuple(name)
        ).fetchone()
    if row is None:
        raise Gone(f"there is no table {name}", "create it, or take it out of the lists")
    return _table(row)


def column_names(connection: psycopg.Connection[Any], table: CatalogTable) -> list[str]:
    """Its columns in their order."""
    with translated(f"looking at {table.id}"):
        return [row[0] for row in connection.execute(_COLUMNS, (table.oid,)).fetchall()]


def unique_keys(connection: psycopg.Connection[Any], table: CatalogTable) -> list[frozenset[str]]:
    """The sets of columns that no two rows share and that are never NULL, by immediate unique indexes."""
    with translated(f"looking at {table.id}"):
        rows = connection.execute(_UNIQUE, (table.oid,)).fetchall()
    return [frozenset(columns) for (columns,) in rows]


def relation(
    connection: psycopg.Connection[Any], table: CatalogTable, publication: str
) -> Relation:
    """The table as the log would describe it now: the columns that the publication holds."""
    with translated(f"looking at {table.id}"):
        listed = published(connection, publication, table.id).columns
    return unpublished_relation(connection, table, listed)


def unpublished_relation(
    connection: psycopg.Connection[Any],
    table: CatalogTable,
    listed: Sequence[str] | None = None,
) -> Relation:
    """The same of a table that a publication would hold with these columns (None: all that are not generated)."""
    with translated(f"looking at {table.id}"):
        rows = connection.execute(_COLUMNS, (table.oid,)).fetchall()
    return Relation(
        table.oid,
        table.id,
        table.identity,
        tuple(
            RelationColumn(
                name, oid, typmod, table.identity == "full" or name in table.identity_key
            )
            for name, oid, typmod, generated in rows
            if (name in listed if listed is not None else not generated)
        ),
    )


def hints(
    connection: psycopg.Connection[Any],
    relation: Relation,
    told: Description | None = None,
    memo: Memo | None = None,
) -> Hints:
    """What a relation of the log does not say of itself: by what the log ``told`` at its place, else by the catalog.

    The catalog tells of now, not of then: a column that it does not have, or has with another type or (as far as a
    ``memo`` knows) another number, may hold NULL.
    """
    with translated(f"looking at {relation.id}"):
        found = told or describe(connection, relation.oid)
        if told is None and memo is not None:
            numbers, primary_key = memo
        else:
            numbers = found.numbers_of(relation) if found else {}
            primary_key = found.primary_key if found else ()
        here = {column.name: column for column in found.columns} if found else {}
        columns, missing = [], {}
        for column in relation.columns:
            now = here.get(column.name)
            if now is not None and (
                now.type_oid != column.type_oid
                or numbers.get(column.name, now.number) != now.number
            ):
                now = None
            columns.append(
                TypedColumn(
                    column.name,
                    column.type_oid,
                    column.typmod,
                    # What identifies a row is never NULL, whatever became of the column since.
                    not_null=(now is not None and now.not_null)
                    or (column.in_identity and relation.identity != "full"),
                    dimensions=now.dimensions if now is not None else 0,
                )
            )
            if now is not None and now.missing is not None:
                missing[column.name] = now.missing
        return Hints(
            attributes_of(connection, columns, found.labels if found else {}),
            primary_key,
            numbers=numbers,
            missing=missing,
        )


def _table(row: tuple[Any, ...]) -> CatalogTable:
    oid, schema, name, partitioned, unlogged, identity, primary_key, identity_key = row
    return CatalogTable(
        oid,
        TableId(schema, name),
        partitioned,
        unlogged,
        identity_of(identity),
        tuple(primary_key),
        tuple(identity_key),
    )
