"""Records read once more, as they stand on their topics: what was decoded long since is kept nowhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing

from cdc.errors import Unreachable
from cdc.event import Record
from cdc.position import TopicPartition
from cdc.protocols import TopicReader

Place = tuple[TopicPartition, int]
_PATIENCE = 30.0  # seconds without a record that was there before


class RecordsAgain:
    """Reads single records by a reader of its own, which it opens for each request: they are rare."""

    def __init__(self, open_reader: Callable[[], TopicReader]) -> None:
        self._open_reader = open_reader

    def read(self, places: Sequence[Place]) -> dict[Place, Record]:
        """The records at these places. Refused where one is gone, Unreachable where none comes for half a minute."""
        missing = set(places)
        first: dict[TopicPartition, int] = {}
        for tp, offset in missing:
            first[tp] = min(offset, first.get(tp, offset))
        found: dict[Place, Record] = {}
        deadline = time.monotonic() + _PATIENCE
        with closing(self._open_reader()) as reader:
            reader.assign(first)
            while missing:
                records = reader.read(0.1)
                for record in records:
                    place = TopicPartition(record.topic, record.partition), record.offset
                    if place in missing:
                        found[place] = record
                        missing.discard(place)
                if records:
                    deadline = time.monotonic() + _PATIENCE
                elif time.monotonic() > deadline:
                    tp, offset = min(missing)
                    raise Unreachable(f"{tp}@{offset} was not to be had a second time")
        return found
