"""The table writers of one session, by collection: made as row schemas are met, renewed as they change."""

from __future__ import annotations

from collections.abc import Callable

from cdc.errors import Failed
from cdc.event import Delivered
from cdc.protocols import Shape
from connectors.postgres import replica_memory
from connectors.postgres.checkpoints import Session
from connectors.postgres.replica_memory import Memory
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

    ``owner`` is the sink and its source. ``shared``: other sessions write other rows of the same tables at the same
    time, and may make them too. Then rows of an older row schema may follow those of a newer one, so that tables only
    grow, by names.
    """

    def __init__(
        self, session: Session, owner: tuple[str, str], settings: SinkSettings, *, shared: bool
    ) -> None:
        self._session = session
        self._owner = owner
        self._settings = settings
        self._shared = shared
        self._by_collection: dict[str, TableWriter] = {}

    def __contains__(self, collection: str) -> bool:
        """Whether a table was found for the collection in this session."""
        return collection in self._by_collection

    def of(self, event: Delivered) -> tuple[TableWriter, tuple[str, ...]]:
        """The writer for the event's row schema. Finds, makes or alters its table in the open transaction.

        With it the columns that lost their values over it. Failed when the table does not fit.
        """
        emptied: tuple[str, ...] = ()
        known = self._by_collection.pop(event.collection, None)
        if known is None or known.table is not event.table:
            if known is not None:
                known.drop()
            shape = Shape(event.table, event.collection, event.topic, event.position)
            known, emptied = self._make(shape, self._memory(event.collection))
        # Put back last: the first is the one that was not used for the longest time.
        self._by_collection[event.collection] = known
        return known, emptied

    def ensure(self, shape: Shape) -> tuple[str, ...]:
        """Make the table for a row schema, or bring it into that, if tables are made and altered here at all.

        One that has followed a later one is left as it is. Returns the columns that lost their values over it.
        """
        target = self._settings.target(shape.table.id, shape.topic)
        self._wait_for_others()
        memory = self._memory(shape.collection)
        late = memory.position >= shape.position and exists(self._session, target)
        if self._settings.evolution == "none" or late:
            return ()
        if (known := self._by_collection.pop(shape.collection, None)) is not None:
            known.drop()
        self._by_collection[shape.collection], emptied = self._make(shape, memory)
        return emptied

    def trim(self) -> None:
        """Drop the staging tables that were not used of late. To be called between transactions' uses of them."""
        while len(self._by_collection) > _MOST:
            self._by_collection.pop(next(iter(self._by_collection))).drop()

    def remembered(self) -> Callable[[], None]:
        """What is known now, to be put back after the replica forgot what came since."""
        known = [(name, writer, writer.has_stage) for name, writer in self._by_collection.items()]

        def put_back() -> None:
            self._by_collection = {name: writer for name, writer, _ in known}
            for _, writer, has_stage in known:
                writer.has_stage = has_stage

        return put_back

    def forget(self) -> None:
        """The session lost its staging tables, and perhaps the tables that were made."""
        self._by_collection.clear()

    def _memory(self, collection: str) -> Memory:
        return replica_memory.load(self._session, *self._owner, collection)

    def _make(self, shape: Shape, memory: Memory) -> tuple[TableWriter, tuple[str, ...]]:
        table, evolution = shape.table, self._settings.evolution
        self._settings.check_key(table)
        transcoder = TupleTranscoder(table.columns, table.key)
        self._wait_for_others()
        made = find_or_make(
            self._session,
            table,
            self._settings.target(table.id, shape.topic),
            transcoder.staged_types,
            "basic" if self._shared and evolution == "full" else evolution,
            {} if self._shared else memory.columns,
            shared=self._shared,
        )
        if self._shared and made.table.other_unique:
            raise Failed(
                f"{made.table.id} has a unique or exclusion constraint beside its key: partitions are applied apart,"
                " so that two rows may hold one value for a while",
                "drop the constraint in the replica, or set apply.mode=transaction",
            )
        position = max(memory.position, shape.position._replace(total_order=0))
        if (now := Memory(position, made.columns)) != memory:
            replica_memory.save(self._session, *self._owner, shape.collection, now)
        return TableWriter(self._session, table, made.table, transcoder), made.emptied

    def _wait_for_others(self) -> None:
        """Until the transaction ends no other session looks whether a table is there."""
        if self._shared:
            self._session.execute(_MAKING)
