"""PostgreSQL's errors in our words: the one place where a SQLSTATE or a driver's error becomes a CdcError.

Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html. An error of libpq itself (no server answered, or
the link broke) carries no code; everything of that kind is a server that is away.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from cdc.errors import CdcError, ConfigError, Failed, Refused, Unreachable

_AWAY = (
    "57P01",  # admin_shutdown: also how a backend is terminated
    "57P02",  # crash_shutdown
    "57P03",  # cannot_connect_now: starting up, or in recovery
    "57P05",  # idle_session_timeout
    "53300",  # too_many_connections
    "25P03",  # idle_in_transaction_session_timeout
    "25P04",  # transaction_timeout
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
    "55P03",  # lock_not_available
    "57014",  # query_canceled
)

_REMEDIES: dict[str, tuple[type[CdcError], str]] = {
    "28P01": (ConfigError, "set the right user and password"),
    "28000": (
        ConfigError,
        "check the user, and allow it and this host in the server's pg_hba.conf",
    ),
    "3D000": (ConfigError, "create the database, or name one that is there"),
    "42501": (ConfigError, "grant the user what it lacks, or connect as one that has it"),
    "42P01": (ConfigError, "create the table, or take it out of the configuration"),
    "3F000": (ConfigError, "create the schema, or take it out of the configuration"),
    "42703": (ConfigError, "make the tables of both sides agree"),
    "42704": (ConfigError, "create it, or correct its name in the configuration"),
    "0A000": (ConfigError, "this server or this table does not offer it"),
    "55006": (Unreachable, "wait for its present user to end, or stop it"),
    "55000": (Refused, "look at pg_replication_slots and the server's wal_level"),
    "53100": (Unreachable, "free space on the server's disk"),
    "53200": (Unreachable, "the server is out of memory"),
    "53400": (
        ConfigError,
        "raise max_replication_slots and max_wal_senders, or drop what is unused",
    ),
    "25006": (ConfigError, "connect to the primary: this server only reads"),
}

_ADDRESS = re.compile(r"^connection failed: connection to server .*? failed: ")
_NO_PASSWORD = ("password authentication failed", "no password supplied")
_NO_ENTRY = ("no pg_hba.conf entry", "pg_hba.conf rejects")
_NO_TLS = ("server does not support SSL", "certificate", "SSL error")


def translate(error: psycopg.Error, doing: str) -> CdcError:
    """The error to raise ``from`` a driver's one. ``doing`` completes "while ..." and names the object at hand."""
    message = _first_line(error)
    what = f"{message} while {doing}"
    code = error.sqlstate or ""
    if code.startswith("08") or code in _AWAY:
        return Unreachable(what, "tried again until the server can serve it")
    if code in _REMEDIES:
        kind, remedy = _REMEDIES[code]
        return kind(what, _hint(error) or remedy)
    if not code and isinstance(error, psycopg.OperationalError):
        return _of_the_link(message, what)
    return Failed(what, _hint(error))


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Run a block whose driver errors leave it translated."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error, doing) from error


def _of_the_link(message: str, what: str) -> CdcError:
    # Before a session stands, libpq gives the server's answer as text only, without its SQLSTATE.
    if any(text in message for text in _NO_PASSWORD):
        return ConfigError(what, _REMEDIES["28P01"][1])
    if any(text in message for text in _NO_ENTRY) or "role " in message:
        return ConfigError(what, _REMEDIES["28000"][1])
    if "database " in message and "does not exist" in message:
        return ConfigError(what, _REMEDIES["3D000"][1])
    if any(text in message for text in _NO_TLS):
        return ConfigError(what, "match database.sslmode and the certificates to the server's")
    return Unreachable(what, "start the server, or correct its host and port")


def _first_line(error: psycopg.Error) -> str:
    message = error.diag.message_primary or str(error)
    # libpq's text repeats the address before the server's own sentence, and adds advice on further lines.
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    if len(lines) > 1 and first.endswith(":"):
        first = f"{first} {lines[1].lstrip('- ')}"
    return _ADDRESS.sub("", first).replace("FATAL:  ", "").rstrip(".")


def _hint(error: psycopg.Error) -> str:
    hint = error.diag.message_hint
    return " ".join(hint.split()).rstrip(".") if hint else ""
