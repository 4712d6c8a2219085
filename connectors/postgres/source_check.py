"""Everything of a source that ``cdc check`` looks at: its server, slot, publication, tables, and who else is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import psycopg

from cdc.config import ConnectorConfig
from cdc.findings import Finding, fail, guarded, ok, warn
from connectors.postgres import catalog, preflight, publication, slot
from connectors.postgres.catalog import CatalogTable
from connectors.postgres.connection import connect
from connectors.postgres.decoding import Shapes
from connectors.postgres.errors import translated
from connectors.postgres.settings import SourceSettings

_SLOT_SIZE = """
SELECT active_pid, coalesce(a.application_name, ''), pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn))
FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid WHERE slot_name = %s
"""

_IDLE_SLOTS = """
SELECT slot_name::text, pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn))
FROM pg_replication_slots
WHERE NOT active AND NOT temporary AND restart_lsn IS NOT NULL AND slot_name <> %s
ORDER BY restart_lsn
"""

_DEBEZIUM = """
SELECT pid, application_name FROM pg_stat_activity
WHERE datname = current_database() AND application_name ILIKE 'debezium%%' ORDER BY pid
"""

_RIGHTS = """
SELECT has_database_privilege(current_database(), 'CREATE'),
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
       ARRAY(SELECT c.oid::int8 FROM pg_class c
             WHERE c.oid = ANY (%s) AND NOT pg_has_role(current_user, c.relowner, 'USAGE'))
"""


def check_source(config: ConnectorConfig) -> Iterator[Finding]:
    """Finding after finding; an error that keeps the rest from being looked at is the last one. Changes nothing."""
    settings = SourceSettings.of(config)
    with closing(connect(settings.conninfo, connector=settings.connector, purpose="check")) as side:
        yield from preflight.server(side, settings.slot)
        yield from guarded("slot", _slot(side, settings))
        found = [
            table
            for table in catalog.tables(side, via_root=settings.via_root)
            if settings.selection.takes(table.id)
        ]
        yield from preflight.kinds(side, settings.selection)
        yield from preflight.selected([table.id for table in found], settings.selection.wanted)
        yield from guarded("publication", _publication(side, settings, found))
        yield from preflight.tables(side, found, settings.columns, copied=settings.copied)
        for table in found:
            yield from guarded(str(table.id), _columns(side, settings, table))
        yield from _neighbours(side, settings)


def _slot(side: psycopg.Connection[Any], settings: SourceSettings) -> Iterator[Finding]:
    name = settings.slot
    present = slot.find(side, name)
    if present is None:
        if settings.failover and side.info.server_version < 170000:
            yield fail("slot", "failover slots need PostgreSQL 17", "set slot.failover=false")
        yield ok("slot", f"{name} is not there yet, and will be made")
        return
    if present.lost:
        # Whether anything needs it is for the checkpoint to say.
        yield warn("slot", f"{name} is lost: {present.lost}", "see the finding on the checkpoint")
        return
    with translated(f"looking at slot {name}"):
        row = side.execute(_SLOT_SIZE, (name,)).fetchone()
    pid, application, size = row or (None, "", "0 bytes")
    if pid is not None and application != f"cdc/{settings.connector}/log"[:63]:
        yield fail(
            "slot",
            f"{name} is in use by pid {pid} ({application or 'unnamed'})",
            "stop whoever holds it, or set slot.name to a slot of this connector's own",
        )
    else:
        yield ok(
            "slot", f"{name} holds back {size} of log, {'read now' if pid else 'not read now'}"
        )


def _publication(
    side: psycopg.Connection[Any], settings: SourceSettings, found: Sequence[CatalogTable]
) -> Iterator[Finding]:
    name = settings.publication
    with translated(f"looking at publication {name}"):
        present = publication.find(side, name)
        row = side.execute(_RIGHTS, ([table.oid for table in found],)).fetchone()
        members = publication.members(side, name)
    may_create, superuser, foreign = row or (False, False, [])
    publication.check(name, present, settings)
    missing = [table for table in found if table.id not in members]
    if present is not None and not missing:
        yield ok("publication", f"{name} holds all {len(found)} selected tables")
        return
    publication.check_growth(name, present, settings, [table.id for table in missing])
    not_owned = [table for table in missing if table.oid in foreign]
    user = preflight.quoted(side.info.user)
    if present is None and not may_create:
        yield fail(
            "publication",
            f"user {side.info.user} may not create publication {name}",
            f"GRANT CREATE ON DATABASE {preflight.quoted(side.info.dbname)} TO {user}",
        )
    if settings.autocreate == "filtered" and not_owned:
        names = ", ".join(preflight.quoted(*table.id) for table in not_owned[:5])
        yield fail(
            "publication",
            f"user {side.info.user} does not own {names}: only an owner may publish a table",
            f"let the owner run: ALTER PUBLICATION {preflight.quoted(name)} ADD TABLE {names}",
        )
    if present is None and settings.autocreate == "all_tables":
        if not superuser:
            yield fail(
                "publication",
                "only a superuser may make a publication of all tables",
                "set publication.autocreate.mode=filtered",
            )
        yield warn(
            "publication",
            f"{name} will publish all tables: the server then refuses updates of tables without a key",
            "set publication.autocreate.mode=filtered",
        )
    what = "will be made" if present is None else "will get"
    yield ok("publication", f"{name} {what}: {len(missing)} tables")


def _columns(
    side: psycopg.Connection[Any], settings: SourceSettings, table: CatalogTable
) -> Iterator[Finding]:
    """That the rules of masks and lists fit, and every type is understood."""
    with translated(f"looking at {table.id}"):
        present = publication.find(side, settings.publication)
        members = publication.members(side, settings.publication) if present else set()
    if table.id in members:
        relation = catalog.relation(side, table, settings.publication)
    else:
        relation = catalog.unpublished_relation(side, table)
    rows = Shapes(settings.columns).rows(relation, catalog.hints(side, relation))
    if rows.masks:
        yield ok(str(table.id), f"masked: {', '.join(rows.masks)}")
    left_out = [column.name for column in rows.hints.attributes if column.excluded]
    if left_out:
        yield ok(str(table.id), f"left out: {', '.join(left_out)}")


def _neighbours(side: psycopg.Connection[Any], settings: SourceSettings) -> Iterator[Finding]:
    with translated("looking at other slots"):
        idle = side.execute(_IDLE_SLOTS, (settings.slot,)).fetchall()
        others = side.execute(_DEBEZIUM).fetchall()
    for name, size in idle:
        yield warn(
            "slots",
            f"slot {name} is read by nobody and holds back {size} of log",
            f"if its connector is gone: SELECT pg_drop_replication_slot('{name}')",
        )
    for pid, application in others:
        yield warn(
            "neighbours",
            f"{application} (pid {pid}) follows the same database and sees our fence messages",
            r"set message.prefix.exclude.list=cdc\..* in that connector",
        )
