"""The replication slot: looked at, made, dropped, and waited for."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg
from psycopg import errors, pq

from cdc.errors import ConfigError, Failed, Unreachable
from cdc.protocols import Slot
from connectors.postgres.errors import translated

_PATIENCE = 30.0  # seconds until a session of ours that was terminated is gone
_PAUSE = 0.25
_LOOK_MS = 1_000


class Patience(NamedTuple):
    """How often a slot that somebody else holds is tried again, and how many seconds lie between."""

    retries: int
    delay: float


_FIND = """
SELECT (confirmed_flush_lsn - '0/0')::int8, active, coalesce(wal_status, ''),
       coalesce({reason}, ''), coalesce(plugin, 'physical'), coalesce(database, ''), two_phase, current_database()
FROM pg_replication_slots WHERE slot_name = %s
"""

_CREATE = """
SELECT (lsn - '0/0')::int8 FROM pg_create_logical_replication_slot(%s, 'pgoutput', false, false)
"""

_CREATE_17 = """
SELECT (lsn - '0/0')::int8
FROM pg_create_logical_replication_slot(%s, 'pgoutput', false, false, true)
"""

_FAILOVER = "SELECT failover FROM pg_replication_slots WHERE slot_name = %s"

_HOLDER = """
SELECT s.active_pid, coalesce(a.application_name, '')
FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
WHERE s.slot_name = %s AND s.active_pid IS NOT NULL
"""


def find(connection: psycopg.Connection[Any], name: str) -> Slot | None:
    """The slot of this name. ConfigError when it is not one of pgoutput's in this database."""
    reason = "invalidation_reason" if connection.info.server_version >= 170000 else "NULL"
    with translated(f"looking at slot {name}"):
        row = connection.execute(_FIND.replace("{reason}", reason), (name,)).fetchone()
    if row is None:
        return None
    confirmed, active, wal_status, invalidated, plugin, database, two_phase, ours = row
    if plugin != "pgoutput" or database != ours or two_phase:
        what = f"{plugin}{', two-phase' if two_phase else ''}, database {database or 'none'}"
        raise ConfigError(
            f"slot {name} is of another kind: {what}", "set slot.name to a name that is free"
        )
    lost = ""
    if invalidated:
        lost = f"the server invalidated it: {invalidated}"
    elif wal_status == "lost" or confirmed is None:
        lost = "the server removed log that it needs (max_slot_wal_keep_size)"
    return Slot(confirmed or 0, active, lost)


def create(
    connection: psycopg.Connection[Any],
    name: str,
    *,
    failover: bool,
    waits: Callable[[], None],
) -> int:
    """Make the slot; transactions that commit at or after the returned LSN are delivered.

    The server waits for transactions that run now to end, prepared ones too: ``waits`` is called about once a second
    meanwhile, and when it raises nothing is made.
    """
    version = connection.info.server_version
    if failover and version < 170000:
        raise ConfigError("failover slots need PostgreSQL 17", "set slot.failover=false")
    with translated(f"creating slot {name}"):
        answer = _patiently(connection, _CREATE_17 if failover else _CREATE, name, waits)
    return int(answer)


def _patiently(
    connection: psycopg.Connection[Any], query: str, name: str, waits: Callable[[], None]
) -> bytes:
    """The one value that the query gives for ``name``, however long it takes; cancelled when ``waits`` raises."""
    pgconn = connection.pgconn
    pgconn.send_query_params(query.replace("%s", "$1").encode(), [name.encode()])
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN)
    try:
        while pgconn.is_busy():
            if poll.poll(_LOOK_MS):
                pgconn.consume_input()
            else:
                waits()
    except BaseException:
        connection.cancel_safe(timeout=5)
        connection.close()
        raise
    result = pgconn.get_result()
    while pgconn.get_result() is not None:
        pass
    if result is None or result.status != pq.ExecStatus.TUPLES_OK:
        raise errors.error_from_result(result) if result else Failed("no answer to " + query)
    return result.get_value(0, 0) or b"0"


def lacks_failover(connection: psycopg.Connection[Any], name: str) -> bool:
    """Whether the slot is one that a standby keeps no copy of, though the server offers such copies."""
    if connection.info.server_version < 170000:
        return False
    with translated(f"looking at slot {name}"):
        row = connection.execute(_FAILOVER, (name,)).fetchone()
    return row == (False,)


def drop(
    connection: psycopg.Connection[Any], connector: str, name: str, patience: Patience
) -> None:
    """Drop the slot if it is there; one that is held by a session of this connector is taken from it."""

    def attempt() -> None:
        connection.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s",
            (name,),
        )

    with translated(f"dropping slot {name}"):
        when_free(connection, connector, name, attempt, patience)


def when_free(
    connection: psycopg.Connection[Any],
    connector: str,
    name: str,
    attempt: Callable[[], None],
    patience: Patience,
) -> None:
    """Do what needs the slot as soon as nobody else holds it. Unreachable, naming the holder, after a while.

    The walsender of a killed process lingers until its next send fails. It is terminated when it is our own
    connector's: whoever comes here has claimed the connector's checkpoint, so the holder is its predecessor.
    """
    began = time.monotonic()
    retries = 0
    while True:
        try:
            attempt()
        except errors.ObjectInUse as error:
            with translated(f"waiting for slot {name}"):
                holder = connection.execute(_HOLDER, (name,)).fetchone()
                ours = holder is None or holder[1] == f"cdc/{connector}/log"[:63]
                if holder and ours:
                    connection.execute("SELECT pg_terminate_backend(%s)", (holder[0],))
            over = time.monotonic() - began > _PATIENCE if ours else retries >= patience.retries
            if over:
                pid, application = holder or ("unknown", "")
                raise Unreachable(
                    f"slot {name} is in use by pid {pid}{f' ({application})' if application else ''}",
                    "stop whoever holds it, or set slot.name to a slot of this connector's own",
                ) from error
            retries += not ours
            time.sleep(_PAUSE if ours else patience.delay)
        else:
            return
