"""Three corruptions, planted in the replica behind the pipeline's back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import psycopg

_GHOST = "N0GHOST"
_CHANGE = """
UPDATE flights SET dep_delay = dep_delay + 1
WHERE id = (SELECT id FROM flights WHERE dep_delay IS NOT NULL ORDER BY id OFFSET 1234 LIMIT 1)
RETURNING id
"""
_LOSE = "DELETE FROM weather WHERE id = (SELECT id FROM weather ORDER BY id OFFSET 4321 LIMIT 1) RETURNING id"
_INVENT = "INSERT INTO planes (tailnum, model) VALUES (%s, 'never built') RETURNING tailnum"


class Corruption(NamedTuple):
    """One row that is wrong, in the words of a verification report."""

    table: str
    kind: str
    key: str

    def __str__(self) -> str:
        return f"{self.table.removeprefix('public.')} {self.key} {self.kind}"


def plant(replica_dsn: str) -> frozenset[Corruption]:
    """Change a value, delete a row, add a row."""
    with psycopg.connect(replica_dsn) as connection:
        return frozenset(
            (
                Corruption("public.flights", "changed", _key(connection, _CHANGE)),
                Corruption("public.weather", "missing", _key(connection, _LOSE)),
                Corruption("public.planes", "extra", _key(connection, _INVENT, _GHOST)),
            )
        )


def named(report: Mapping[str, Any], where: str = "differences") -> frozenset[Corruption]:
    """What a report (the JSON of ``cdc verify run``) names as different, or as ``repaired``."""
    return frozenset(
        Corruption(
            table["table"], difference["kind"], ",".join(map(str, difference["key"].values()))
        )
        for table in report["tables"]
        for difference in table[where]
    )


def _key(connection: psycopg.Connection, statement: str, *arguments: str) -> str:
    row = connection.execute(statement.encode(), arguments).fetchone()
    assert row is not None
    return str(row[0])
