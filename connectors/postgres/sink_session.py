"""A sink's session with its replica: how it is opened, claimed, and what an error in it means.

Whether a commit may take effect is asked of the session (`save`, `hold`): one kind holds a source's one checkpoint, the
other (`partition_session`) that of each partition it was given.
"""

from __future__ import annotations

import abc
import contextlib
import logging
from collections.abc import Iterator

import psycopg
from psycopg import errors

from cdc.checkpoint import SinkCheckpoint
from cdc.errors import CdcError, Fenced, Refused, Unreachable
from connectors.postgres import checkpoints, parked_keys, partition_checkpoints
from connectors.postgres.checkpoints import Claim, Session
from connectors.postgres.connection import connect
from connectors.postgres.sink_errors import sink_error
from connectors.postgres.sink_settings import SinkSettings
from connectors.postgres.table_writer import BinaryDumper
from connectors.postgres.writers import Writers

_SESSION = {
    # An owner that stopped in mid-transaction does not hold its locks for ever, even if nobody claims.
    "idle_in_transaction_session_timeout": "60s",
    # A reader's lock on a table of the replica is waited for, and said, not endured in silence.
    "lock_timeout": "30s",
    "default_transaction_isolation": "read committed",
    # Statements are short; compiling them costs more than it saves.
    "jit": "off",
    "temp_buffers": "32MB",
    # A batch finds its rows by the key's index, always. Plans are kept, and may have been made while the table was
    # empty, or before a stage was filled: nothing that they could go by says how large either is now.
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
}
_PREPARE_AFTER = 2

_log = logging.getLogger(__name__)


class ReplicaSession(abc.ABC):
    """A session with the replica, fit for applying; what a claim of checkpoints in it needs."""

    def __init__(
        self, settings: SinkSettings, sink: str, source: str, *, shared: bool = False
    ) -> None:
        """``shared``: sessions of other tasks write the same tables."""
        self._settings = settings
        self._sink = sink
        self.connection = open_session(settings)
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._begin = "; ".join(["BEGIN", *_prepare(self.connection)])
            if not settings.synchronous:
                # Of this session's transactions only those with rows: a claim is on disk before it counts.
                self._begin += "; SET LOCAL synchronous_commit = off"
            undo.pop_all()
        self.writers = Writers(self.connection, (sink, source), settings, shared=shared)

    @abc.abstractmethod
    def save(self, checkpoint: SinkCheckpoint) -> bool:
        """Store it in the open transaction, and keep claims waiting until that ends; False when one came before."""

    @abc.abstractmethod
    def hold(self) -> bool:
        """Keep claims waiting until the open transaction ends; False when one came before."""

    @abc.abstractmethod
    def was_replaced(self) -> bool:
        """Whether a newer owner has claimed. Asked only of a session that has ended; False when nobody answers."""

    def begin(self) -> None:
        """Begin a transaction."""
        self.connection.execute(self._begin.encode())
        self.writers.trim()

    def roll_back(self) -> None:
        """End a transaction that takes no effect, and forget the tables that it may have made."""
        self.writers.forget()
        with contextlib.suppress(psycopg.Error):
            self.connection.execute("ROLLBACK")
            self.connection.execute("DISCARD TEMP")

    def close(self) -> None:
        """Safe to repeat."""
        with contextlib.suppress(psycopg.Error):
            self.connection.close()

    def overtaken(self) -> CdcError:
        """Why the checkpoint could not be saved under the claim."""
        return self.fenced()

    def fenced(self) -> Fenced:
        """The error of an owner that was replaced."""
        return Fenced(
            f"another owner has claimed the checkpoint of {self._sink} in the replica",
            "only one process may run this sink: this one stops",
        )

    @contextlib.contextmanager
    def translated(self, doing: str) -> Iterator[None]:
        """Run a block whose driver errors leave it translated: Fenced where a newer owner ended the session."""
        try:
            yield
        except psycopg.Error as error:
            found = sink_error(error, doing)
            if isinstance(found, Unreachable) and self.connection.closed and self.was_replaced():
                found = self.fenced()
            raise found from error


class SinkSession(ReplicaSession):
    """One claim of one checkpoint, in one session with the replica."""

    def __init__(
        self,
        settings: SinkSettings,
        sink: str,
        source: str,
        held: int | None,
        *,
        beside: bool = False,
    ) -> None:
        """Open and claim. ``held`` is the epoch that this owner held before: Fenced when there is a newer one.

        ``beside``: leave the claim to its owner; Refused when there never was one.
        """
        try:
            super().__init__(settings, sink, source)
            self.claim = Claim(sink, source, 0)
            with contextlib.ExitStack() as undo:
                undo.callback(self.close)
                checkpoints.install(self.connection)
                partition_checkpoints.refuse_mode(self.connection, (sink, source))
                if held is not None and checkpoints.epoch(self.connection, sink, source) > held:
                    raise self.fenced()
                if beside:
                    self.claim = self._present(sink, source)
                else:
                    self.claim = checkpoints.claim(self.connection, sink, source)
                self.checkpoint: SinkCheckpoint = checkpoints.load(self.connection, sink, source)
                undo.pop_all()
        except psycopg.Error as error:
            raise sink_error(error, f"claiming the checkpoint of {sink} in the replica") from error

    def _present(self, sink: str, source: str) -> Claim:
        epoch = checkpoints.epoch(self.connection, sink, source)
        if not epoch:
            raise Refused(
                f"the replica holds no checkpoint of {sink} for {source}",
                "see the sink's name and topic.prefix; no such sink has ever run on it",
            )
        return Claim(sink, source, epoch, parked_keys.releases(self.connection, sink, source))

    def overtaken(self) -> CdcError:
        """Fenced; or Unreachable, when keys were released beside this claim, which is to be claimed again."""
        claim = self.claim
        if checkpoints.epoch(self.connection, claim.sink, claim.source) > claim.epoch:
            return self.fenced()
        return Unreachable(
            f"parked keys of {claim.sink} were released beside it", "claimed again at once"
        )

    def save(self, checkpoint: SinkCheckpoint) -> bool:
        """See `checkpoints.save`."""
        return checkpoints.save(self.connection, self.claim, checkpoint)

    def hold(self) -> bool:
        """See `checkpoints.hold`."""
        return checkpoints.hold(self.connection, self.claim)

    def was_replaced(self) -> bool:
        """Asked in a session of its own."""
        try:
            with open_session(self._settings) as other:
                newest = checkpoints.epoch(other, self.claim.sink, self.claim.source)
        except (CdcError, psycopg.Error):
            return False
        return newest > self.claim.epoch


def open_session(settings: SinkSettings) -> Session:
    """A plain session for a sink's own questions."""
    return connect(
        settings.conninfo, connector=settings.connector, purpose="apply", session=_SESSION
    )


def _prepare(session: Session) -> list[str]:
    """Fit a session for applying; returns the statements that each transaction needs besides."""
    session.prepare_threshold = _PREPARE_AFTER
    session.adapters.register_dumper(bytes, BinaryDumper)
    try:
        session.execute("SET session_replication_role = replica")
    except errors.InsufficientPrivilege:
        _log.warning(
            "the replica's triggers and foreign keys run for replicated rows: its role may not set"
            " session_replication_role (GRANT SET ON PARAMETER session_replication_role)"
        )
        # What may wait until the commit does: a batch is ordered by table, not as the source changed its rows.
        return ["SET CONSTRAINTS ALL DEFERRED"]
    return []
