"""Everything of a replica that ``cdc check`` looks at: its server, the role's rights, constraints that may refuse rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg

from cdc.config import ConnectorConfig
from cdc.findings import Finding, fail, ok, warn
from connectors.postgres.connection import connect
from connectors.postgres.errors import translated
from connectors.postgres.preflight import quoted
from connectors.postgres.sink_settings import SinkSettings

_SUBJECT = "replica"

_SERVER = """
SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on',
       has_database_privilege(current_database(), 'CREATE'),
       to_regnamespace('cdc') IS NOT NULL AND NOT has_schema_privilege(to_regnamespace('cdc'), 'CREATE, USAGE'),
       to_regnamespace('cdc') IS NULL,
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
"""

# Tables of the replica that have other unique constraints, foreign keys, or triggers of a user's.
_CONSTRAINTS = """
SELECT n.nspname, c.relname,
       ARRAY(SELECT i.indexrelid::regclass::text FROM pg_index i
             WHERE i.indrelid = c.oid AND i.indisunique AND NOT i.indisprimary
               AND EXISTS (SELECT FROM pg_index p WHERE p.indrelid = c.oid AND p.indisprimary)),
       EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'f'),
       EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'D'))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'cdc')
ORDER BY 1, 2
"""


def check_sink(config: ConnectorConfig) -> Iterator[Finding]:
    """Finding after finding. Changes nothing."""
    settings = SinkSettings.of(config)
    with closing(connect(settings.conninfo, connector=settings.connector, purpose="check")) as side:
        yield from _rights(side)
        may = _may_replicate(side)
        if may:
            yield ok(
                _SUBJECT, "session_replication_role may be set: no trigger or foreign key runs"
            )
        else:
            yield warn(
                _SUBJECT,
                f"user {side.info.user} may not set session_replication_role: triggers and foreign keys run",
                f"GRANT SET ON PARAMETER session_replication_role TO {quoted(side.info.user)} (PostgreSQL 15)",
            )
        yield from _constraints(side, config["apply.mode"], runs=not may)


def _rights(side: psycopg.Connection[Any]) -> Iterator[Finding]:
    with translated("checking the replica"):
        row = side.execute(_SERVER).fetchone()
    if row is None:
        yield fail(_SUBJECT, "it does not answer", "check connection.url")
        return
    standby, read_only, may_create, cdc_closed, cdc_missing, _ = row
    yield ok(
        _SUBJECT, f"PostgreSQL {side.info.server_version // 10000}, database {side.info.dbname}"
    )
    if standby:
        yield fail(_SUBJECT, "the replica is a standby", "connect to its primary")
    elif read_only:
        yield fail(
            _SUBJECT,
            "default_transaction_read_only is on",
            f"ALTER ROLE {quoted(side.info.user)} SET default_transaction_read_only = off",
        )
    if cdc_missing and not may_create:
        yield fail(
            _SUBJECT,
            f"user {side.info.user} may not make the schema cdc, where the checkpoint stands",
            f"GRANT CREATE ON DATABASE {quoted(side.info.dbname)} TO {quoted(side.info.user)}",
        )
    if cdc_closed:
        yield fail(
            _SUBJECT,
            f"user {side.info.user} may not use the schema cdc, where the checkpoint stands",
            f"GRANT ALL ON SCHEMA cdc TO {quoted(side.info.user)}",
        )


def _may_replicate(side: psycopg.Connection[Any]) -> bool:
    try:
        with side.transaction(force_rollback=True):
            side.execute("SET LOCAL session_replication_role = replica")
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True


def _constraints(side: psycopg.Connection[Any], mode: str, *, runs: bool) -> Iterator[Finding]:
    with translated("looking at the replica's tables"):
        rows = side.execute(_CONSTRAINTS).fetchall()
    for schema, name, unique, foreign_key, triggers in rows:
        table = f"{schema}.{name}"
        if unique and mode == "partition":
            yield warn(
                table,
                f"{', '.join(unique)} is unique beside the key: partitions are applied apart, so rows may clash",
                "drop it in the replica, or set apply.mode=transaction",
            )
        if runs and foreign_key:
            yield warn(
                table,
                "its foreign keys are checked",
                "drop them in the replica: the source has checked",
            )
        if runs and triggers:
            yield warn(
                table,
                "its triggers run",
                "drop or disable them in the replica, if that is not meant",
            )
