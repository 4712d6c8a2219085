"""The statement that an operator has run at every heartbeat."""

from __future__ import annotations

import logging
from typing import Any

import psycopg

from connectors.postgres.errors import translate

log = logging.getLogger(__name__)

_MOST_SECONDS = 5


def act(connection: psycopg.Connection[Any], statement: str) -> None:
    """Run it in a transaction of its own. One that fails is told and passed over, as Debezium does.

    Capture waits for it meanwhile, so it is cut after a few seconds. Unreachable when the server is away.
    """
    try:
        with connection.transaction():
            # The statement was written for the role's usual session, not for ours.
            connection.execute('SET LOCAL search_path = "$user", public')
            connection.execute(f"SET LOCAL statement_timeout = '{_MOST_SECONDS}s'")
            connection.execute(statement.encode())
    except psycopg.Error as error:
        failure = translate(error, "running heartbeat.action.query")
        if connection.broken:
            raise failure from error
        log.warning("%s", failure.what)
