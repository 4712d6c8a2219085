"""Connections to PostgreSQL: how every session of ours is opened, and what is fixed in it.

Text forms of values depend on session settings that a server, a database or a role can change. They are fixed here,
so that the same row has the same text on both sides and in every session.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import conninfo as dsn

from connectors.postgres.errors import translate

_SESSION = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmloption": "content",
    "search_path": "pg_catalog",
    "client_min_messages": "warning",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}

_LINK: dict[str, Any] = {
    "client_encoding": "UTF8",
    "connect_timeout": 10,
    # A peer that vanished without a word is noticed after 10 + 3 * 5 s.
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


def connect(
    conninfo: str,
    *,
    connector: str,
    purpose: str,
    replication: bool = False,
    session: Mapping[str, str] | None = None,
) -> psycopg.Connection[tuple[Any, ...]]:
    """Open a session in autocommit mode with every setting that shapes values fixed.

    ``application_name`` becomes ``cdc/<connector>/<purpose>`` (PostgreSQL keeps 63 bytes of it). ``replication`` opens
    a walsender session of the same database. ``session`` adds or overrides settings for this session, such as
    ``row_security=off`` where a read must see every row or fail, or ``search_path``.

    Raises ConfigError for what a person has to set right (password, database, grant), else Unreachable.
    """
    settings = {**_SESSION, **(session or {})}
    options = " ".join(f"-c {name}={_escaped(value)}" for name, value in settings.items())
    link = {
        **_LINK,
        "application_name": f"cdc/{connector}/{purpose}"[:63],
        "options": options,
    }
    if replication:
        link["replication"] = "database"
    try:
        # No statement is prepared behind our back: a plan must not outlive an ALTER of its table.
        return psycopg.connect(conninfo, autocommit=True, prepare_threshold=None, **link)
    except psycopg.Error as error:
        raise translate(error, f"connecting to {address(conninfo)}") from error


def address(conninfo: str) -> str:
    """``host:port/database`` of a connection string, for messages: never its password."""
    try:
        parts = dsn.conninfo_to_dict(conninfo)
    except psycopg.Error:
        return "the database"
    return f"{parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"


def _escaped(value: str) -> str:
    # libpq splits ``options`` at blanks; a backslash keeps one.
    return value.replace("\\", "\\\\").replace(" ", "\\ ")
