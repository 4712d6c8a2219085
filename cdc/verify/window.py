"""Reads a table's data topic between a fence and its present end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from cdc.errors import Rejected
from cdc.position import TopicPartition
from cdc.protocols import EventDecoder, TopicReader
from cdc.verify.history import KeyHistory
from cdc.verify.inconclusive import Inconclusive

Offsets = Mapping[TopicPartition, int]


class DataWindow:
    """Our own consumer of data topics. Between reads its partitions are paused, so that nothing is fetched."""

    def __init__(self, reader: TopicReader, decoder: EventDecoder, timeout: float) -> None:
        self._reader = reader
        self._decoder = decoder
        self._timeout = timeout

    def ends(self, partitions: Sequence[TopicPartition]) -> Offsets:
        """Where each partition ends now."""
        return {at: end for at, (_, end) in self._reader.bounds(partitions).items()}

    def read(self, starts: Offsets, history: KeyHistory) -> None:
        """Feed ``history`` every record from ``starts`` to the ends that the partitions have now.

        To be called after the replica was read: then all that it held stands below these ends.
        """
        bounds = self._reader.bounds(list(starts))
        for at, start in starts.items():
            if bounds[at][0] > start:
                raise Inconclusive(f"{at} no longer holds what the fence refers to (retention)")
        ends = {at: bounds[at][1] for at, start in starts.items() if bounds[at][1] > start}
        if not ends:
            return
        self._reader.assign({at: starts[at] for at in ends})
        self._reader.resume(list(ends))
        try:
            self._read_up_to(ends, history)
        finally:
            self._reader.pause(list(ends))

    def _read_up_to(self, ends: Offsets, history: KeyHistory) -> None:
        deadline = time.monotonic() + self._timeout
        open_partitions = dict(ends)
        while open_partitions:
            if time.monotonic() > deadline:
                raise Inconclusive(
                    f"{next(iter(open_partitions))} could not be read to its end in {self._timeout:g} s"
                )
            records = [
                record
                for record in self._reader.read(0.1)
                if record.offset < ends.get(TopicPartition(record.topic, record.partition), 0)
            ]
            for event in self._decoder.data(records):
                if isinstance(event, Rejected):
                    raise Inconclusive(f"a record cannot be read: {event.what}")
                if event is not None:
                    history.add(event)
            for at in list(open_partitions):
                if self._reader.position(at) >= ends[at]:
                    del open_partitions[at]

    def close(self) -> None:
        """Safe to repeat."""
        self._reader.close()
