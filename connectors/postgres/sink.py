"""A PostgreSQL replica as a sink's store: rows and checkpoint in one transaction, under one owner at a time.

A batch of events is brought to one change per key and table (`net_changes`), staged (`staged_rows`), and applied set
by set (`table_writer`, `statements`). The source's constraints held there, change by change, so the replica's
triggers and foreign keys are not run where its role permits that (``session_replication_role``).
The sink needs a session of its own: a pooler that shares sessions among transactions would lose staging tables and
the owner's identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

from cdc.checkpoint import SinkCheckpoint, TableState
from cdc.config import ConnectorConfig
from cdc.errors import Failed, Unreachable
from cdc.protocols import Store, StoreTransaction
from connectors.postgres.row_faults import RowFaults
from connectors.postgres.sink_beside import beside
from connectors.postgres.sink_session import SinkSession
from connectors.postgres.sink_settings import SinkSettings
from connectors.postgres.sink_transaction import SinkTransaction


def open_store(config: ConnectorConfig) -> Store:
    """The replica of a checked configuration. Connects when it is claimed."""
    return PostgresStore(SinkSettings.of(config))


class PostgresStore:
    """One replica. Not thread-safe."""

    transactional = True

    def __init__(self, settings: SinkSettings) -> None:
        self._settings = settings
        self._session: SinkSession | None = None
        self._open: SinkTransaction | None = None
        self._states: dict[str, TableState] = {}
        self._faults = RowFaults()
        self._epochs: dict[tuple[str, str], int] = {}
        self._transactions = 0

    def claim(self, sink: str, source: str) -> SinkCheckpoint:
        """Become the only owner; makes the schema ``cdc`` at first.

        Fenced when somebody has claimed since this store did: an owner that was replaced does not take it back.
        """
        self.close()
        owner = (sink, source)
        session = SinkSession(self._settings, sink, source, self._epochs.get(owner))
        self._session = session
        self._epochs[owner] = session.claim.epoch
        self._states = dict(session.checkpoint.tables)
        self._faults.clear()
        return session.checkpoint

    def begin(self) -> StoreTransaction:
        """Begin a transaction under the claim. Unreachable when the session has ended: claim again."""
        session = self._session
        if session is None:
            raise Failed("the replica is not claimed", "claim it first")
        if self._open is not None and not self._open.ended:
            raise Failed("the transaction before has not ended", "commit it or roll it back first")
        if session.connection.closed:
            raise Unreachable("the session with the replica has ended", "claimed again in a while")
        with session.translated("beginning a transaction in the replica"):
            session.begin()
        self._transactions += 1
        live = frozenset(
            name for name, state in self._states.items() if state in ("live", "parked")
        )
        self._open = SinkTransaction(
            session, self._settings, live, self._transactions, self._committed
        )
        return self._open

    def beside(
        self, sink: str, source: str
    ) -> AbstractContextManager[tuple[SinkCheckpoint, StoreTransaction]]:
        """A transaction beside the owner of the checkpoint, in a session of its own."""
        return beside(self._settings, sink, source)

    def missing_rows(self) -> Mapping[str, int]:
        """Per collection, how many updates and deletes since the claim met no row in a live table."""
        return dict(self._faults.missing)

    def mismatched_rows(self) -> Mapping[str, int]:
        """Per collection, how many since the claim met a row that was not as their whole old image has it."""
        return dict(self._faults.mismatched)

    def close(self) -> None:
        """Safe to repeat. A transaction that is open takes no effect."""
        if self._session is not None:
            self._session.close()
        self._session = self._open = None

    def _committed(self, faults: RowFaults, states: Mapping[str, TableState]) -> None:
        self._faults.add(faults)
        self._states.update(states)
