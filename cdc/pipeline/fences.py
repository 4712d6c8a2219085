"""Which transactions a fence's snapshot does not see, and which keys they touched.

Pure bookkeeping over what capture decodes. PostgreSQL makes commits visible in an order that differs from the log's:
a transaction may be decoded while no snapshot shows it yet, for microseconds, or for as long as a synchronous standby
is away. So every decoded transaction is remembered until it is *settled*: until no fence to come can carry a snapshot
that misses it (`cdc.protocols.Horizon`). Forgetting goes by that alone, never by count or by age.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cdc.event import Change
from cdc.fence import Fence, Snapshot
from cdc.protocols import Horizon
from cdc.table import TableId


@dataclass(slots=True)
class _Decoded:
    """A decoded transaction that is not settled. ``tables`` of None: it may have touched any."""

    commit_lsn: int
    tables: set[TableId] | None
    keys: dict[TableId, dict[bytes, bool]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judgement:
    """``void`` says why the fence ties nothing; empty when it is valid.

    ``touched`` are the keys of the fence's table that transactions outside its snapshot touched below the fence:
    True where one of these events was a whole row or a delete, so that the log alone gives the key's state (an event
    with unchanged columns only updates; behind a whole row it finds that row).
    """

    void: str = ""
    touched: Mapping[bytes, bool] = field(default_factory=dict)


class FenceJudge:
    """Judges the fences that capture meets.

    ``snapshot`` is any recent one of the source (32-bit xids are lifted near it); ``unseen`` are xids that an earlier
    capture decoded and had not settled; ``floor`` see `cdc.checkpoint.SourceCheckpoint`.
    """

    def __init__(self, snapshot: Snapshot, unseen: Iterable[int] = (), floor: int = 0) -> None:
        self._snapshot = snapshot
        self._floor = floor
        self._decoded: dict[int, _Decoded] = {xid: _Decoded(0, None) for xid in unseen}
        self._current = _Decoded(0, set())
        self._watched: dict[TableId, int] = {}
        self._horizons: deque[Horizon] = deque()

    @property
    def unseen(self) -> frozenset[int]:
        """The 64-bit xids of all decoded transactions that are not settled."""
        return frozenset(self._decoded)

    @property
    def floor(self) -> int:
        """The lowest xid that a valid fence's snapshot may show as running."""
        return self._floor

    def raise_floor(self, snapshot: Snapshot) -> None:
        """The slot was made or the publication grew before ``snapshot``: older transactions must end first."""
        self._floor = max(self._floor, snapshot.xmax)
        self._snapshot = snapshot

    def watch(self, table: TableId) -> int:
        """Remember the keys that transactions touch in ``table`` from here on: a read of it is coming.

        Returns the LSN from which on every transaction's keys are known, for `judge`.
        """
        self._watched[table] = self._watched.get(table, 0) + 1
        return self._current.commit_lsn + 1

    def unwatch(self, table: TableId) -> None:
        """The read is over. Every ``watch`` has one."""
        self._watched[table] -= 1
        if not self._watched[table]:
            del self._watched[table]

    def begin(self, xid32: int, commit_lsn: int) -> None:
        """The following changes belong to this transaction."""
        self._current = _Decoded(commit_lsn, set())
        self._decoded[self._snapshot.lift(xid32)] = self._current

    def changed(self, changes: Sequence[Change]) -> None:
        """Changes of the current transaction, in order."""
        current = self._current
        assert current.tables is not None
        current.tables.update({change.table.id for change in changes})
        if self._watched and not self._watched.keys().isdisjoint(current.tables):
            for change in changes:
                if change.table.id in self._watched and change.key is not None:
                    keys = current.keys.setdefault(change.table.id, {})
                    keys[change.key] = keys.get(change.key, False) or not change.unchanged

    def truncated(self, table: TableId) -> None:
        """The current transaction emptied ``table``."""
        assert self._current.tables is not None
        self._current.tables.add(table)

    def settle(self, horizon: Horizon) -> None:
        """Forget what is settled, as soon as the log has been followed to the horizon's LSN."""
        self._snapshot = horizon.snapshot
        self._horizons.append(horizon)

    def reached(self, lsn: int) -> None:
        """The log has been followed up to ``lsn``."""
        newest = None
        while self._horizons and self._horizons[0].lsn <= lsn:
            newest = self._horizons.popleft()
        if newest is not None:
            for xid in [xid for xid in self._decoded if newest.settled(xid)]:
                del self._decoded[xid]

    def judge(self, fence: Fence, read_from: int | None = None) -> Judgement:
        """Whether ``fence``, just met, ties its read to this place in the log.

        ``read_from`` is the LSN from which on the table was watched for this read; for a reader that follows the
        topics itself it is the fence's own ``low``. A transaction that the snapshot does not see, that touched the
        table and stands before that LSN, is in limbo: its keys are not known, so the fence is void.
        """
        snapshot = fence.snapshot
        if snapshot.xmin < self._floor:
            return Judgement(
                f"transaction {snapshot.xmin} began before the slot delivered its table, and is still running"
            )
        if fence.table is None:
            return Judgement()
        low = fence.low if read_from is None else read_from
        touched: dict[bytes, bool] = {}
        for xid, decoded in self._decoded.items():
            if snapshot.sees(xid):
                continue
            if decoded.tables is not None and fence.table not in decoded.tables:
                continue
            if decoded.tables is None or decoded.commit_lsn < low:
                return Judgement(f"transaction {xid} is in the log but was not visible to the read")
            for key, whole in decoded.keys.get(fence.table, {}).items():
                touched[key] = touched.get(key, False) or whole
        return Judgement(touched=touched)
