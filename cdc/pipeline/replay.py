"""Brings parked keys back: their dead letters are applied in order, and the keys released, in one store transaction.

It goes on beside the sink, whose next commit waits for it and then starts again from what the replica says. Letters of
changes that the sink has not committed as left out are not touched: the sink meets those again. So each change is
applied once, by one of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cdc.checkpoint import ParkedKey, SinkCheckpoint
from cdc.errors import Rejected
from cdc.event import DeadLetter, Delivered, Record
from cdc.position import Position
from cdc.protocols import EventDecoder, Store, StoreTransaction

Place = tuple[str, int, int]
"""Topic, partition and offset: what names a record, and a letter however often it was written."""

_AGAIN = "set right what it says, then replay; or leave the record out for good (--skip) and verify with --repair"


@dataclass(slots=True)
class Replayed:
    """What a replay came to.

    ``failed`` says for each key that stays parked why, and the record that it was parked for, or that cannot be read.
    """

    released: list[ParkedKey] = field(default_factory=list)
    events: int = 0
    failed: list[tuple[ParkedKey, Place, Rejected]] = field(default_factory=list)


def replay(
    store: Store,
    sink: str,
    source: str,
    decoder: EventDecoder,
    more_letters: Callable[[], Iterable[DeadLetter]],
    chosen: Callable[[ParkedKey], bool],
    skip: Collection[Place] = (),
) -> Replayed:
    """Apply the letters of all chosen parked keys, and release those whose letters can all be applied.

    ``more_letters`` gives what stands on the dead-letter topic and was not given before; it is called twice. ``skip``
    names records that are left out. May be repeated.
    """
    letters = _by_place({}, sink, more_letters())  # most of them before the sink has to wait
    with store.beside(sink, source) as (held, transaction):
        _by_place(letters, sink, more_letters())
        done = Replayed()
        parts: list[tuple[ParkedKey, list[Delivered]]] = []
        for parked in filter(chosen, held.parked):
            try:
                parts.append((parked, _events(parked, letters, decoder, held.position, skip)))
            except _Unfit as unfit:
                done.failed.append((parked, unfit.place, unfit.error))
        _apply(transaction, parts, done)
        if done.released:
            transaction.save(SinkCheckpoint(source, None, released=tuple(done.released)))
            transaction.commit()
    return done


def belongs(letter: DeadLetter, parked: ParkedKey, decoder: EventDecoder) -> bool:
    """Whether the letter's record is kept out of the replica by this key."""
    record = letter.record
    return (
        (record.topic, record.partition) == parked.place
        and record.offset >= parked.offset
        and (parked.key is None or decoder.key(record) == parked.key)
    )


class _Unfit(Exception):
    def __init__(self, place: Place, error: Rejected) -> None:
        super().__init__(error.what)
        self.place = place
        self.error = error


def _by_place(
    letters: dict[Place, DeadLetter], sink: str, more: Iterable[DeadLetter]
) -> dict[Place, DeadLetter]:
    letters.update((place_of(letter.record), letter) for letter in more if letter.sink == sink)
    return letters


def place_of(record: Record) -> Place:
    """What names the record."""
    return record.topic, record.partition, record.offset


def _events(
    parked: ParkedKey,
    letters: Mapping[Place, DeadLetter],
    decoder: EventDecoder,
    held: Position | None,
    skip: Collection[Place],
) -> list[Delivered]:
    """What the key's letters say, in order, as far as the replica's checkpoint reaches. Raises _Unfit."""
    first = (parked.topic, parked.partition, parked.offset)
    if first not in letters and first not in skip:
        gone = Rejected("its dead letter is gone", "leave it out (--skip), then verify --repair")
        raise _Unfit(first, gone)
    records = sorted(
        (letter.record for letter in letters.values() if belongs(letter, parked, decoder)),
        key=lambda record: record.offset,
    )
    records = [record for record in records if place_of(record) not in skip]
    events = []
    for record, event in zip(records, decoder.data(records), strict=True):
        if isinstance(event, Rejected):
            raise _Unfit(place_of(record), Rejected(event.what, event.remedy or _AGAIN))
        if event is not None and (held is None or event.position <= held):
            events.append(event)
    return events


def _apply(
    transaction: StoreTransaction,
    parts: Sequence[tuple[ParkedKey, list[Delivered]]],
    done: Replayed,
) -> None:
    """All in the source's order; where that fails, key by key, and what fails then stays parked."""
    together = sorted((e for _, events in parts for e in events), key=lambda e: e.position)
    if transaction.attempt(together) is None:
        done.released += [parked for parked, _ in parts]
        done.events += len(together)
        return
    for parked, events in sorted(parts, key=lambda part: part[0].position):
        error = transaction.attempt(events)
        if error is None:
            done.released.append(parked)
            done.events += len(events)
            continue
        first = (parked.topic, parked.partition, parked.offset)
        done.failed.append((parked, first, Rejected(error.what, error.remedy or _AGAIN)))


__all__ = ["Place", "Replayed", "belongs", "place_of", "replay"]
