"""Where an event stands in its source's history: its one identity.

A log position alone is not one: several events share an LSN, and LSNs of changes are not monotonic across
transactions. Wall time never is. See README.md, guarantee G2.
"""

from __future__ import annotations

from typing import NamedTuple


class Position(NamedTuple):
    """Orders all events of one source and names each: a repeat of a position is a replay.

    ``generation`` starts at 1 and is raised only when the source's log itself starts anew.
    ``commit_lsn`` is the log position (bytes) at which the transaction's commit record starts.
    ``total_order`` numbers, from 1, what the log delivers in the transaction; it may have gaps.
    """

    generation: int
    commit_lsn: int
    total_order: int

    def __str__(self) -> str:
        return f"{self.generation}/{self.commit_lsn}/{self.total_order}"

    @classmethod
    def at_fence(cls, generation: int, fence_lsn: int) -> Position:
        """What a replica holds that has passed the fence: all below it, nothing of a commit at the same LSN.

        Rows that entered the log at the fence (``TransactionId.for_fence``) are below this position too.
        """
        return cls(generation, fence_lsn, 0)

    def passed(self, generation: int, fence_lsn: int) -> bool:
        """Whether a replica at this position holds everything below the fence, its own rows included."""
        return self >= Position.at_fence(generation, fence_lsn)


class TransactionId(NamedTuple):
    """``<xid>:<commit_lsn>``, the same text in BEGIN, END and every event between.

    Rows that a fence brought into the log carry xid 0 and the LSN just before the fence (``for_fence``);
    commit records start at multiples of 8, so no commit has that LSN.
    """

    xid: int
    commit_lsn: int

    def __str__(self) -> str:
        return f"{self.xid}:{self.commit_lsn}"

    @classmethod
    def parse(cls, text: str) -> TransactionId:
        """Read the text form; ValueError when it is not one."""
        xid, _, lsn = text.partition(":")
        return cls(int(xid), int(lsn))

    @classmethod
    def for_fence(cls, fence_lsn: int) -> TransactionId:
        """The id of the rows that enter the log at the fence with this LSN."""
        return cls(0, fence_lsn - 1)


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"
