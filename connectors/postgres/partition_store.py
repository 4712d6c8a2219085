"""A PostgreSQL replica under ``apply.mode=partition``: rows and the progress of their partitions in one transaction."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from cdc.checkpoint import PartitionState, TableState
from cdc.config import ConnectorConfig
from cdc.errors import Failed, Unreachable
from cdc.event import Delivered
from cdc.position import TopicPartition
from cdc.protocols import PartitionStore, StoreTransaction
from connectors.postgres import checkpoints, partition_checkpoints
from connectors.postgres.partition_session import PartitionSession
from connectors.postgres.row_faults import RowFaults
from connectors.postgres.sink_settings import SinkSettings
from connectors.postgres.sink_transaction import SinkTransaction

_LOOK_SECONDS = 1.0  # between two looks at the tables' states, which other tasks change too


def open_partition_store(config: ConnectorConfig) -> PartitionStore:
    """The replica of a checked configuration. Connects when partitions are claimed."""
    return PostgresPartitionStore(SinkSettings.of(config))


class PostgresPartitionStore:
    """One task's view of the replica. Not thread-safe."""

    atomic = True

    def __init__(self, settings: SinkSettings) -> None:
        self._settings = settings
        self._session: PartitionSession | None = None
        self._open: SinkTransaction | None = None
        self._states: dict[str, TableState] = {}
        self._look_due = 0.0
        self._faults = RowFaults()
        self._transactions = 0

    def claim(
        self, sink: str, source: str, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, PartitionState]:
        """Become the only writer of these as well; makes what it needs of the schema ``cdc`` at first."""
        if self._session is None:
            self._session = PartitionSession(self._settings, sink, source)
        return self._session.claim(partitions)

    def release(self, partitions: Sequence[TopicPartition]) -> None:
        """Give these up; what was committed stays."""
        if self._session is not None and not self._session.connection.closed:
            self._session.release(partitions)

    def begin(self) -> StoreTransaction:
        """Begin a transaction. Unreachable when the session has ended: open the store again."""
        return self._begin()

    def truncate(self, event: Delivered, partitions: int) -> bool:
        """Meet the other partitions at it; the last one to come empties the table, in the transaction that says so."""
        if not self._settings.truncates:
            return True
        transaction = self._begin()
        session = self._claimed()
        try:
            with session.translated("meeting other partitions at a truncate"):
                if not session.hold():
                    raise session.fenced()
                arrived, done = partition_checkpoints.arrive(
                    session.connection, session.owner, event.topic, event.position, event.partition
                )
            if not done and arrived >= partitions:
                transaction.apply([event])
                with session.translated("truncating a table of the replica"):
                    partition_checkpoints.truncated(
                        session.connection, session.owner, event.topic, event.position
                    )
                done = True
            transaction.commit()
        finally:
            transaction.rollback()
        return done

    def offsets(self) -> Mapping[TopicPartition, int]:
        """Up to which offset the replica holds each partition, and lacks no row below it."""
        session = self._claimed()
        with session.translated("reading the replica's offsets"):
            held = partition_checkpoints.load(session.connection, *session.owner)
        return {
            tp: min(resume.offset, held.withheld.get(tp, resume.offset))
            for tp, resume in held.offsets.items()
        }

    def missing_rows(self) -> Mapping[str, int]:
        """Per collection, how many updates and deletes since this was opened met no row in a live table."""
        return dict(self._faults.missing)

    def mismatched_rows(self) -> Mapping[str, int]:
        """Per collection, how many since then met a row that was not as their whole old image has it."""
        return dict(self._faults.mismatched)

    def close(self) -> None:
        """Safe to repeat. A transaction that is open takes no effect."""
        if self._session is not None:
            self._session.close()
        self._session = self._open = None

    def _begin(self) -> SinkTransaction:
        session = self._claimed()
        if self._open is not None and not self._open.ended:
            raise Failed("the transaction before has not ended", "commit it or roll it back first")
        if session.connection.closed:
            raise Unreachable("the session with the replica has ended", "opened again in a while")
        with session.translated("beginning a transaction in the replica"):
            self._look_at_tables(session)
            session.begin()
        self._transactions += 1
        live = frozenset(
            name for name, state in self._states.items() if state in ("live", "parked")
        )
        self._open = SinkTransaction(
            session, self._settings, live, self._transactions, self._committed
        )
        return self._open

    def _look_at_tables(self, session: PartitionSession) -> None:
        if (now := time.monotonic()) >= self._look_due:
            self._look_due = now + _LOOK_SECONDS
            self._states = checkpoints.load_tables(session.connection, session.owner)

    def _claimed(self) -> PartitionSession:
        if self._session is None:
            raise Failed("no partition of the replica is claimed", "claim one first")
        return self._session

    def _committed(self, faults: RowFaults, states: Mapping[str, TableState]) -> None:
        self._faults.add(faults)
        self._states.update(states)
