"""What the replica's errors mean for a sink: a row that can never be applied, a server to wait for, or a stop.

Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html. What is not special to a sink is `errors`'s.
"""

from __future__ import annotations

import psycopg

from cdc.errors import CdcError, Rejected, Unreachable
from connectors.postgres.errors import translate

_REJECTED: dict[str, str] = {
    "22": "the replica's type cannot hold the value: make the column's type the source's",
    "23502": "drop NOT NULL from the replica's column, or give it a default",
    "23503": "GRANT SET ON PARAMETER session_replication_role to the sink's role, or drop the foreign key",
    "23505": "drop the unique constraint that the source does not have, or verify and repair the table",
    "23514": "drop the check that the source does not have",
    "23P01": "drop the exclusion constraint that the source does not have",
    "54000": "drop the index that cannot hold the value",
}
"""By SQLSTATE, or its class."""

_READ_ONLY = "25006"

_CHANGED = ("42P01", "3F000", "42703", "42804")
"""A table, schema or column that was there when it was looked at is not any more, or is of another type."""


def sink_error(error: psycopg.Error, doing: str) -> CdcError:
    """The error to raise ``from`` a driver's one, met while rows were applied."""
    code = error.sqlstate or ""
    if code == _READ_ONLY:
        return Unreachable(
            f"the replica only reads, while {doing}",
            "tried again until it is the primary once more",
        )
    if code in _CHANGED:
        return Unreachable(
            f"{error.diag.message_primary} while {doing}: the replica was changed under the sink",
            "looked at again: what is missing is made, or the statement to run is said",
        )
    remedy = _REJECTED.get(code) or _REJECTED.get(code[:2])
    if remedy is None:
        return translate(error, doing)
    table = f"{error.diag.schema_name}.{error.diag.table_name}: " if error.diag.table_name else ""
    # The detail of a constraint's error holds the row; of a type's, what the type can hold.
    detail = error.diag.message_detail if code.startswith("22") else None
    named = detail or error.diag.constraint_name or error.diag.column_name
    return Rejected(f"{table}{error.diag.message_primary}{f' ({named})' if named else ''}", remedy)
