"""The publication: which tables' changes the slot delivers. Made and extended as ``publication.autocreate.mode`` says.

Nothing is ever taken out of a publication here: what is published and not selected is dropped by the decoder.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from cdc.errors import ConfigError, Gone
from cdc.table import TableId
from connectors.postgres.errors import translated
from connectors.postgres.settings import SourceSettings

_FIND = """
SELECT puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot
FROM pg_publication WHERE pubname = %s
"""

_MEMBERS = "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = %s"

_MEMBER_15 = """
SELECT attnames::text[], rowfilter FROM pg_publication_tables
WHERE pubname = %s AND schemaname = %s AND tablename = %s
"""


_MEMBERSHIPS = """
SELECT t.schemaname, t.tablename, concat_ws(' ', c.oid, p.oid, (
    SELECT string_agg(concat_ws('/', r.oid, {narrowed}), ',' ORDER BY r.oid) FROM pg_publication_rel r
    WHERE r.prpubid = p.oid
      AND (r.prrelid = c.oid OR r.prrelid IN (SELECT a.relid FROM pg_partition_ancestors(c.oid) a))
)){by_schema}
FROM pg_publication p
JOIN pg_publication_tables t ON t.pubname = p.pubname
JOIN pg_namespace n ON n.nspname = t.schemaname
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
WHERE p.pubname = %s
"""

_BY_SCHEMA = """ || coalesce((
    SELECT ' ' || s.oid FROM pg_publication_namespace s WHERE s.pnpubid = p.oid AND s.pnnspid = n.oid
), '')"""


class Publication(NamedTuple):
    """A publication as the catalog has it."""

    all_tables: bool
    insert: bool
    update: bool
    delete: bool
    truncate: bool
    via_root: bool


class Published(NamedTuple):
    """What of a table is published: these columns (None: all that are not generated), rows by this SQL condition."""

    columns: tuple[str, ...] | None
    row_filter: str | None


def prepare(
    connection: psycopg.Connection[Any], settings: SourceSettings, selected: Sequence[TableId]
) -> bool:
    """Make or extend the publication until it holds the selected tables; whether that changed it.

    ConfigError when it may not be changed and lacks a table or an operation.
    """
    name = settings.publication
    with translated(f"preparing publication {name}"):
        present = find(connection, name)
        check(name, present, settings)
        if present is None:
            _create(connection, settings, selected)
            return True
        missing = sorted(set(selected) - members(connection, name))
        check_growth(name, present, settings, missing)
        if not missing:
            return False
        connection.execute(
            sql.SQL("ALTER PUBLICATION {} ADD TABLE {}").format(
                sql.Identifier(name), _tables(missing)
            )
        )
        return True


def outrun(connection: psycopg.Connection[Any]) -> None:
    """End a transaction whose xid is above every one that runs now.

    A snapshot's xmax is one past the newest transaction that *ended*, so those that run can be above it. From here on
    they are below: whoever waits until xmin has passed an xmax taken after this has waited for all of them.
    """
    with translated("taking a transaction id"):
        connection.execute("SELECT pg_current_xact_id()")


def find(connection: psycopg.Connection[Any], name: str) -> Publication | None:
    """The publication of this name, None when there is none."""
    row = connection.execute(_FIND, (name,)).fetchone()
    return Publication(*row) if row else None


def members(connection: psycopg.Connection[Any], name: str) -> set[TableId]:
    """The tables whose changes it delivers, under the names that the log gives them."""
    return {TableId(*row) for row in connection.execute(_MEMBERS, (name,)).fetchall()}


def memberships(connection: psycopg.Connection[Any], name: str) -> dict[TableId, str]:
    """Of each member a mark that is another one once it, or its table, has been dropped and made again.

    Another row filter or column list is another membership too: what it left out until then was never delivered.
    """
    new = connection.info.server_version >= 150000
    query = _MEMBERSHIPS.format(
        narrowed="md5(r.prqual::text), r.prattrs::text" if new else "NULL",
        by_schema=_BY_SCHEMA if new else "",
    )
    rows = connection.execute(query.encode(), (name,)).fetchall()
    return {TableId(schema, table): mark for schema, table, mark in rows}


def published(connection: psycopg.Connection[Any], name: str, table: TableId) -> Published:
    """Column list and row filter of one table; Gone when the publication lacks it."""
    if connection.info.server_version < 150000:
        if table not in members(connection, name):
            raise _not_published(name, table)
        return Published(None, None)
    row = connection.execute(_MEMBER_15, (name, *table)).fetchone()
    if row is None:
        raise _not_published(name, table)
    return Published(tuple(row[0]), row[1])


def _create(
    connection: psycopg.Connection[Any], settings: SourceSettings, selected: Sequence[TableId]
) -> None:
    name = settings.publication
    what = {
        "all_tables": sql.SQL(" FOR ALL TABLES"),
        "filtered": sql.SQL(" FOR TABLE ") + _tables(sorted(selected)),
    }.get(settings.autocreate, sql.SQL(""))
    options = sql.SQL(" WITH (publish_via_partition_root = {})").format(
        sql.SQL("true" if settings.via_root else "false")
    )
    connection.execute(
        sql.SQL("CREATE PUBLICATION {}").format(sql.Identifier(name)) + what + options
    )


def check(name: str, present: Publication | None, settings: SourceSettings) -> None:
    """ConfigError for a publication that delivers other changes than it must, or that we may not make."""
    if present is None:
        if settings.autocreate == "disabled":
            raise ConfigError(
                f"there is no publication {name}",
                "create it, or set publication.autocreate.mode=filtered",
            )
        return
    lacking = [
        operation
        for operation in ("insert", "update", "delete", "truncate")
        if not getattr(present, operation)
        and not (operation == "truncate" and settings.skip_truncates)
    ]
    if lacking:
        raise ConfigError(
            f"publication {name} does not publish {', '.join(lacking)}",
            f"ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate')",
        )
    if present.via_root != settings.via_root:
        raise ConfigError(
            f"publication {name} has publish_via_partition_root = {str(present.via_root).lower()}",
            f"set publish.via.partition.root={str(present.via_root).lower()}, or alter the publication",
        )


def check_growth(
    name: str, present: Publication | None, settings: SourceSettings, missing: Sequence[TableId]
) -> None:
    """ConfigError where the publication lacks these tables and may not get them."""
    made = present is None and settings.autocreate != "no_tables"
    grows = settings.autocreate == "filtered" and present is not None and not present.all_tables
    if missing and not (made or grows):
        raise ConfigError(
            f"publication {name} does not hold {_listed(missing)}",
            f"ALTER PUBLICATION {name} ADD TABLE ..., or set publication.autocreate.mode=filtered",
        )


def _tables(tables: Collection[TableId]) -> sql.Composable:
    # ONLY: an inheritance child is a table of its own, selected or not by its own name.
    return sql.SQL(", ").join(sql.SQL("ONLY {}").format(sql.Identifier(*table)) for table in tables)


def _listed(tables: Sequence[TableId]) -> str:
    shown = ", ".join(map(str, tables[:5]))
    return f"{shown} and {len(tables) - 5} more" if len(tables) > 5 else shown


def _not_published(name: str, table: TableId) -> Gone:
    return Gone(f"publication {name} does not hold {table}", "add the table to it, and backfill it")
