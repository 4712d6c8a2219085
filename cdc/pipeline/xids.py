"""A set of transaction ids that stays small: ids come almost in order, so it is kept as intervals."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable

from cdc.fence import Snapshot


class XidSet:
    """64-bit xids as sorted, disjoint intervals, both ends included."""

    def __init__(self, xids: Iterable[int] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self.add(xids)

    def intervals(self) -> list[tuple[int, int]]:
        """The intervals in ascending order."""
        return list(zip(self._firsts, self._lasts, strict=True))

    def add(self, xids: Iterable[int]) -> None:
        """Put these into the set."""
        self._rebuild(sorted([*self.intervals(), *((xid, xid) for xid in xids)]))

    def add_intervals(self, intervals: Iterable[tuple[int, int]]) -> None:
        """Put these intervals into the set."""
        self._rebuild(sorted([*self.intervals(), *intervals]))

    def fill(self, snapshot: Snapshot) -> None:
        """Close gaps in which nothing runs by this snapshot: no later one can miss a transaction there.

        An earlier one can, and then counts one too many as not seen: safe, and rare.
        """
        running = sorted(snapshot.running)
        kept: list[tuple[int, int]] = []
        for first, last in self.intervals():
            if kept and first <= snapshot.xmax:
                before = kept[-1][1]
                if bisect_left(running, first) == bisect_right(running, before):
                    kept[-1] = (kept[-1][0], last)
                    continue
            kept.append((first, last))
        self._rebuild(kept)

    def forget(self, below: int, running: Collection[int]) -> None:
        """Take out all that are lower than ``below``, but for those in ``running``."""
        kept = [(xid, xid) for xid in sorted(running) if xid < below and xid in self]
        kept += [(max(first, below), last) for first, last in self.intervals() if last >= below]
        self._rebuild(kept)

    def not_seen(self, snapshot: Snapshot) -> int | None:
        """One of the ids that the snapshot does not see; None when it sees all."""
        if self._lasts and self._lasts[-1] >= snapshot.xmax:
            return self._lasts[-1]
        return min((xid for xid in snapshot.running if xid in self), default=None)

    def __contains__(self, xid: int) -> bool:
        index = bisect_left(self._lasts, xid)
        return index < len(self._lasts) and self._firsts[index] <= xid

    def _rebuild(self, intervals: list[tuple[int, int]]) -> None:
        firsts: list[int] = []
        lasts: list[int] = []
        for first, last in intervals:
            if lasts and first <= lasts[-1] + 1:
                lasts[-1] = max(lasts[-1], last)
            else:
                firsts.append(first)
                lasts.append(last)
        self._firsts, self._lasts = firsts, lasts
