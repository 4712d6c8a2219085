"""A set of transaction ids that stays small: ids come almost in order, so it is kept as intervals."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable

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

    def discard_below(self, xid: int) -> None:
        """Take out all that are lower than ``xid``."""
        self._rebuild([(max(first, xid), last) for first, last in self.intervals() if last >= xid])

    def discard_if(self, gone: Callable[[int], bool], below: int) -> None:
        """Take out those for which ``gone`` holds. Only ids below ``below`` are asked about."""
        kept: list[tuple[int, int]] = []
        for first, last in self.intervals():
            if first >= below:
                kept.append((first, last))
            else:
                kept += [
                    (xid, xid) for xid in range(first, min(last, below - 1) + 1) if not gone(xid)
                ]
                if last >= below:
                    kept.append((below, last))
        self._rebuild(kept)

    def not_seen(self, snapshot: Snapshot) -> int | None:
        """One of the ids that the snapshot does not see; None when it sees all."""
        for index in range(bisect_left(self._lasts, snapshot.xmin), len(self._lasts)):
            first, last = self._firsts[index], self._lasts[index]
            if last >= snapshot.xmax:
                return last
            for xid in range(max(first, snapshot.xmin), last + 1):
                if xid in snapshot.running:
                    return xid
        return None

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
