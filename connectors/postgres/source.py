"""The source: one database's log as items, and what capture asks of the server beside it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql

from cdc.checkpoint import Identity
from cdc.config import ConnectorConfig
from cdc.errors import ConfigError, Gone, Refused
from cdc.event import Item
from cdc.fence import Signal, Snapshot
from cdc.findings import insist
from cdc.protocols import Horizon, Slot
from cdc.table import Table, TableId
from connectors.postgres import (
    catalog,
    event_trigger,
    heartbeats,
    preflight,
    publication,
    slot,
    snapshots,
)
from connectors.postgres.connection import connect
from connectors.postgres.decoding import RowDecoder, Shapes
from connectors.postgres.description import Description, describe
from connectors.postgres.errors import translated
from connectors.postgres.log import ReplicationLog, TooWide
from connectors.postgres.pgoutput import Decoder
from connectors.postgres.relation import Relation
from connectors.postgres.schema_history import SchemaHistory
from connectors.postgres.server_texts import ServerTexts
from connectors.postgres.settings import SourceSettings

log = logging.getLogger(__name__)


class PostgresSource:
    """`cdc.protocols.Source` for PostgreSQL 14 and later."""

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings
        self._side: psycopg.Connection[Any] | None = None
        self._log: ReplicationLog | None = None
        self._decoder: Decoder | None = None
        self._shapes = Shapes(settings.columns, settings.handling, ServerTexts(self._connection))
        self._history = SchemaHistory(self._shape_of, self._joins)
        self._added: set[TableId] = set()

    def identify(self) -> Identity:
        """IDENTIFY_SYSTEM, and the database's name."""
        log = self._new_log()
        try:
            found = log.identify()
        finally:
            log.close()
        return Identity(found.system_id, found.timeline, found.database)

    def switch_point(self, timeline: int) -> int:
        """TIMELINE_HISTORY's line for ``timeline``."""
        log = self._new_log()
        try:
            return log.switch_point(timeline)
        finally:
            log.close()

    def missing(self) -> frozenset[TableId]:
        """All of them when there is no publication."""
        side, name = self._connection(), self._settings.publication
        with translated(f"looking at publication {name}"):
            members = publication.members(side, name)
        return frozenset(table.id for table in self._selected()) - members

    def selects(self, table: TableId) -> bool:
        """By its name alone."""
        return self._settings.selection.takes(table)

    def prepare(self) -> bool:
        """Preflight, then the publication."""
        side, settings = self._connection(), self._settings
        insist(preflight.server(side, settings.slot))
        selected = self._selected()
        wanted = settings.selection.wanted
        insist(preflight.kinds(side, settings.selection))
        insist(preflight.selected([table.id for table in selected], wanted))
        insist(preflight.tables(side, selected, settings.columns, copied=settings.copied))
        changed = publication.prepare(side, settings, [table.id for table in selected])
        self._watch(side)
        # Even when nothing changed: a predecessor may have changed it, and died before it noted so.
        publication.outrun(side)
        return changed

    def tables(self) -> Sequence[Table]:
        """Selected tables that the publication holds."""
        return [rows.table for rows in self.decoders()]

    def decoders(self) -> list[RowDecoder]:
        """Of these tables, as the catalog has them now."""
        side, name = self._connection(), self._settings.publication
        with translated(f"looking at publication {name}"):
            members = publication.members(side, name)
        return [
            self._rows(catalog.relation(side, table, name))
            for table in self._selected()
            if table.id in members
        ]

    def memberships(self) -> Mapping[TableId, str]:
        """Made of the OIDs of the table, of the publication, and of what makes it a member, with its filter."""
        side, name = self._connection(), self._settings.publication
        with translated(f"looking at publication {name}"):
            return publication.memberships(side, name)

    def slot(self) -> Slot | None:
        """Our row of pg_replication_slots."""
        return slot.find(self._connection(), self._settings.slot)

    def create_slot(self, waits: Callable[[str], None] = lambda _: None) -> int:
        """Waits until transactions that run now have ended; a session beside it looks for them."""
        settings = self._settings
        with connect(settings.conninfo, connector=settings.connector, purpose="look") as beside:
            # Newer ones than those that run now are not waited for.
            publication.outrun(beside)
            newest = snapshots.visible(beside).xmax

            def look() -> None:
                waits(snapshots.blocker(beside, newest))

            return slot.create(
                self._connection(), settings.slot, failover=settings.failover, waits=look
            )

    def drop_slot(self) -> None:
        """A session of this connector that holds the slot is ended."""
        self._end_stream()
        settings = self._settings
        slot.drop(self._connection(), settings.connector, settings.slot, settings.slot_patience)

    def memos(self) -> Mapping[TableId, str]:
        """By the catalog."""
        side = self._connection()
        with translated("describing the tables"):
            found = [describe(side, table.oid) for table in self._selected()]
        return {description.id: description.memo for description in found if description}

    def start(self, after: int, memos: Mapping[TableId, str]) -> None:
        """START_REPLICATION; a predecessor's session that lingers in the slot is ended."""
        self._end_stream()
        side, settings = self._connection(), self._settings
        selected = self._selected()
        self._history.begin(
            ((table.oid, table.id) for table in selected),
            [
                found
                for table in selected
                if table.partitioned and (found := describe(side, table.oid))
            ],
            memos,
        )
        self._decoder = Decoder(
            self._describe,
            self._history.read,
            takes_messages=settings.messages.takes,
            joins=self._added_by,
        )

        def attempt() -> None:
            log = self._new_log()
            try:
                if settings.failover and slot.lacks_failover(side, settings.slot):
                    log.fail_over(settings.slot)
                log.start(settings.slot, after, self._options(side))
            except BaseException:
                log.close()
                raise
            self._log = log

        slot.when_free(side, settings.connector, settings.slot, attempt, settings.slot_patience)

    def read(self, timeout: float) -> Sequence[Item]:
        """At most about 1 MiB of frames' items."""
        log, decoder = self._stream()
        try:
            return decoder.decode(log.read(timeout))
        except TooWide as wide:
            what = f"a row of {decoder.named(wide.oid)}" if wide.oid else "a logical message"
            raise Refused(
                f"{what} has {wide.size} bytes in the log, far more than a record may have",
                "raise max.message.bytes of the topic and producer.override.message.max.bytes with the brokers' and"
                " the sinks' limits, or leave out the wide column by column.exclude.list",
            ) from None

    def confirm(self, lsn: int) -> None:
        """Sent within half a second of further calls."""
        self._stream()[0].confirm(lsn)

    def keep_alive(self) -> None:
        """Nothing to do before the stream has begun."""
        if self._log is not None:
            self._log.keep_alive()

    def snapshot(self) -> Snapshot:
        """``pg_current_snapshot()``."""
        with translated("taking a snapshot"):
            return snapshots.visible(self._connection())

    def waiting_for(self, xid: int) -> str:
        """From pg_stat_activity and pg_prepared_xacts."""
        with translated("looking for old transactions"):
            return snapshots.blocker(self._connection(), xid)

    def horizon(self) -> Horizon:
        """The readers' lowest xmin is that of pg_stat_activity."""
        with translated("taking a snapshot"):
            return snapshots.horizon(self._connection())

    def heartbeat(self) -> None:
        """``heartbeat.action.query``, for a few seconds at most."""
        if self._settings.heartbeat_query:
            heartbeats.act(self._connection(), self._settings.heartbeat_query)

    def emit(self, prefix: str, content: bytes) -> int:
        """``pg_logical_emit_message``."""
        with translated(f"emitting a message {prefix}"):
            return snapshots.emit(self._connection(), prefix, content)

    def close(self) -> None:
        """The slot stays."""
        self._end_stream()
        if self._side is not None:
            self._side.close()
            self._side = None

    def _selected(self) -> list[catalog.CatalogTable]:
        found = catalog.tables(self._connection(), via_root=self._settings.via_root)
        return [table for table in found if self._takes(table.id)]

    def _takes(self, table: TableId) -> bool:
        return table in self._added or self._settings.selection.takes(table)

    def _added_by(self, content: bytes) -> TableId | None:
        """The table that a signal asks to be captured from there on, if it is one for us."""
        try:
            signal = Signal.from_message(content)
        except ValueError:
            return None  # whoever handles signals tells of it
        if signal.type != "add" or signal.source != self._settings.prefix:
            return None
        self._added.add(signal.table)
        return signal.table

    def _describe(self, relation: Relation) -> RowDecoder | None:
        if not self._takes(relation.id):
            return None
        return self._rows(relation, self._history.description(relation))

    def _rows(self, relation: Relation, told: Description | None = None) -> RowDecoder:
        memo = self._history.memo(relation)
        return self._shapes.rows(relation, catalog.hints(self._connection(), relation, told, memo))

    def _shape_of(self, described: Description) -> Table | None:
        relation = described.relation
        partial = described.partition if self._settings.via_root else described.kind == "p"
        if partial or not described.logged or not self._takes(described.id):
            return None
        return self._rows(relation, described).table

    def _joins(self, described: Description) -> bool:
        if self._settings.autocreate not in ("filtered", "all_tables"):
            return False
        side = self._connection()
        try:
            found = catalog.table(side, described.id)
            insist(preflight.tables(side, [found], self._settings.columns))
        except (ConfigError, Gone) as error:
            log.warning("%s is not captured: %s", described.id, error)
            return False
        return True

    def _watch(self, side: psycopg.Connection[Any]) -> None:
        mode = self._settings.event_trigger
        if mode == "off":
            return
        if not event_trigger.prepare(side, required=mode == "require"):
            log.warning(
                "this user may not make event triggers: an ALTER TABLE that computes values anew is not noticed while"
                " the connector runs (start it once as a superuser)"
            )

    def _options(self, side: psycopg.Connection[Any]) -> dict[str, str]:
        # Version 1 of the protocol has all that is needed while transactions in progress are not streamed;
        # later ones would change nothing but the option's value.
        return {
            "proto_version": "1",
            "publication_names": sql.Identifier(self._settings.publication).as_string(side),
            "messages": "true",
            "binary": "true",
            **self._settings.stream_options,
        }

    def _connection(self) -> psycopg.Connection[Any]:
        if self._side is None:
            self._side = connect(
                self._settings.conninfo, connector=self._settings.connector, purpose="side"
            )
        return self._side

    def _new_log(self) -> ReplicationLog:
        settings = self._settings
        return ReplicationLog(settings.conninfo, settings.connector, settings.widest)

    def _stream(self) -> tuple[ReplicationLog, Decoder]:
        if self._log is None or self._decoder is None:
            raise RuntimeError("the stream has not been started")
        return self._log, self._decoder

    def _end_stream(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None


def open_source(config: ConnectorConfig) -> PostgresSource:
    """A source by its configuration; connects at first use."""
    return PostgresSource(SourceSettings.of(config))
