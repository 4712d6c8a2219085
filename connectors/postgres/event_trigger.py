"""The event trigger at the source: schema changes as messages in the log, at their own places.

It is one function in a schema of ours, run at the end of each statement that makes or alters tables (``cdc_ddl_end``),
at each drop (``cdc_drop``) and before each rewrite that may change values without a row event (``cdc_rewrite``). It
emits transactional messages, so a change that is rolled back tells nothing. It never fails a statement: what it cannot
do it says in a warning. ``DROP SCHEMA cdc_source CASCADE`` takes all of it away.
https://www.postgresql.org/docs/current/event-triggers.html
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any, Final

import psycopg
from psycopg import errors, sql

from cdc.errors import ConfigError
from connectors.postgres.description import EXPRESSION
from connectors.postgres.errors import translated

log = logging.getLogger(__name__)

SCHEMA_PREFIX: Final = "cdc.schema"
"""Of its messages: JSON with one of ``table`` (a description, and whether it was ``created`` just now), ``rewritten`` or ``dropped`` (oid, schema, name)."""

_LOCK = 0x6364_632E_6474

# Reasons of a rewrite that changes values: 2, a default that is computed for each row; 4, another type or expression.
# The other ones (1, LOGGED; 8, access method) move rows as they are.
_BODY = f"""
DECLARE
    message json;
BEGIN
    IF tg_event = 'table_rewrite' THEN
        IF pg_event_trigger_table_rewrite_reason() & 6 <> 0 THEN
            FOR message IN
                SELECT json_build_object('rewritten', json_build_array(c.oid::int8, n.nspname, c.relname))
                FROM pg_class o JOIN pg_class c ON c.oid IN (o.oid, pg_partition_root(o.oid))
                JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE o.oid = pg_event_trigger_table_rewrite_oid() AND o.relpersistence <> 't'
            LOOP
                PERFORM pg_logical_emit_message(true, '{SCHEMA_PREFIX}', message::text);
            END LOOP;
        END IF;
    ELSIF tg_event = 'sql_drop' THEN
        FOR message IN
            SELECT json_build_object('dropped', json_build_array(d.objid::int8, d.schema_name, d.object_name))
            FROM pg_event_trigger_dropped_objects() d
            WHERE d.object_type = 'table' AND NOT d.is_temporary
        LOOP
            PERFORM pg_logical_emit_message(true, '{SCHEMA_PREFIX}', message::text);
        END LOOP;
    ELSE
        FOR message IN
            WITH RECURSIVE touched AS (
                SELECT objid AS oid FROM pg_event_trigger_ddl_commands() WHERE classid = 'pg_class'::regclass
                UNION
                SELECT c.oid FROM pg_event_trigger_ddl_commands() d JOIN pg_class c ON c.relnamespace = d.objid
                WHERE d.classid = 'pg_namespace'::regclass
                UNION
                SELECT a.attrelid FROM pg_event_trigger_ddl_commands() d
                JOIN pg_type t ON t.oid = d.objid OR t.typelem = d.objid OR t.typbasetype = d.objid
                JOIN pg_attribute a ON a.atttypid = t.oid
                WHERE d.classid = 'pg_type'::regclass
            ), family AS (
                SELECT oid FROM touched
                UNION SELECT pg_partition_root(oid)::oid FROM touched
                UNION SELECT i.inhrelid FROM family f JOIN pg_inherits i ON i.inhparent = f.oid
            )
            SELECT json_build_object('table', {EXPRESSION}, 'created', f.created)
            FROM (SELECT oid, bool_or(created) AS created FROM (
                      SELECT oid, false AS created FROM family
                      UNION ALL
                      SELECT objid, command_tag NOT LIKE 'ALTER %' FROM pg_event_trigger_ddl_commands()
                      WHERE classid = 'pg_class'::regclass) o GROUP BY oid) f
            JOIN pg_class c ON c.oid = f.oid JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
              AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
            ORDER BY f.created DESC, c.oid
        LOOP
            PERFORM pg_logical_emit_message(true, '{SCHEMA_PREFIX}', message::text);
        END LOOP;
    END IF;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'cdc could not note a schema change: %', sqlerrm
        USING HINT = 'verify the tables that were changed';
END
"""  # noqa: S608 - put together of our own constants

_MARK = hashlib.sha256(_BODY.encode()).hexdigest()[:16]

_INSTALL = f"""
CREATE SCHEMA IF NOT EXISTS cdc_source;
GRANT USAGE ON SCHEMA cdc_source TO PUBLIC;
CREATE OR REPLACE FUNCTION cdc_source.cdc_note_schema_change() RETURNS event_trigger LANGUAGE plpgsql
    SET search_path = pg_catalog SET timezone = 'UTC' SET datestyle = 'ISO' SET intervalstyle = 'postgres'
    SET extra_float_digits = 1 SET bytea_output = 'hex' AS $cdc${_BODY}$cdc$;
COMMENT ON FUNCTION cdc_source.cdc_note_schema_change() IS 'change data capture {_MARK}';
DROP EVENT TRIGGER IF EXISTS cdc_ddl_end;
DROP EVENT TRIGGER IF EXISTS cdc_drop;
DROP EVENT TRIGGER IF EXISTS cdc_rewrite;
CREATE EVENT TRIGGER cdc_ddl_end ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TYPE', 'CREATE SCHEMA',
                 'ALTER SCHEMA')
    EXECUTE FUNCTION cdc_source.cdc_note_schema_change();
CREATE EVENT TRIGGER cdc_drop ON sql_drop EXECUTE FUNCTION cdc_source.cdc_note_schema_change();
CREATE EVENT TRIGGER cdc_rewrite ON table_rewrite EXECUTE FUNCTION cdc_source.cdc_note_schema_change();
ALTER EVENT TRIGGER cdc_ddl_end ENABLE ALWAYS;
ALTER EVENT TRIGGER cdc_drop ENABLE ALWAYS;
ALTER EVENT TRIGGER cdc_rewrite ENABLE ALWAYS;
"""

# Each of the three rows is made anew by whatever enables, disables or replaces it, and then has another xmin.
_FOUND = """
SELECT string_agg(format('%s:%s', t.oid, t.xmin), ',' ORDER BY t.evtname),
       count(*) = 3 AND bool_and(t.evtenabled IN ('O', 'A')), min(obj_description(f.oid, 'pg_proc'))
FROM pg_event_trigger t JOIN pg_proc f ON f.oid = t.evtfoid JOIN pg_namespace n ON n.oid = f.pronamespace
WHERE n.nspname = 'cdc_source' AND f.proname = 'cdc_note_schema_change'
"""


def active(connection: psycopg.Connection[Any]) -> str:
    """What tells this installation from any other: the same text later means that it ran without a break.

    Empty when it is not there, is not enabled, or is of another version of this software.
    """
    with translated("looking for the event trigger"):
        row = connection.execute(_FOUND).fetchone()
    if row is None or not row[1] or row[2] != f"change data capture {_MARK}":
        return ""
    return str(row[0])


def prepare(connection: psycopg.Connection[Any], *, required: bool) -> str:
    """Install it unless it is there; `active` then, empty where that is not permitted.

    ConfigError where it is ``required`` and not permitted.
    """
    if found := active(connection):
        return found
    try:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            if not active(connection):
                connection.execute(sql.SQL(_INSTALL))
    except errors.InsufficientPrivilege as error:
        if required:
            raise ConfigError(
                "the event trigger that tells of schema changes may not be made by this user",
                "start the connector once as a superuser, or set schema.event.trigger=auto",
            ) from error
        return ""
    except psycopg.Error as error:
        with translated("installing the event trigger"):
            raise error from None
    log.info("installed the event triggers cdc_ddl_end, cdc_drop and cdc_rewrite")
    return active(connection)
