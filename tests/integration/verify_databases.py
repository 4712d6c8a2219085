"""A source and a replica database for the tests of comparisons, without capture and sink between them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg

from cdc.protocols import Bucket
from cdc.table import Column, Table, TableId
from connectors.postgres.connection import connect
from connectors.postgres.range_reader import PostgresRangeReader
from connectors.postgres.types import Attribute, column_of

Connection = psycopg.Connection[Any]

_ATTRIBUTES: LiteralString = """
SELECT a.attname::text, a.atttypid::int8, a.atttypmod, a.attnotnull, format_type(a.atttypid, a.atttypmod),
       t.typtype::text, t.typname::text,
       ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder)
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""


def open_session(dsn: str) -> Connection:
    return connect(dsn, connector="test", purpose="verify", session={"search_path": "public"})


def table_of(connection: Connection, name: str, key: tuple[str, ...]) -> Table:
    """The row schema of a table of plain types."""
    rows = connection.execute(_ATTRIBUTES, (f"public.{name}",)).fetchall()
    columns = tuple(_column(row) for row in rows)
    return Table(TableId("public", name), columns, key)


def _column(row: tuple[Any, ...]) -> Column:
    name, oid, typmod, not_null, formatted, typtype, type_name, labels = row
    return column_of(
        Attribute(name, oid, typmod, not_null, formatted, typtype, type_name, labels=tuple(labels))
    )


@contextmanager
def reading(
    connection: Connection, table: Table, where: str | None = None
) -> Iterator[PostgresRangeReader]:
    """A reader of one snapshot, under the session settings that both sides have."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        connection.execute("SET LOCAL search_path = pg_catalog")
        yield PostgresRangeReader(connection, table, table.id, where)


def whole(buckets: list[Bucket]) -> tuple[int, int, int]:
    """Count and sums over all buckets."""
    return (
        sum(bucket.row_count for bucket in buckets),
        sum(bucket.sums[0] for bucket in buckets) % 2**64,
        sum(bucket.sums[1] for bucket in buckets) % 2**64,
    )
