"""One transaction of a replica: events brought to one change per key and table, written, and the checkpoint with them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from psycopg import errors

from cdc.checkpoint import SinkCheckpoint, TableState
from cdc.errors import Failed, Rejected
from cdc.event import Delivered
from cdc.protocols import Shape
from cdc.table import TableId
from connectors.postgres import replica_tables, statements
from connectors.postgres.net_changes import NetChanges, keyless
from connectors.postgres.row_faults import RowFaults
from connectors.postgres.sink_session import ReplicaSession
from connectors.postgres.sink_settings import SinkSettings
from connectors.postgres.table_writer import TableWriter

_log = logging.getLogger(__name__)

Ended = Callable[[RowFaults, Mapping[str, TableState]], None]
"""Takes what a committed transaction brought: the faults that it met, and tables' new states."""


class _Run(NamedTuple):
    changes: NetChanges
    writer: TableWriter


class SinkTransaction:
    """Rows and checkpoint that appear together or not at all. ``number`` numbers the session's transactions."""

    def __init__(
        self,
        session: ReplicaSession,
        settings: SinkSettings,
        live: frozenset[str],
        number: int,
        committed: Ended,
    ) -> None:
        self._session = session
        self._settings = settings
        self._live = live
        self._number = number
        self._committed = committed
        self._state: Literal["open", "failed", "ended"] = "open"
        self._saved = False
        self._runs: dict[str, _Run] = {}
        self._emptied: dict[TableId, None] = {}
        self._faults = RowFaults(live, fails=settings.missing_rows == "fail")
        self._tables: dict[str, TableState] = {}
        self._lost: dict[str, TableState] = {}

    @property
    def ended(self) -> bool:
        """Whether another one may begin."""
        return self._state == "ended"

    def apply(self, events: Sequence[Delivered]) -> None:
        """Apply in this order, ``batch.size`` events at a time. See `cdc.protocols.StoreTransaction`."""
        size = self._settings.batch_size
        with self._working("applying changes to the replica"):
            for start in range(0, len(events), size):
                self._take(events[start : start + size])
                self._write_all()

    def attempt(self, events: Sequence[Delivered]) -> Rejected | None:
        """Apply behind a savepoint. See `cdc.protocols.StoreTransaction`."""
        connection = self._session.connection
        with self._working("beginning to apply changes"):
            connection.execute("SAVEPOINT cdc_attempt")
        before = self._remembered()
        try:
            self.apply(events)
        except Rejected as error:
            self._state = "open"
            with self._working("undoing changes that the replica rejects"):
                connection.execute("ROLLBACK TO SAVEPOINT cdc_attempt")
                connection.execute("RELEASE SAVEPOINT cdc_attempt")
                before()
            return error
        with self._working("applying changes to the replica"):
            connection.execute("RELEASE SAVEPOINT cdc_attempt")
        return None

    def _remembered(self) -> Callable[[], None]:
        """What this side knows, to be put back when the replica forgets what came since."""
        runs, lost, faults = dict(self._runs), dict(self._lost), self._faults.copy()
        held = [(run.changes, run.changes.held()) for run in runs.values()]
        writers = self._session.writers.remembered()

        def put_back() -> None:
            self._runs, self._lost, self._faults = runs, lost, faults
            self._emptied.clear()
            for changes, before in held:
                changes.put_back(before)
            writers()

        return put_back

    def ensure(self, shape: Shape) -> None:
        """Make the table, or bring it into this shape, as far as ``schema.evolution`` goes."""
        with self._working(f"bringing {shape.table.id} in the replica into shape"):
            self._write_emptied()
            if (run := self._runs.pop(shape.collection, None)) is not None:
                run.changes.settle()
                self._write(run)
            self._note(shape.collection, self._session.writers.ensure(shape))

    def save(self, checkpoint: SinkCheckpoint) -> None:
        """Store the checkpoint with the rows, and keep claims waiting from here to the end. Fenced as ``commit``."""
        with self._working("saving the checkpoint in the replica"):
            self._settle()
            if self._lost:
                checkpoint = replace(checkpoint, tables={**self._lost, **checkpoint.tables})
            if not self._session.save(checkpoint):
                raise self._session.overtaken()
            self._saved = True
            self._tables.update(checkpoint.tables)

    def commit(self) -> None:
        """Visible on return; durable by then under ``commit.synchronous``, else soon. Never rows without checkpoint."""
        with self._working("committing in the replica"):
            self._settle()
            connection = self._session.connection
            if not self._saved and not self._session.hold():
                raise self._session.fenced()
            if connection.execute("COMMIT").statusmessage != "COMMIT":
                raise Failed("the replica rolled the transaction back instead of committing it")
        self._state = "ended"
        self._committed(self._faults, self._tables)

    def rollback(self) -> None:
        """Nothing took effect. Safe to repeat, and after ``commit``."""
        if self._state != "ended":
            self._state = "ended"
            self._session.roll_back()

    @contextlib.contextmanager
    def _working(self, doing: str) -> Iterator[None]:
        if self._state != "open":
            raise Failed(f"the transaction has {self._state}, while {doing}", "roll it back")
        self._state = "failed"
        with self._session.translated(doing):
            yield
        self._state = "open"

    def _take(self, events: Sequence[Delivered]) -> None:
        runs = self._runs
        for event in events:
            if self._skipped(event):
                continue
            if event.op == "t":
                self._empty(event)
                continue
            if self._emptied:
                self._write_emptied()
            run = runs.get(event.collection)
            if run is None or run.changes.table is not event.table:
                run = self._run_of(event)
            if (move := run.changes.take(event)) is not None:
                self._write(run)
                moved = run.writer.move(move)
                self._faults.count_missing(event.collection, event.table, int(not moved))

    def _skipped(self, event: Delivered) -> bool:
        op = event.op
        if op == "d":
            # A row whose key changed is moved, not deleted.
            return not self._settings.deletes and event.other_key is None
        if op == "t":
            return not self._settings.truncates
        return op == "m"

    def _run_of(self, event: Delivered) -> _Run:
        """Where the event is taken up. What an earlier row schema brought is written first."""
        if event.key is None:
            raise keyless(event)
        if (before := self._runs.get(event.collection)) is not None:
            before.changes.settle()
            self._write(before)
        target = self._settings.target(event.table.id, event.topic)
        known = event.collection in self._session.writers
        if event.collection in self._live and not (
            known or replica_tables.exists(self._session.connection, target)
        ):
            _log.warning(
                "%s was dropped from the replica, and is made anew without the rows it had:"
                " cdc table backfill FILE --table %s",
                target,
                event.collection,
            )
            self._lost[event.collection] = "stale"
        writer, emptied = self._session.writers.of(event)
        self._note(event.collection, emptied)
        run = _Run(NetChanges(event.collection, writer.table, writer.transcoder), writer)
        self._runs[event.collection] = run
        return run

    def _note(self, collection: str, emptied: Sequence[str]) -> None:
        if emptied:
            _log.warning(
                "%s: rows could not follow in %s: a copy of the table brings them",
                collection,
                ", ".join(emptied),
            )
            self._lost[collection] = "stale"

    def _settle(self) -> None:
        for run in self._runs.values():
            run.changes.settle()
        self._write_all()

    def _write_all(self) -> None:
        self._write_emptied()
        for run in self._runs.values():
            self._write(run)

    def _write(self, run: _Run) -> None:
        if len(run.changes):
            changes = run.changes
            mismatched = run.writer.mismatched(changes, self._number)
            self._faults.count_mismatched(changes.collection, changes.table, mismatched)
            missing = run.writer.write(changes, self._number)
            self._faults.count_missing(changes.collection, changes.table, missing)
            changes.clear()

    def _empty(self, event: Delivered) -> None:
        """Note a truncate, behind what came before. Those of one statement follow each other, and go together.

        Its event has no key, so that its row schema may lack one too: the table's name is all that is taken from it.
        """
        if (run := self._runs.get(event.collection)) is not None:
            run.changes.settle()
            self._write(run)
        target = self._settings.target(event.table.id, event.topic)
        if replica_tables.exists(self._session.connection, target):
            self._emptied[target] = None

    def _write_emptied(self) -> None:
        if not self._emptied:
            return
        connection = self._session.connection
        tables, self._emptied = list(self._emptied), {}
        connection.execute("SAVEPOINT cdc_truncate")
        try:
            connection.execute(statements.truncate(tables))
        except errors.FeatureNotSupported:
            # A table of the replica that is not in the list refers to one that is.
            connection.execute("ROLLBACK TO SAVEPOINT cdc_truncate")
            for table in tables:
                connection.execute(statements.delete_all(table))
        connection.execute("RELEASE SAVEPOINT cdc_truncate")
