"""Which keys are parked: kept out of the replica, with all that follows, since one of their changes could not be applied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from cdc.checkpoint import ParkedKey
from cdc.event import Delivered
from cdc.position import TopicPartition


class ParkedKeys:
    """The parked keys of one sink. Pure; `holds` is asked for every event while any key is parked."""

    def __init__(self, parked: Iterable[ParkedKey] = ()) -> None:
        self._keys: dict[tuple[str, bytes], ParkedKey] = {}
        self._partitions: dict[TopicPartition, ParkedKey] = {}
        for one in parked:
            self.add(one)

    def __len__(self) -> int:
        return len(self._keys) + len(self._partitions)

    def all(self) -> frozenset[ParkedKey]:
        """All of them."""
        return frozenset((*self._keys.values(), *self._partitions.values()))

    def add(self, parked: ParkedKey) -> bool:
        """Park it; False when it was parked from there, or from an earlier record, on already."""
        place = TopicPartition(parked.topic, parked.partition)
        if parked.key is None:
            known = self._partitions.setdefault(place, parked)
        else:
            known = self._keys.setdefault((parked.collection, parked.key), parked)
        return known is parked

    def holds(self, event: Delivered) -> ParkedKey | None:
        """What keeps the event out of the replica, if anything does."""
        place = TopicPartition(event.topic, event.partition)
        whole = self._partitions.get(place)
        if whole is not None and event.offset >= whole.offset:
            return whole
        if event.key is None:
            return None
        parked = self._keys.get((event.collection, event.key))
        if parked is None or (place == parked.place and event.offset < parked.offset):
            return None
        return parked

    def source_of(self, event: Delivered) -> ParkedKey | None:
        """What keeps the row out from which an event with a new key takes columns that the log did not carry."""
        if event.op != "c" or event.other_key is None or not event.unchanged:
            return None
        return self._keys.get((event.collection, event.other_key))

    def release(self, event: Delivered) -> None:
        """The event says all there is to know of its key: it is parked no more."""
        self._keys.pop((event.collection, event.key or b""), None)

    def release_all(self, collection: str) -> None:
        """The table is empty: none of its keys is parked any more."""
        self._keys = {place: one for place, one in self._keys.items() if place[0] != collection}
        self._partitions = {
            tp: one for tp, one in self._partitions.items() if one.collection != collection
        }

    def by_collection(self) -> dict[str, int]:
        """How many are parked of each collection; a partition that is parked whole counts as one."""
        return dict(
            Counter(p.collection for p in (*self._keys.values(), *self._partitions.values()))
        )
