"""The store's side of apply, in a thread of its own: decoding goes on while the replica works.

One store transaction at a time. One group may wait while another is written, so whatever completes meanwhile forms
the next one: that is the group commit.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from cdc.checkpoint import SinkCheckpoint
from cdc.errors import CdcError, Failed, Rejected
from cdc.event import Delivered
from cdc.failure_points import reach
from cdc.pipeline.parking import Parking, find_culprit
from cdc.pipeline.unreadable import UnreadableRecord
from cdc.protocols import PartitionStore, Shape, Store, StoreTransaction


@dataclass(slots=True)
class Writing:
    """Events for the store; with a ``checkpoint`` they end a store transaction, without one it stays open.

    ``shapes`` are what tables are to be like then. ``oldest_ms`` is when the source committed the first of the
    transactions, 0 if that is not known. ``unreadable`` are records that nobody can read, to be set aside. Once it is
    finished, ``seconds`` is what it took, and ``parked`` counts parked keys by collection.
    """

    events: list[Delivered]
    size: int
    transactions: int
    checkpoint: SinkCheckpoint | None
    shapes: Sequence[Shape] = ()
    oldest_ms: int = 0
    unreadable: Sequence[UnreadableRecord] = ()
    seconds: float = 0.0
    parked: Mapping[str, int] = field(default_factory=dict)


class ReplicaWriter:
    """Writes groups into ``store`` in order. Whatever the store raises is raised by the next call here.

    With ``parking`` a change that can never be applied is set aside; without, it stops the task and is named.
    """

    def __init__(self, store: Store | PartitionStore, parking: Parking | None = None) -> None:
        self._store = store
        self._parking = parking
        self._parts = 0
        self._waiting: queue.Queue[Writing | None] = queue.Queue(maxsize=1)
        self._finished: queue.SimpleQueue[Writing | None] = queue.SimpleQueue()
        self._transaction: StoreTransaction | None = None
        self._error: BaseException | None = None
        self._abandoned = False
        self._open = 0
        self._thread = threading.Thread(target=self._run, name="replica-writer", daemon=True)
        self._thread.start()

    def ready(self) -> bool:
        """Whether a group can be handed over without waiting."""
        return not self._waiting.full()

    @property
    def idle(self) -> bool:
        """Whether everything handed over was told by `finished`."""
        return self._open == 0

    def hand_over(self, writing: Writing) -> None:
        """Only when `ready`."""
        self._open += 1
        self._waiting.put_nowait(writing)

    def finished(self, timeout: float = 0.0) -> list[Writing]:
        """Groups that are in the store since the last call; waits up to ``timeout`` seconds for the first."""
        done: list[Writing] = []
        try:
            while (one := self._finished.get(timeout=0.0 if done else timeout)) is not None:
                done.append(one)
                self._open -= 1
        except queue.Empty:
            pass
        if self._error is not None:
            raise self._error
        return done

    def close(self) -> None:
        """End the thread; a transaction that is not committed is rolled back. What was handed over is not awaited."""
        self._abandoned = True
        while self._thread.is_alive():
            try:
                self._waiting.put(None, timeout=0.05)
                break
            except queue.Full:
                continue
        self._thread.join()

    def _run(self) -> None:
        try:
            while (writing := self._waiting.get()) is not None and not self._abandoned:
                began = time.monotonic()
                self._write(writing)
                writing.seconds = time.monotonic() - began
                self._finished.put(writing)
        except Rejected as error:
            self._error = self._named(writing, error)
            self._error.__cause__ = error
        except BaseException as error:  # noqa: BLE001 - carried to the thread that waits for it, and raised there
            self._error = error
        finally:
            try:
                if self._transaction is not None:
                    self._transaction.rollback()
            except BaseException as error:  # noqa: BLE001 - as above; the first one counts
                self._error = self._error or error
            self._finished.put(None)

    def _write(self, writing: Writing) -> None:
        if self._transaction is None:
            reach("apply.before-begin")
            self._transaction = self._store.begin()
        reach("apply.before-rows")
        self._parts += 1
        if self._parking is not None:
            self._parking.set_aside(writing.unreadable)
            self._parking.apply(self._transaction, writing.events)
        elif writing.events:
            self._transaction.apply(writing.events)
        for shape in writing.shapes:
            self._transaction.ensure(shape)
        reach("apply.after-rows")
        if writing.checkpoint is not None:
            checkpoint = writing.checkpoint
            if self._parking is not None:
                checkpoint = self._parking.settle(checkpoint)
                writing.parked = self._parking.counts
            self._transaction.save(checkpoint)
            reach("apply.before-commit")
            self._transaction.commit()
            self._transaction = None
            self._parts = 0
            reach("apply.after-commit")

    def _named(self, writing: Writing | None, error: Rejected) -> Failed:
        """The error that names the record: applied again up to it, in a transaction that is rolled back."""
        found: tuple[Delivered, Rejected] | None = None
        if self._transaction is not None and writing is not None and self._parts == 1:
            with suppress(CdcError):
                self._transaction.rollback()
                self._transaction = self._store.begin()
                found = find_culprit(self._transaction, writing.events)
        if found is None:
            where = _between(writing)
        else:
            event, error = found
            where = f"{event.topic}[{event.partition}]@{event.offset} (position {event.position})"
        return Failed(
            f"the replica cannot take the change {where}: {error.what}",
            error.remedy
            or "set right what the replica lacks; the task goes on from its checkpoint",
        )


def _between(writing: Writing | None) -> str:
    if writing is None or not writing.events:
        return "of the checkpoint"
    first, last = writing.events[0], writing.events[-1]
    return (
        f"between {first.topic}[{first.partition}]@{first.offset} and "
        f"{last.topic}[{last.partition}]@{last.offset} (positions {first.position} to {last.position})"
    )
