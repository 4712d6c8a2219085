"""Records that nobody can read, until it is known whether each was a change of the source.

Its place in the source's history stands inside a record, so of an unreadable one it is not known. But END counts the
rows of a transaction: if one lacks rows of a table, and all partitions of its topic are past it, then unreadable records
that stand where those rows would have been *are* those rows (they are *charged*). One that no transaction up to its
neighbour lacks is foreign: somebody else wrote it, no change is missing, and nothing needs to be parked.

Pure. Each is `Work` for `cdc.pipeline.offsets`: it is read again after a restart until this is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cdc.errors import Rejected
from cdc.event import Record
from cdc.pipeline.open_transaction import ROW_OVERHEAD
from cdc.position import Position, TopicPartition


@dataclass(slots=True, eq=False)
class UnreadableRecord:
    """``key`` is its key record, None where that is not known.

    ``low`` is the commit LSN of the event before it in its partition; ``high``, once known, one that it is not behind.
    ``charged`` is the transaction that it counts as a change of. ``told``: its letter is written, or about to be.
    ``done``: it is known what it was, and the replica knows too.
    """

    record: Record
    collection: str
    key: bytes | None
    error: Rejected
    low: int
    high: int | None = None
    charged: Position | None = None
    told: bool = False
    done: bool = False

    @property
    def partition(self) -> TopicPartition:
        """Where it stands."""
        return TopicPartition(self.record.topic, self.record.partition)

    @property
    def size(self) -> int:
        """In bytes, roughly."""
        return len(self.record.key or b"") + len(self.record.value or b"") + ROW_OVERHEAD


class Unreadable:
    """Those not accounted for yet, in the order in which they were read; ``size`` is in bytes."""

    def __init__(self) -> None:
        self._open: list[UnreadableRecord] = []
        self._news: list[UnreadableRecord] = []
        self.size = 0

    def __len__(self) -> int:
        return len(self._open)

    def add(self, one: UnreadableRecord) -> None:
        """Wait until it is known what it was."""
        self._open.append(one)
        self._news.append(one)
        self.size += one.size

    def passed(self, partition: TopicPartition, lsn: int) -> None:
        """An event with this commit LSN stands behind what was added of its partition."""
        for one in self._open:
            if one.high is None and one.partition == partition:
                one.high = lsn

    def candidates(self, collection: str, lsn: int) -> list[UnreadableRecord]:
        """Those that may be changes of the transaction that committed at ``lsn``."""
        return [one for one in self._open if one.collection == collection and one.low <= lsn]

    def collections(self) -> set[str]:
        """The collections that have some."""
        return {one.collection for one in self._open}

    def charge(self, found: Sequence[UnreadableRecord], position: Position) -> None:
        """They count as changes of the transaction at ``position``: their keys are to be parked."""
        for one in found:
            if one.charged is None:
                one.charged = position
                self._news.append(one)

    def close(self, found: Sequence[UnreadableRecord]) -> None:
        """The transaction that they are charged to is complete with them."""
        for one in found:
            self._open.remove(one)
            self.size -= one.size
            one.done = True

    def take(self, holds: Callable[[int], bool]) -> list[UnreadableRecord]:
        """Those that were met or charged since the last call. Those found foreign are done.

        ``holds`` tells whether everything that committed at or below an LSN has been taken.
        """
        foreign = [one for one in self._open if one.high is not None and holds(one.high)]
        self.close(foreign)
        news, self._news = self._news, []
        return list(dict.fromkeys(news))
