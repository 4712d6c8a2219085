"""Which transactions a fence's snapshot does not see, and which keys they touched.

Pure bookkeeping over what capture decodes. PostgreSQL makes commits visible in an order that differs from the log's:
a transaction may be decoded while no snapshot shows it yet, for microseconds, or for as long as a synchronous standby
is away. So every decoded transaction is remembered until it is *settled*: until no fence to come can carry a snapshot
that misses it (`cdc.protocols.Horizon`). Forgetting goes by that alone. Behind the newest few thousand only the xids
are kept, as few intervals: a fence that misses one of those is void, whatever it touched. Keys are kept up to a number
of bytes: a fence that misses a transaction whose keys had to go is void.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cdc.event import Change
from cdc.fence import Fence, Snapshot
from cdc.pipeline.xids import XidSet
from cdc.protocols import Horizon
from cdc.table import TableId

_KEPT_WHOLE = 10_000
_KEY_BYTES = 32 << 20
_KEY_OVERHEAD = 120
_MOST_HORIZONS = 1_000


@dataclass(slots=True)
class _Decoded:
    """A decoded transaction that is not settled: which tables it touched, and which keys of watched ones.

    ``key_bytes`` is what its keys cost. ``forgotten``: there were too many of them.
    """

    commit_lsn: int
    tables: set[TableId] = field(default_factory=set)
    keys: dict[TableId, dict[bytes, bool]] = field(default_factory=dict)
    key_bytes: int = 0
    forgotten: bool = False


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

    ``snapshot`` is any recent one of the source (32-bit xids are lifted near it); ``unseen`` are intervals of xids
    that an earlier capture decoded and had not settled; ``floor`` see `cdc.checkpoint.SourceCheckpoint`.
    """

    def __init__(
        self, snapshot: Snapshot, unseen: Iterable[tuple[int, int]] = (), floor: int = 0
    ) -> None:
        self._snapshot = snapshot
        self._floor = floor
        self._old = XidSet()
        self._old.add_intervals(unseen)
        self._decoded: dict[int, _Decoded] = {}
        self._current = _Decoded(0)
        self._current_lsn = 0
        self._watched: dict[TableId, int] = {}
        self._horizons: deque[Horizon] = deque()
        self._settled: deque[tuple[int, list[tuple[int, int]]]] = deque()
        self._with_keys: deque[_Decoded] = deque()
        self._key_bytes = 0

    def unseen(self, lsn: int) -> tuple[tuple[int, int], ...]:
        """The 64-bit xids of all decoded transactions that were not settled at ``lsn``, as intervals.

        That is what a capture has to know which goes on from there: a fence that it meets again may miss one that was
        settled by a horizon further on. ``lsn`` never goes back from call to call.
        """
        while self._settled and self._settled[0][0] <= lsn:
            self._settled.popleft()
        everything = XidSet(self._decoded)
        everything.add_intervals(self._old.intervals())
        for _, settled in self._settled:
            everything.add_intervals(settled)
        everything.fill(self._snapshot)
        return tuple(everything.intervals())

    @property
    def all_settled(self) -> bool:
        """Whether there is nothing to forget."""
        return not self._decoded and not self._old.intervals()

    @property
    def floor(self) -> int:
        """The lowest xid that a valid fence's snapshot may show as running."""
        return self._floor

    def raise_floor(self, xid: int) -> None:
        """Transactions below this xid may hold rows that the log never delivers: they have to end before a read counts."""
        self._floor = max(self._floor, xid)

    def watch(self, table: TableId) -> int:
        """Remember the keys that transactions touch in ``table`` from here on: a read of it is coming.

        Returns the LSN from which on every transaction's keys are known, for `judge`.
        """
        self._watched[table] = self._watched.get(table, 0) + 1
        return self._current_lsn + 1

    def unwatch(self, table: TableId) -> None:
        """The read is over. Every ``watch`` has one."""
        self._watched[table] -= 1
        if not self._watched[table]:
            del self._watched[table]

    def begin(self, xid32: int, commit_lsn: int) -> None:
        """The following changes belong to this transaction."""
        self._current = _Decoded(commit_lsn)
        self._current_lsn = commit_lsn
        self._decoded[self._snapshot.lift(xid32)] = self._current
        if len(self._decoded) >= 2 * _KEPT_WHOLE:
            oldest = list(self._decoded)[:_KEPT_WHOLE]
            self._old.add(oldest)
            for xid in oldest:
                self._drop_keys(self._decoded.pop(xid))

    def changed(self, changes: Sequence[Change]) -> None:
        """Changes of the current transaction, in order."""
        tables = {change.table.id for change in changes}
        self._current.tables |= tables
        for table in tables & self._watched.keys():
            self._touched(table, changes)

    def _touched(self, table: TableId, changes: Sequence[Change]) -> None:
        current = self._current
        if current.forgotten:
            return
        keys = current.keys.setdefault(table, {})
        size = 0
        for change in changes:
            key = change.key
            if change.table.id == table and key is not None:
                if key not in keys:
                    size += len(key) + _KEY_OVERHEAD
                keys[key] = keys.get(key, False) or not change.unchanged
        if size and not current.key_bytes:
            self._with_keys.append(current)
        current.key_bytes += size
        self._key_bytes += size
        while self._key_bytes > _KEY_BYTES:
            oldest = self._with_keys.popleft()
            self._drop_keys(oldest)
            oldest.forgotten = True

    def _drop_keys(self, decoded: _Decoded) -> None:
        self._key_bytes -= decoded.key_bytes
        decoded.key_bytes = 0
        decoded.keys = {}

    def truncated(self, table: TableId) -> None:
        """The current transaction emptied ``table``."""
        self._current.tables.add(table)

    def settle(self, horizon: Horizon) -> None:
        """Forget what is settled, as soon as the log has been followed to the horizon's LSN."""
        self._snapshot = horizon.snapshot
        self._old.fill(horizon.snapshot)
        if len(self._horizons) < _MOST_HORIZONS:
            self._horizons.append(horizon)

    def reached(self, lsn: int) -> None:
        """The log has been followed up to ``lsn``."""
        newest = None
        while self._horizons and self._horizons[0].lsn <= lsn:
            newest = self._horizons.popleft()
        if newest is None:
            return
        gone = [xid for xid in self._decoded if newest.settled(xid)]
        for xid in gone:
            self._drop_keys(self._decoded.pop(xid))
        settled = XidSet(gone)
        settled.add_intervals(self._old.intervals())
        settled.fill(newest.snapshot)
        self._settled.append((newest.lsn, settled.intervals()))
        while self._with_keys and not self._with_keys[0].key_bytes:
            self._with_keys.popleft()
        below = min(newest.readers_xmin, newest.snapshot.xmax)
        self._old.forget(below, newest.snapshot.running)

    def judge(self, fence: Fence, read_from: int | None = None) -> Judgement:
        """Whether ``fence``, just met, ties its read to this place in the log.

        ``read_from`` is the LSN from which on the table was watched for this read; for a reader that follows the
        topics itself it is the fence's own ``low``. A transaction that the snapshot does not see, that touched the
        table and stands before that LSN, is in limbo: its keys are not known, so the fence is void.
        """
        snapshot = fence.snapshot
        if snapshot.xmin < self._floor:
            return Judgement(
                f"transaction {snapshot.xmin} began before the slot delivered its table, and was still running"
            )
        if fence.table is None:
            return Judgement()
        if (old := self._old.not_seen(snapshot)) is not None:
            return _limbo(old)
        low = fence.low if read_from is None else read_from
        touched: dict[bytes, bool] = {}
        for xid, decoded in self._decoded.items():
            if fence.table not in decoded.tables or snapshot.sees(xid):
                continue
            if decoded.forgotten or decoded.commit_lsn < low:
                return _limbo(xid)
            for key, whole in decoded.keys.get(fence.table, {}).items():
                touched[key] = touched.get(key, False) or whole
        return Judgement(touched=touched)


def _limbo(xid: int) -> Judgement:
    return Judgement(f"transaction {xid} is in the log but was not visible to the read")
