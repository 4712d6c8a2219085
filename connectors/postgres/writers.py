"""The table writers of one session, by collection: made as row schemas are met, renewed as they change."""

from __future__ import annotations

from cdc.errors import Failed
from cdc.event import Delivered
from cdc.table import Table
from connectors.postgres.checkpoints import Session
from connectors.postgres.replica_tables import exists, find_or_make
from connectors.postgres.sink_settings import SinkSettings
from connectors.postgres.table_writer import TableWriter
from connectors.postgres.tuples import TupleTranscoder

_MOST = 128
"""Writers that are kept between transactions: the staging table of each is emptied at every commit."""


_MAKING = """
SELECT pg_advisory_xact_lock(hashtext('cdc.tables of the replica'), hashtext(current_database()))
"""
"""One lock for all tables, so that two tasks that meet several new ones never wait for each other in turn."""


class Writers:
    """Knows the writer for each collection's present row schema.

    ``shared``: other sessions write other rows of the same tables at the same time, and may make them too.
    """

    def __init__(self, session: Session, settings: SinkSettings, *, shared: bool = False) -> None:
        self._session = session
        self._settings = settings
        self._shared = shared
        self._by_collection: dict[str, TableWriter] = {}

    def __contains__(self, collection: str) -> bool:
        """Whether a table was found for the collection in this session."""
        return collection in self._by_collection

    def of(self, event: Delivered) -> TableWriter:
        """The writer for the event's row schema. Finds, makes or alters its table in the open transaction.

        Failed when the table does not fit.
        """
        known = self._by_collection.pop(event.collection, None)
        if known is None or known.table is not event.table:
            if known is not None:
                known.drop()
            known = self._make(event)
        # Put back last: the first is the one that was not used for the longest time.
        self._by_collection[event.collection] = known
        return known

    def ensure(self, table: Table, topic: str) -> None:
        """Make the table for a row schema, if there is none and tables are made here at all."""
        target = self._settings.target(table.id, topic)
        self._wait_for_others()
        if self._settings.evolution == "basic" and not exists(self._session, target):
            transcoder = TupleTranscoder(table.columns, table.key)
            find_or_make(self._session, table, target, transcoder.staged_types, "basic")

    def trim(self) -> None:
        """Drop the staging tables that were not used of late. To be called between transactions' uses of them."""
        while len(self._by_collection) > _MOST:
            self._by_collection.pop(next(iter(self._by_collection))).drop()

    def forget(self) -> None:
        """The session lost its staging tables, and perhaps the tables that were made."""
        self._by_collection.clear()

    def _make(self, event: Delivered) -> TableWriter:
        table = event.table
        transcoder = TupleTranscoder(table.columns, table.key)
        self._wait_for_others()
        replica = find_or_make(
            self._session,
            table,
            self._settings.target(table.id, event.topic),
            transcoder.staged_types,
            self._settings.evolution,
        )
        if self._shared and replica.other_unique:
            raise Failed(
                f"{replica.id} has a unique or exclusion constraint beside its key: partitions are applied apart,"
                " so that two rows may hold one value for a while",
                "drop the constraint in the replica, or set apply.mode=transaction",
            )
        return TableWriter(self._session, table, replica, transcoder)

    def _wait_for_others(self) -> None:
        """Until the transaction ends no other session looks whether a table is there."""
        if self._shared:
            self._session.execute(_MAKING)
