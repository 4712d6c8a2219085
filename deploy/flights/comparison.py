"""A comparison of the two databases that uses nothing of ours: the same plain SQL in both."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from deploy.flights.data import TABLES

_COLUMNS = """
SELECT attname::text FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_SETTINGS = "SET TimeZone TO 'UTC'; SET extra_float_digits TO 1; SET DateStyle TO ISO; SET work_mem TO '64MB'"


class Sum(NamedTuple):
    """A table's rows, and the MD5 of all their values in the order of their keys."""

    rows: int
    md5: str


def compare(source_dsn: str, replica_dsn: str) -> dict[str, tuple[Sum, Sum]]:
    """Each table's sums in the source and in the replica; both must rest meanwhile."""
    queries = _queries(source_dsn)
    with ThreadPoolExecutor(2) as pool:
        source, replica = pool.map(lambda dsn: _sums(dsn, queries), (source_dsn, replica_dsn))
    return {table: (source[table], replica[table]) for table in TABLES}


def _queries(dsn: str) -> dict[str, Composed]:
    with psycopg.connect(dsn) as connection:
        queries: dict[str, Composed] = {}
        for table in TABLES:
            found = connection.execute(_COLUMNS, [f"public.{table}"]).fetchall()
            columns = [Identifier(row[0]) for row in found]
            queries[table] = SQL(
                "SELECT count(*), md5(string_agg(md5(ROW({})::text), '' ORDER BY {})) FROM {}"
            ).format(SQL(", ").join(columns), columns[0], Identifier("public", table))
        return queries


def _sums(dsn: str, queries: dict[str, Composed]) -> dict[str, Sum]:
    sums = {}
    with psycopg.connect(dsn) as connection:
        connection.execute(_SETTINGS)
        for table, query in queries.items():
            row = connection.execute(query).fetchone()
            assert row is not None
            sums[table] = Sum(row[0], row[1] or "")
    return sums
