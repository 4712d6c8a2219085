"""A table as the catalog describes it at one moment: what the log's Relation messages leave out.

NOT NULL, columns' numbers, the value that rows older than a column have in it, enum labels, the primary key under
identity FULL, a partitioned table's leaves. The same expression of SQL makes the description when the catalog is
asked and inside the event trigger (`event_trigger`), whose messages carry it at its place in the log.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import psycopg

from cdc.table import Identity, TableId
from connectors.postgres.relation import Relation, RelationColumn, identity_of

# pg_attribute.attmissingval is an array of one value, of any type: its text is the array's, read back as one of texts.
EXPRESSION: Final = """
json_build_object(
    'oid', c.oid::int8, 'schema', n.nspname, 'name', c.relname, 'identity', c.relreplident,
    'kind', c.relkind, 'partition', c.relispartition, 'logged', c.relpersistence = 'p', 'width', c.relnatts,
    'columns', (
        SELECT coalesce(json_agg(json_build_array(
            a.attnum, a.attname, a.atttypid::int8, a.atttypmod, a.attnotnull, a.attndims, a.attgenerated <> '',
            CASE WHEN a.atthasmissing THEN (a.attmissingval::text::text[])[1] END) ORDER BY a.attnum), '[]')
        FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    'key', (
        SELECT coalesce(json_agg(a.attname ORDER BY k.place), '[]')
        FROM pg_index x CROSS JOIN LATERAL unnest(x.indkey::int2[]) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
        WHERE x.indrelid = c.oid AND x.indisprimary AND k.place <= x.indnkeyatts),
    'identity_key', (
        SELECT coalesce(json_agg(a.attname ORDER BY k.place), '[]')
        FROM pg_index x CROSS JOIN LATERAL unnest(x.indkey::int2[]) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
        WHERE x.indrelid = c.oid AND k.place <= x.indnkeyatts
          AND (c.relreplident = 'i' AND x.indisreplident
               OR c.relreplident = 'd' AND x.indisprimary AND x.indimmediate)),
    'labels', (
        SELECT coalesce(json_object_agg(e.oid, e.labels), '{}')
        FROM (SELECT t.oid::int8 AS oid, json_agg(l.enumlabel ORDER BY l.enumsortorder) AS labels
              FROM pg_type t JOIN pg_enum l ON l.enumtypid = t.oid
              WHERE t.oid IN (SELECT unnest(ARRAY[a.atttypid, u.typelem, u.typbasetype])
                              FROM pg_attribute a JOIN pg_type u ON u.oid = a.atttypid
                              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
              GROUP BY t.oid) e),
    'leaves', (
        SELECT coalesce(json_agg(p.relid::oid::int8 ORDER BY p.relid), '[]')
        FROM pg_partition_tree(CASE WHEN c.relkind = 'p' THEN c.oid END) p WHERE p.isleaf))
"""

_DESCRIBE = f"""
SELECT {EXPRESSION} FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %s
"""  # noqa: S608 - put together of our own constants


class DescribedColumn(NamedTuple):
    """``missing`` is the text of what rows older than the column have in it; None for NULL, or where all have their own."""

    number: int
    name: str
    type_oid: int
    typmod: int
    not_null: bool
    dimensions: int
    generated: bool
    missing: str | None


@dataclass(frozen=True, slots=True)
class Description:
    """``kind`` is ``r`` or, of a partitioned table, ``p``. ``width`` counts columns ever added. ``leaves`` are the partitions that hold a partitioned table's rows."""

    oid: int
    id: TableId
    identity: Identity
    kind: str
    partition: bool
    logged: bool
    width: int
    columns: tuple[DescribedColumn, ...]
    primary_key: tuple[str, ...]
    identity_key: tuple[str, ...]
    labels: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    leaves: frozenset[int] = frozenset()

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Description:
        """Read JSON's shape. KeyError, TypeError or ValueError when it is none."""
        return cls(
            oid=raw["oid"],
            id=TableId(raw["schema"], raw["name"]),
            identity=identity_of(raw["identity"]),
            kind=raw["kind"],
            partition=raw["partition"],
            logged=raw["logged"],
            width=raw["width"],
            columns=tuple(DescribedColumn(*column) for column in raw["columns"]),
            primary_key=tuple(raw["key"]),
            identity_key=tuple(raw["identity_key"]),
            labels={int(oid): tuple(labels) for oid, labels in raw["labels"].items()},
            leaves=frozenset(raw["leaves"]),
        )

    @property
    def relation(self) -> Relation:
        """As the log describes it where the whole table is published."""
        return Relation(
            self.oid,
            self.id,
            self.identity,
            tuple(
                RelationColumn(
                    column.name,
                    column.type_oid,
                    column.typmod,
                    self.identity == "full" or column.name in self.identity_key,
                )
                for column in self.columns
                if not column.generated
            ),
        )

    def fits(self, relation: Relation) -> bool:
        """Whether it is of the same moment as far as can be told: it has every column of the log's description."""
        here = {(column.name, column.type_oid, column.typmod) for column in self.columns}
        return (
            self.id == relation.id
            and self.identity == relation.identity
            and all((c.name, c.type_oid, c.typmod) in here for c in relation.columns)
        )

    @property
    def memo(self) -> str:
        """What `remembered` makes a Memo of."""
        numbers = ",".join(str(c.number) for c in self.columns if not c.generated)
        return json.dumps([_mark(self.relation), numbers, list(self.primary_key)])

    def numbers_of(self, relation: Relation) -> Mapping[str, int]:
        """The number of each column of the log's description, as far as it can be told; it grows along the columns.

        A column that is called otherwise by now, or gone, has the number that its neighbours leave for it.
        """
        columns = relation.columns
        taken = {(column.name, column.type_oid): column.number for column in self.columns}
        known = [taken.get((column.name, column.type_oid), 0) for column in columns]
        if (met := [number for number in known if number]) != sorted(met):
            return {}
        generated = {column.number for column in self.columns if column.generated}
        start, below = 0, 0
        for place in range(len(columns) + 1):
            above = known[place] if place < len(columns) else self.width + 1
            if not above:
                continue
            free = [number for number in range(below + 1, above) if number not in generated]
            if len(free) == place - start:
                known[start:place] = free
            start, below = place + 1, above
        return {
            column.name: number for column, number in zip(columns, known, strict=True) if number
        }


class Memo(NamedTuple):
    """What has to be known of a table's shape at some place of the log, beside what the log says there."""

    numbers: Mapping[str, int]
    primary_key: tuple[str, ...]


def remembered(memo: str, relation: Relation) -> Memo | None:
    """What a description's memo says of this relation; None when it is of another shape of the table."""
    mark, numbers, primary_key = json.loads(memo)
    if mark != _mark(relation):
        return None
    names = (column.name for column in relation.columns)
    return Memo(dict(zip(names, map(int, numbers.split(",")), strict=True)), tuple(primary_key))


def _mark(relation: Relation) -> int:
    """Tells the columns of one shape from those of another."""
    columns = [(c.name, c.type_oid, c.typmod) for c in relation.columns]
    return zlib.crc32(json.dumps([relation.oid, columns]).encode())


def describe(connection: psycopg.Connection[Any], oid: int) -> Description | None:
    """The table as it is now; None when it is gone."""
    row = connection.execute(_DESCRIBE, (oid,)).fetchone()
    return Description.of(row[0]) if row else None
