"""The source's snapshots, and messages into its log: what is asked of it beside the stream."""

from __future__ import annotations

from typing import Any

import psycopg

from cdc.errors import Failed
from cdc.fence import Snapshot
from cdc.protocols import Horizon

FLUSH_PREFIX = "cdc.flush"
"""Of the transactional messages that only carry the log before them to disk, on servers before 17."""

_HORIZON = """
SELECT min(backend_xmin::text::int8) FILTER (WHERE backend_xmin IS NOT NULL),
       bool_or(xact_start IS NULL AND state IS NULL)
FROM pg_stat_activity
WHERE application_name LIKE 'cdc/%' AND pid <> pg_backend_pid() AND datname = current_database()
"""

_BLOCKERS = """
SELECT 'pid ' || pid, backend_xid::text::int8, extract(epoch FROM now() - xact_start)::int8,
       coalesce(nullif(application_name, ''), usename, ''), coalesce(state, '')
FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
UNION ALL
SELECT 'prepared transaction ' || gid, transaction::text::int8,
       extract(epoch FROM now() - prepared)::int8, owner, 'prepared'
FROM pg_prepared_xacts
"""


def visible(connection: psycopg.Connection[Any]) -> Snapshot:
    """The transactions that are visible now; inside REPEATABLE READ, those of its snapshot."""
    return Snapshot.parse(_value(connection, "SELECT pg_current_snapshot()::text"))


def horizon(connection: psycopg.Connection[Any]) -> Horizon:
    """What every reading transaction of ours sees by now (``cdc.protocols.Horizon``).

    A reader whose xmin is hidden from this role counts as holding one that sees nothing settled.
    """
    # The order matters. The snapshot comes first: a reader that begins behind the second question sees all that it
    # sees. The LSN comes last: a reader that ended before the second question has its fence below it.
    snapshot = visible(connection)
    row = connection.execute(_HORIZON).fetchone()
    if row is None:
        raise Failed("no answer to a question for the readers' snapshots")
    readers_xmin, hidden = row
    lowest = 0 if hidden else snapshot.xmax if readers_xmin is None else snapshot.lift(readers_xmin)
    lsn = _value(connection, "SELECT (pg_current_wal_insert_lsn() - '0/0')::int8")
    return Horizon(snapshot, min(lowest, snapshot.xmax), int(lsn))


def blocker(connection: psycopg.Connection[Any], xid: int) -> str:
    """The oldest transaction below the 64-bit ``xid`` that still runs, in words; empty when there is none."""
    snapshot = visible(connection)
    below = [
        (running, who, age, application, state)
        for who, xid32, age, application, state in connection.execute(_BLOCKERS).fetchall()
        if (running := snapshot.lift(xid32)) < xid
    ]
    if not below:
        return ""
    _, who, age, application, state = min(below)
    return f"{who} ({application}, {state}), in a transaction for {age} s"


def emit(connection: psycopg.Connection[Any], prefix: str, content: bytes) -> int:
    """A message into the log outside any transaction, flushed on return; its LSN (the end of its record)."""
    lsn = emit_unflushed(connection, prefix, content)
    flush(connection)
    return lsn


def emit_unflushed(connection: psycopg.Connection[Any], prefix: str, content: bytes) -> int:
    """The same, inside whatever transaction is open; from PostgreSQL 17 on it is flushed here, else by ``flush``."""
    flag = ", true" if connection.info.server_version >= 170000 else ""
    return int(
        _value(
            connection,
            f"SELECT (pg_logical_emit_message(false, %s, %s::bytea{flag}) - '0/0')::int8",
            (prefix, content),
        )
    )


def flush(connection: psycopg.Connection[Any]) -> None:
    """Have the log up to here on disk, so that the walsender sends it: a commit waits for that, a message does not."""
    if connection.info.server_version < 170000:
        with connection.transaction():
            connection.execute("SET LOCAL synchronous_commit = local")
            connection.execute("SELECT pg_logical_emit_message(true, %s, '')", (FLUSH_PREFIX,))


def _value(
    connection: psycopg.Connection[Any], query: str, parameters: tuple[object, ...] = ()
) -> Any:
    row = connection.execute(query, parameters).fetchone()
    if row is None:
        raise Failed(f"no answer to {query}")
    return row[0]
