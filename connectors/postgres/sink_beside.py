"""A transaction in a replica beside the owner of its checkpoint: what was kept out is applied, and its keys released."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cdc.checkpoint import SinkCheckpoint
from cdc.errors import Refused
from connectors.postgres import checkpoints, parked_keys
from connectors.postgres.sink_session import SinkSession
from connectors.postgres.sink_settings import SinkSettings
from connectors.postgres.sink_transaction import SinkTransaction


class BesideTransaction(SinkTransaction):
    """Its session holds the checkpoint's row from the beginning, so that the owner's next commit waits."""

    def __init__(self, session: SinkSession, settings: SinkSettings) -> None:
        super().__init__(session, settings, frozenset(), 1, lambda *_: None)
        self._claim = session.claim

    def save(self, checkpoint: SinkCheckpoint) -> None:
        """Release these keys; nothing else of the checkpoint is stored."""
        with self._working("releasing keys in the replica"):
            self._settle()
            parked_keys.release_beside(
                self._session.connection,
                (self._claim.sink, self._claim.source),
                checkpoint.released,
            )
            self._saved = True


@contextmanager
def beside(
    settings: SinkSettings, sink: str, source: str
) -> Iterator[tuple[SinkCheckpoint, SinkTransaction]]:
    """See `cdc.protocols.Store.beside`."""
    session = SinkSession(settings, sink, source, None, beside=True)
    try:
        with session.translated("waiting for the checkpoint in the replica"):
            session.begin()
            if not checkpoints.hold(session.connection, session.claim):
                raise Refused(
                    f"the checkpoint of {sink} in the replica was claimed this very moment",
                    "run the command again",
                )
            held = checkpoints.load(session.connection, sink, source)
        transaction = BesideTransaction(session, settings)
        try:
            yield held, transaction
        finally:
            transaction.rollback()
    finally:
        session.close()
