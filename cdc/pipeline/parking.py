"""Sets aside what can never be applied (``errors.tolerance=all``): a dead letter, and its key parked.

Works inside one store transaction after another, in the order of the source:

- a change of a parked key follows it to the dead-letter topic;
- of a batch that the store rejects, the culprit is found by halves, each a savepoint of the store: the rest takes effect;
- a row that a fence brought, or a TRUNCATE, says all there is to know of its keys: they are parked no more.

Letters are acknowledged before the transaction commits that leaves their changes out; its checkpoint says which keys
are parked from then on. So a letter may be written twice, after a crash between the two, and is never missing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from cdc.checkpoint import ParkedKey, SinkCheckpoint
from cdc.errors import Failed, Rejected
from cdc.event import DeadLetter, Delivered
from cdc.failure_points import reach
from cdc.pipeline.parked import ParkedKeys
from cdc.pipeline.records_again import RecordsAgain
from cdc.pipeline.unreadable import UnreadableRecord
from cdc.position import TopicPartition
from cdc.protocols import DeadLetterTopic, StoreTransaction
from cdc.telemetry import METRICS

log = logging.getLogger(__name__)

_WRITTEN = METRICS.counter(
    "cdc_sink_dead_letters_total", "Records written to the dead-letter topic, repeats included."
)

PARKED = "parked"
"""The kind of a letter that holds a later change of a key that was parked before."""


class _Cause(NamedTuple):
    kind: str
    message: str
    remedy: str


class Parking:
    """What is parked, and the letters that wait to be written.

    Used by the thread that writes to the store. After any error a new one begins with what the replica says.
    """

    def __init__(
        self,
        sink: str,
        parked: Iterable[ParkedKey],
        letters: DeadLetterTopic,
        records: RecordsAgain,
    ) -> None:
        self._sink = sink
        self._parked = ParkedKeys(parked)
        self._stored = self._parked.all()
        self._topic = letters
        self._records = records
        self._letters: list[DeadLetter] = []
        self._waiting: list[tuple[Delivered, _Cause]] = []

    @property
    def counts(self) -> dict[str, int]:
        """Parked keys by collection."""
        return self._parked.by_collection()

    def apply(self, transaction: StoreTransaction, events: Sequence[Delivered]) -> None:
        """Apply what is not parked; what the store rejects is parked from there on."""
        self._attempt(transaction, events)

    def set_aside(self, unreadable: Sequence[UnreadableRecord]) -> None:
        """Records that nobody can read: those that were changes of the source park their keys."""
        for one in unreadable:
            if not one.told:
                one.told = True
                self._letters.append(
                    DeadLetter(
                        self._sink,
                        one.record,
                        None,
                        type(one.error).__name__,
                        one.error.what,
                        one.error.remedy,
                        _now_ms(),
                    )
                )
            if one.charged is not None:
                self._park(
                    ParkedKey(
                        one.collection,
                        one.key,
                        one.record.topic,
                        one.record.partition,
                        one.record.offset,
                        one.charged,
                        type(one.error).__name__,
                        one.error.what,
                    )
                )

    def settle(self, checkpoint: SinkCheckpoint) -> SinkCheckpoint:
        """Have the letters acknowledged; the checkpoint with what is parked and released since the last one."""
        letters = self._letters
        if self._waiting:
            places = [
                (TopicPartition(event.topic, event.partition), event.offset)
                for event, _ in self._waiting
            ]
            found = self._records.read(places)
            letters += [
                DeadLetter(self._sink, found[place], event.position, *cause, _now_ms())
                for place, (event, cause) in zip(places, self._waiting, strict=True)
            ]
        if letters:
            reach("apply.before-letters")
            self._topic.write(letters)
            reach("apply.after-letters")
            _WRITTEN.add(len(letters))
        self._letters, self._waiting = [], []
        before, self._stored = self._stored, self._parked.all()
        return replace(
            checkpoint,
            parked=tuple(sorted(self._stored - before, key=_order)),
            released=tuple(sorted(before - self._stored, key=_order)),
        )

    # --- one batch -------------------------------------------------------------------------------------------

    def _attempt(self, transaction: StoreTransaction, events: Sequence[Delivered]) -> None:
        """In halves, the earlier one first: what it parks, the later one leaves out."""
        before = self._parked.all()
        taken = self._divided(events) if before else list(events)
        if not taken:
            return
        error = transaction.attempt(taken)
        if error is None:
            return
        for parked in before - self._parked.all():
            self._parked.add(parked)  # what would have released it is not applied yet, or never
        middle = _middle(taken)
        if middle == 0:
            self._reject(taken, error)
        else:
            self._attempt(transaction, taken[:middle])
            self._attempt(transaction, taken[middle:])

    def _divided(self, events: Sequence[Delivered]) -> list[Delivered]:
        """Those that are to be applied; the others' letters wait."""
        taken = []
        for event in events:
            if event.op == "t":
                self._parked.release_all(event.collection)
            elif not event.xid and event.key is not None:
                self._parked.release(event)
            elif (found := self._parked.holds(event)) is not None:
                self._follow(event, found)
                continue
            elif (found := self._parked.source_of(event)) is not None:
                self._park(_key_of(event, PARKED, _follows(found)))
                self._follow(event, found)
                continue
            taken.append(event)
        return taken

    def _follow(self, event: Delivered, parked: ParkedKey) -> None:
        self._waiting.append((event, _Cause(PARKED, _follows(parked), "")))

    def _reject(self, events: Sequence[Delivered], error: Rejected) -> None:
        """One change that the store never takes (two events, where its key changed)."""
        if events[0].op == "t":
            event = events[0]
            raise Failed(
                f"{event.topic}[{event.partition}]@{event.offset} (position {event.position}) empties a table and"
                f" cannot be applied: {error.what}",
                error.remedy,
            ) from error
        cause = _Cause(type(error).__name__, error.what, error.remedy)
        for event in events:
            self._park(_key_of(event, cause.kind, cause.message))
            self._waiting.append((event, cause))

    def _park(self, parked: ParkedKey) -> None:
        if self._parked.add(parked):
            what = "a key" if parked.key is not None else f"all of {parked.place}"
            log.warning(
                "%s: parked %s from %s@%d on: %s",
                parked.collection,
                what,
                parked.place,
                parked.offset,
                parked.message,
            )


def find_culprit(
    transaction: StoreTransaction, events: Sequence[Delivered]
) -> tuple[Delivered, Rejected] | None:
    """The first of the events that the store rejects, and why; those before it are applied by then. None: none is."""
    error = transaction.attempt(events)
    if error is None:
        return None
    middle = _middle(events)
    if middle == 0:
        return events[0], error
    return find_culprit(transaction, events[:middle]) or find_culprit(transaction, events[middle:])


def _middle(events: Sequence[Delivered]) -> int:
    """Where to part them, 0 where they cannot be: the two halves of a changed key stay together."""
    middle = len(events) // 2
    if middle and events[middle - 1].op == "d" and events[middle - 1].other_key is not None:
        following = events[middle]
        if following.op == "c" and following.other_key == events[middle - 1].key:
            middle = middle + 1 if middle + 1 < len(events) else middle - 1
    return middle


def _key_of(event: Delivered, kind: str, message: str) -> ParkedKey:
    return ParkedKey(
        event.collection,
        event.key,
        event.topic,
        event.partition,
        event.offset,
        event.position,
        kind,
        message,
    )


def _order(parked: ParkedKey) -> tuple[str, int, int]:
    return parked.topic, parked.partition, parked.offset


def _follows(parked: ParkedKey) -> str:
    return f"follows {parked.place}@{parked.offset}, which could not be applied"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
