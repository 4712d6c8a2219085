"""What must be right at the source before anything is captured. A start insists on it, ``cdc check`` shows all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from cdc.errors import EXIT_UNREACHABLE
from cdc.findings import Finding, fail, ok, warn
from cdc.table import TableId
from connectors.postgres.catalog import CatalogTable, column_names, unique_keys
from connectors.postgres.column_rules import ColumnRules
from connectors.postgres.errors import translated
from connectors.postgres.settings import Selection

_SERVER = """
SELECT current_setting('wal_level'), pg_is_in_recovery(),
       current_setting('max_wal_senders')::int, (SELECT count(*) FROM pg_stat_replication),
       current_setting('max_replication_slots')::int, (SELECT count(*) FROM pg_replication_slots),
       EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = %s),
       coalesce(nullif(current_setting('idle_replication_slot_timeout', true), '0'), '')
"""

_ROLE = """
SELECT rolsuper OR rolreplication, rolname,
       EXISTS (SELECT FROM pg_roles m WHERE m.rolname = 'rds_replication' AND pg_has_role(current_user, m.oid, 'MEMBER'))
FROM pg_roles WHERE rolname = current_user
"""

_READABLE = """
SELECT has_table_privilege(c.oid, 'SELECT') OR has_any_column_privilege(c.oid, 'SELECT'),
       row_security_active(c.oid)
FROM pg_class c WHERE c.oid = %s
"""

_WITHOUT_LOG = """
SELECT n.nspname, c.relname, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('f', 'm', 'v') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
"""

_KINDS = {
    "f": ("a foreign table", "capture it where it is stored"),
    "m": ("a materialized view", "capture the tables that it is made from"),
    "v": ("a view", "capture the tables that it is made from"),
}

_SERVER_SUBJECT = "source server"
_PLAIN = re.compile(r"[a-z_][a-z0-9_$]*")


def server(connection: psycopg.Connection[Any], slot: str) -> Iterator[Finding]:
    """The server's settings and the user's right to replicate."""
    with translated("checking the server"):
        row = connection.execute(_SERVER, (slot,)).fetchone()
        role = connection.execute(_ROLE).fetchone()
    if row is None or role is None:
        yield fail(_SERVER_SUBJECT, "it does not show its settings", "grant the user pg_monitor")
        return
    wal_level, standby, senders, sending, slots, used, ours, idle = row
    may_replicate, user, managed = role
    version = connection.info.server_version // 10000
    yield ok(
        _SERVER_SUBJECT,
        f"PostgreSQL {version}, {used} of {slots} slots and {sending} of {senders} senders in use",
    )
    if version < 14:
        yield fail(
            _SERVER_SUBJECT,
            f"the server is PostgreSQL {version}",
            "14 or later is needed: earlier ones do not deliver messages, and so no fences",
        )
    if wal_level != "logical":
        yield fail(
            _SERVER_SUBJECT,
            f"wal_level is {wal_level}",
            "ALTER SYSTEM SET wal_level = logical, and restart the server",
        )
    if standby:
        yield fail(
            _SERVER_SUBJECT,
            "the server is a standby",
            "it is tried again until it is promoted; else connect to the primary: only there a fence ties a read"
            " to the log",
            EXIT_UNREACHABLE,
        )
    if senders == 0:
        yield fail(
            _SERVER_SUBJECT,
            "max_wal_senders is 0",
            "ALTER SYSTEM SET max_wal_senders = 10, and restart the server",
        )
    elif sending >= senders and not ours:
        yield warn(
            _SERVER_SUBJECT,
            f"all {senders} WAL senders are in use",
            "raise max_wal_senders and restart the server",
        )
    if not ours and used >= slots:
        yield fail(
            _SERVER_SUBJECT,
            f"all {slots} replication slots are in use",
            "drop one that is orphaned, or raise max_replication_slots and restart the server",
        )
    if not (may_replicate or managed):
        yield fail(
            _SERVER_SUBJECT,
            f"user {user} has no right to replicate",
            f"ALTER ROLE {quoted(user)} REPLICATION",
        )
    if idle:
        yield warn(
            _SERVER_SUBJECT,
            f"idle_replication_slot_timeout is {idle}: a connector that rests longer loses its slot",
            "ALTER SYSTEM SET idle_replication_slot_timeout = 0, or never stop it for so long",
        )


def kinds(connection: psycopg.Connection[Any], selection: Selection) -> Iterator[Finding]:
    """That nothing is asked for by name whose changes are in no log; a pattern that matches such passes over it."""
    with translated("listing what has no log"):
        rows = connection.execute(_WITHOUT_LOG).fetchall()
    for schema, name, kind in rows:
        if selection.names(TableId(schema, name)):
            what, remedy = _KINDS[kind]
            yield fail(
                f"{schema}.{name}",
                f"{schema}.{name} is {what}: its changes are in no log of this server",
                f"{remedy}, and take it out of table.include.list",
            )


def selected(found: Sequence[TableId], wanted: str) -> Iterator[Finding]:
    """That the lists select something."""
    if not found:
        yield fail(
            "tables",
            f"no table matches {wanted}",
            "create the table, or correct table.include.list (schema.table, regular expressions)",
        )


def tables(
    connection: psycopg.Connection[Any],
    found: Sequence[CatalogTable],
    rules: ColumnRules,
    *,
    copied: bool = True,
) -> Iterator[Finding]:
    """That each table can be captured whole, read whole, and its rows found by their keys.

    ``copied``: whether a first copy is wanted, which goes by ranges of keys.
    """
    for table in found:
        key = rules.message_key(table.id, column_names(connection, table))
        problems = [
            # Who wants no copy can do without a key where the log carries whole rows.
            *_identity(table, keyed=bool(key) or not (copied or table.identity != "full")),
            *_chosen_key(connection, table, key),
            *_readable(connection, table),
        ]
        if problems:
            yield from problems
        else:
            by = ", ".join(key or table.key) or "(none)"
            yield ok(str(table.id), f"key {by}, replica identity {table.identity}")


def quoted(*names: str) -> str:
    """A name as SQL has to spell it, for statements that a person is to run."""
    return ".".join(
        name if _PLAIN.fullmatch(name) else '"' + name.replace('"', '""') + '"' for name in names
    )


def _readable(connection: psycopg.Connection[Any], table: CatalogTable) -> Iterator[Finding]:
    with translated(f"checking {table.id}"):
        row = connection.execute(_READABLE, (table.oid,)).fetchone()
    subject = str(table.id)
    if row is None:
        yield fail(subject, f"table {table.id} is gone", "take it out of table.include.list")
        return
    readable, filtered = row
    if not readable:
        yield fail(
            subject,
            f"table {table.id} may not be read",
            f"GRANT SELECT ON {quoted(*table.id)} TO {quoted(connection.info.user)}",
        )
    if filtered:
        yield fail(
            subject,
            f"row security hides rows of {table.id} from this user",
            f"ALTER ROLE {quoted(connection.info.user)} BYPASSRLS: a copy has to see every row",
        )


def _chosen_key(
    connection: psycopg.Connection[Any], table: CatalogTable, key: Sequence[str]
) -> Iterator[Finding]:
    """That a key chosen by ``message.key.columns`` finds its one row, and stands in every old image of the log."""
    if not key:
        return
    chosen = f"message.key.columns chooses {', '.join(key)} for {table.id}"
    if not any(unique <= set(key) for unique in unique_keys(connection, table)):
        yield fail(
            str(table.id),
            f"{chosen}, which no unique index of NOT NULL columns covers: two rows could share a key",
            "choose columns of such an index, or make one (not partial, not deferrable)",
        )
    if table.identity != "full" and not set(key) <= set(table.identity_key):
        yield fail(
            str(table.id),
            f"{chosen}, and its replica identity does not carry them: deletes would have no key",
            f"ALTER TABLE {quoted(*table.id)} REPLICA IDENTITY FULL",
        )


def _identity(table: CatalogTable, *, keyed: bool) -> Iterator[Finding]:
    subject, name = str(table.id), quoted(*table.id)
    if table.unlogged:
        yield fail(
            subject,
            f"table {table.id} is not logged",
            f"ALTER TABLE {name} SET LOGGED, or exclude it",
        )
    if table.identity == "nothing":
        yield fail(
            subject,
            f"table {table.id} has REPLICA IDENTITY NOTHING",
            f"ALTER TABLE {name} REPLICA IDENTITY DEFAULT (or FULL)",
        )
    elif not table.primary_key and not table.identity_key and not keyed:
        yield fail(
            subject,
            f"table {table.id} has no primary key",
            "add one, or set REPLICA IDENTITY USING a unique index of NOT NULL columns; or, for readers that need no"
            " key and no first copy, REPLICA IDENTITY FULL and snapshot.mode=no_data",
        )
    elif not table.identity_key and table.identity != "full":
        yield fail(
            subject,
            f"the replica identity of table {table.id} carries no key",
            f"ALTER TABLE {name} REPLICA IDENTITY FULL, or make the primary key not deferrable",
        )
