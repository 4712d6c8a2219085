"""What must be right before anything is captured: each check says one line of what, and one line of what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from cdc.errors import ConfigError, Unreachable
from cdc.table import TableId
from connectors.postgres.catalog import CatalogTable, column_names, unique_keys
from connectors.postgres.column_rules import ColumnRules
from connectors.postgres.errors import translated
from connectors.postgres.settings import Selection

_SERVER = """
SELECT current_setting('wal_level'), pg_is_in_recovery(),
       current_setting('max_wal_senders')::int, current_setting('max_replication_slots')::int,
       (SELECT count(*) FROM pg_replication_slots),
       EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = %s)
"""

_ROLE = """
SELECT rolsuper OR rolreplication, rolsuper OR rolbypassrls, rolname FROM pg_roles
WHERE rolname = current_user
"""

_MANAGED = """
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication'
               AND pg_has_role(current_user, oid, 'MEMBER'))
"""

_READABLE = """
SELECT has_table_privilege(c.oid, 'SELECT') OR has_any_column_privilege(c.oid, 'SELECT'),
       c.relrowsecurity, row_security_active(c.oid)
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


def check_server(connection: psycopg.Connection[Any], slot: str) -> None:
    """The server's settings and the user's rights; ConfigError for the first that is wrong."""
    with translated("checking the server"):
        row = connection.execute(_SERVER, (slot,)).fetchone()
        role = connection.execute(_ROLE).fetchone()
        managed = connection.execute(_MANAGED).fetchone()
    if row is None or role is None or managed is None:
        raise ConfigError("the server does not show its settings", "grant the user pg_monitor")
    wal_level, standby, senders, slots, used, ours = row
    if connection.info.server_version < 140000:
        raise ConfigError(
            f"the server is PostgreSQL {connection.info.server_version // 10000}",
            "14 or later is needed: earlier ones do not deliver messages, and so no fences",
        )
    if wal_level != "logical":
        raise ConfigError(
            f"wal_level is {wal_level}",
            "ALTER SYSTEM SET wal_level = logical, and restart the server",
        )
    if standby:
        raise Unreachable(
            "the server is a standby",
            "it is tried again until it is promoted; else connect to the primary: only there a fence ties a read"
            " to the log",
        )
    if senders == 0:
        raise ConfigError(
            "max_wal_senders is 0", "ALTER SYSTEM SET max_wal_senders = 10, and restart the server"
        )
    if not ours and used >= slots:
        raise ConfigError(
            f"all {slots} replication slots are in use",
            "drop one that is orphaned, or raise max_replication_slots and restart the server",
        )
    if not (role[0] or managed[0]):
        raise ConfigError(
            f"user {role[2]} has no right to replicate", f'ALTER ROLE "{role[2]}" REPLICATION'
        )


def check_tables(
    connection: psycopg.Connection[Any],
    tables: Sequence[CatalogTable],
    rules: ColumnRules,
    *,
    copied: bool = True,
) -> None:
    """That each table can be captured whole and read whole; ConfigError for the first that cannot.

    ``copied``: whether a first copy is wanted, which goes by ranges of keys.
    """
    for table in tables:
        key = rules.message_key(table.id, column_names(connection, table))
        # Who wants no copy can do without a key where the log carries whole rows.
        needs_key = copied or table.identity != "full"
        _check_identity(table, keyed=bool(key) or not needs_key)
        _check_key(connection, table, key)
        with translated(f"checking {table.id}"):
            row = connection.execute(_READABLE, (table.oid,)).fetchone()
        if row is None:
            raise ConfigError(f"table {table.id} is gone", "take it out of table.include.list")
        readable, _, filtered = row
        if not readable:
            raise ConfigError(
                f"table {table.id} may not be read", f"GRANT SELECT ON {table.id} to the user"
            )
        if filtered:
            raise ConfigError(
                f"row security hides rows of {table.id} from this user",
                "give the user BYPASSRLS: a copy has to see every row",
            )


def check_kinds(connection: psycopg.Connection[Any], selection: Selection) -> None:
    """That nothing is asked for by name whose changes are in no log; a pattern that matches such passes over it."""
    with translated("listing what has no log"):
        rows = connection.execute(_WITHOUT_LOG).fetchall()
    for schema, name, kind in rows:
        if selection.names(TableId(schema, name)):
            what, remedy = _KINDS[kind]
            raise ConfigError(
                f"{schema}.{name} is {what}: its changes are in no log of this server",
                f"{remedy}, and take it out of table.include.list",
            )


def check_selected(tables: Sequence[TableId], wanted: str) -> None:
    """That the lists select something."""
    if not tables:
        raise ConfigError(
            f"no table matches {wanted}",
            "create the table, or correct table.include.list (schema.table, regular expressions)",
        )


def _check_key(
    connection: psycopg.Connection[Any], table: CatalogTable, key: Sequence[str]
) -> None:
    """That a key chosen by ``message.key.columns`` finds its one row, and stands in every old image of the log."""
    if not key:
        return
    chosen = f"message.key.columns chooses {', '.join(key)} for {table.id}"
    if not any(unique <= set(key) for unique in unique_keys(connection, table)):
        raise ConfigError(
            f"{chosen}, which no unique index of NOT NULL columns covers: two rows could share a key",
            "choose columns of such an index, or make one (not partial, not deferrable)",
        )
    if table.identity != "full" and not set(key) <= set(table.identity_key):
        raise ConfigError(
            f"{chosen}, and its replica identity does not carry them: deletes would have no key",
            f"ALTER TABLE {table.id} REPLICA IDENTITY FULL",
        )


def _check_identity(table: CatalogTable, *, keyed: bool) -> None:
    if table.unlogged:
        raise ConfigError(
            f"table {table.id} is not logged", f"ALTER TABLE {table.id} SET LOGGED, or exclude it"
        )
    if table.identity == "nothing":
        raise ConfigError(
            f"table {table.id} has REPLICA IDENTITY NOTHING",
            f"ALTER TABLE {table.id} REPLICA IDENTITY DEFAULT (or FULL)",
        )
    if not table.primary_key and not table.identity_key and not keyed:
        raise ConfigError(
            f"table {table.id} has no primary key",
            "add one, or set REPLICA IDENTITY USING a unique index of NOT NULL columns; or, for readers that need no"
            " key and no first copy, REPLICA IDENTITY FULL and snapshot.mode=no_data",
        )
    if not table.identity_key and table.identity != "full":
        raise ConfigError(
            f"the replica identity of table {table.id} carries no key",
            f"ALTER TABLE {table.id} REPLICA IDENTITY FULL, or make the primary key not deferrable",
        )
