"""Puts the five tables into the source database by COPY, straight from the files' bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import psycopg
from psycopg.sql import SQL, Identifier

from deploy.flights.data import NULL, TABLES, open_csv

_HERE = Path(__file__).parent
_BLOCK = 1 << 18


def load(dsn: str, flights: int, on_rows: Callable[[str, int], None]) -> dict[str, int]:
    """Create and fill the tables; returns each one's rows, parents that the data lacks included.

    ``flights`` limits the flights to the first so many; ``on_rows`` is told (table, rows more).
    """
    with psycopg.connect(dsn) as connection:
        connection.execute((_HERE / "tables.sql").read_bytes())
        for table in TABLES:
            with open_csv(table) as file:
                _copy(connection, table, file, flights if table == "flights" else None, on_rows)
        connection.execute((_HERE / "keys.sql").read_bytes())
        connection.commit()
        return count(connection)


def count(connection: psycopg.Connection) -> dict[str, int]:
    """Rows of each table that is there."""
    counted = {}
    for table in TABLES:
        found = connection.execute("SELECT to_regclass(%s)", (f"public.{table}",)).fetchone()
        if found != (None,):
            query = SQL("SELECT count(*) FROM {}").format(Identifier("public", table))
            row = connection.execute(query).fetchone()
            assert row is not None
            counted[table] = int(row[0])
    return counted


def _copy(
    connection: psycopg.Connection,
    table: str,
    file: IO[bytes],
    limit: int | None,
    on_rows: Callable[[str, int], None],
) -> None:
    names = file.readline().decode().strip().split(",")
    statement = SQL("COPY {} ({}) FROM STDIN (FORMAT csv, NULL {})").format(
        Identifier(table), SQL(", ").join(map(Identifier, names)), NULL
    )
    with connection.cursor().copy(statement) as copy:
        for block, rows in blocks(file, limit):
            copy.write(block)
            on_rows(table, rows)


def blocks(file: IO[bytes], limit: int | None) -> Iterator[tuple[bytes, int]]:
    """The file's bytes in blocks, with the lines that end in each; only the first ``limit`` lines."""
    left = limit
    while (left is None or left > 0) and (block := file.read(_BLOCK)):
        rows = block.count(b"\n")
        if left is not None:
            if rows >= left:
                block = b"".join(block.splitlines(keepends=True)[:left])
                rows = left
            left -= rows
        yield block, rows
