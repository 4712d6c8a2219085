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
        FROM pg_enum e WHERE e.enumtypid = t.oid)
FROM unnest(%s::int8[]::oid[], %s::int4[]) WITH ORDINALITY AS q (oid, typmod, place)
LEFT JOIN pg_type t ON t.oid = q.oid
LEFT JOIN pg_range r ON r.rngtypid = t.oid
LEFT JOIN pg_range m ON m.rngmultitypid = t.oid
ORDER BY q.place
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
    rows = connection.execute(
        _TYPES, ([column.type_oid for column in columns], [column.typmod for column in columns])
    ).fetchall()
    inner: dict[int, TypedColumn] = {}
    for place, (column, row) in enumerate(zip(columns, rows, strict=True)):
        typtype, _, element, base, base_typmod, category, subtype, _, _ = row
        if typtype == "d":
            inner[place] = TypedColumn("", base, base_typmod, not_null=False)
        elif typtype in ("r", "m"):
            inner[place] = TypedColumn("", subtype, -1, not_null=False)
        elif category == "A" and element:
            inner[place] = TypedColumn("", element, column.typmod, not_null=False)
    made = attributes_of(connection, list(inner.values()), labels) if inner else ()
    inner_of = dict(zip(inner, made, strict=True))
    return tuple(
        Attribute(
            name=column.name,
            type_oid=column.type_oid,
            typmod=column.typmod,
            not_null=column.not_null,
            formatted_type=row[7],
            typtype=row[0],
            type_name=row[1],
            inner=inner_of.get(place),
            labels=labels.get(column.type_oid) or tuple(row[8]),
            dimensions=column.dimensions,
        )
        for place, (column, row) in enumerate(zip(columns, rows, strict=True))
    )
