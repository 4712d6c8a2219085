"""Columns' types as the catalog tells them: what a domain, an array, a range or an enum is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import psycopg

from connectors.postgres.types import Attribute

_TYPES = """
SELECT coalesce(t.typtype::text, 'b'), coalesce(t.typname::text, ''), coalesce(t.typelem::int8, 0),
       coalesce(t.typbasetype::int8, 0), coalesce(t.typtypmod, -1), coalesce(t.typcategory::text, 'X'),
       coalesce(r.rngsubtype, m.rngtypid, 0)::int8, coalesce(format_type(t.oid, q.typmod), ''),
       (SELECT coalesce(array_agg(e.enumlabel::text ORDER BY e.enumsortorder), '{}')
        FROM pg_enum e WHERE e.enumtypid = t.oid),
       coalesce(t.typndims, 0), coalesce(t.typdelim::text, ','), coalesce(t.typrelid::int8, 0)
FROM unnest(%s::int8[]::oid[], %s::int4[]) WITH ORDINALITY AS q (oid, typmod, place)
LEFT JOIN pg_type t ON t.oid = q.oid
LEFT JOIN pg_range r ON r.rngtypid = t.oid
LEFT JOIN pg_range m ON m.rngmultitypid = t.oid
ORDER BY q.place
"""


_FIELDS = """
SELECT a.attrelid::int8, a.attname::text, a.atttypid::int8, a.atttypmod, a.attndims
FROM pg_attribute a WHERE a.attrelid = ANY(%s::int8[]::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""


class TypedColumn(NamedTuple):
    """A column's type by its oid and modifier; ``dimensions`` is ``attndims``."""

    name: str
    type_oid: int
    typmod: int
    not_null: bool
    dimensions: int = 0


def attributes_of(
    connection: psycopg.Connection[Any],
    columns: Sequence[TypedColumn],
    labels: Mapping[int, tuple[str, ...]] = MappingProxyType({}),
) -> tuple[Attribute, ...]:
    """The columns with all that is known of their types; one query for each level of nesting.

    ``labels`` are those of enums, by oid, where they are known better than from the catalog as it is now.
    A type that is gone is one of which nothing is known: its values travel as text.
    """
    rows = [
        _Type(*row)
        for row in connection.execute(
            _TYPES, ([column.type_oid for column in columns], [column.typmod for column in columns])
        ).fetchall()
    ]
    fields = _fields(connection, rows)
    # What each is made of stands behind its own place: one inner type, or a composite's fields.
    parts: list[TypedColumn] = []
    ends: list[int] = []
    for column, row in zip(columns, rows, strict=True):
        parts += fields[row.relation] if row.typtype == "c" else _inner(column, row)
        ends.append(len(parts))
    made = attributes_of(connection, parts, labels) if parts else ()
    return tuple(
        _attribute(column, row, made[start:end], labels)
        for column, row, start, end in zip(columns, rows, [0, *ends], ends, strict=False)
    )


class _Type(NamedTuple):
    """A row of ``_TYPES``."""

    typtype: str
    name: str
    element: int
    base: int
    base_typmod: int
    category: str
    of_range: int
    formatted: str
    labels: list[str]
    dimensions: int
    delimiter: str
    relation: int


def _inner(column: TypedColumn, row: _Type) -> list[TypedColumn]:
    if row.typtype == "d":
        return [
            TypedColumn("", row.base, row.base_typmod, not_null=False, dimensions=row.dimensions)
        ]
    if row.typtype in ("r", "m"):
        return [TypedColumn("", row.of_range, -1, not_null=False)]
    if row.category == "A" and row.element:
        return [TypedColumn("", row.element, column.typmod, not_null=False)]
    return []


def _fields(
    connection: psycopg.Connection[Any], rows: Sequence[_Type]
) -> dict[int, list[TypedColumn]]:
    """The fields of the composite types among these, by their relations."""
    found: dict[int, list[TypedColumn]] = {row.relation: [] for row in rows if row.typtype == "c"}
    if found:
        for relation, name, oid, typmod, dimensions in connection.execute(
            _FIELDS, (list(found),)
        ).fetchall():
            found[relation].append(
                TypedColumn(name, oid, typmod, not_null=False, dimensions=dimensions)
            )
    return found


def _attribute(
    column: TypedColumn,
    row: _Type,
    parts: tuple[Attribute, ...],
    labels: Mapping[int, tuple[str, ...]],
) -> Attribute:
    is_composite = row.typtype == "c"
    return Attribute(
        name=column.name,
        type_oid=column.type_oid,
        typmod=column.typmod,
        not_null=column.not_null,
        formatted_type=row.formatted,
        typtype=row.typtype,
        type_name=row.name,
        inner=None if is_composite or not parts else parts[0],
        labels=labels.get(column.type_oid) or tuple(row.labels),
        dimensions=column.dimensions,
        fields=parts if is_composite else (),
        delimiter=row.delimiter,
    )
