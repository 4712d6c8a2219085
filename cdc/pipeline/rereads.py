"""The rows that wait to be read again by their keys: asked for by signals, or by capture itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from cdc.fence import Signal
from cdc.table import TableId

_KEYS_AT_ONCE = 2_000
_MOST_OWN_BYTES = 1 << 20
"""Of one table's keys that wait by capture's own wish: they stand in the checkpoint, which is one record."""
_KEY_OVERHEAD = 16

OUR_OWN = ""
"""The source of signals that capture made for itself: nobody waits for the fence that has their name."""


class Rereads:
    """Signals in the order in which their keys are to be read."""

    def __init__(self, signals: Iterable[Signal]) -> None:
        self._signals = deque(signals)

    def __bool__(self) -> bool:
        return bool(self._signals)

    def take(self, signal: Signal) -> tuple[Signal, ...]:
        """Queue it in parts that are read at once; the last part keeps the signal's id."""
        parts = tuple(
            replace(
                signal,
                id=signal.id
                if start + _KEYS_AT_ONCE >= len(signal.keys)
                else f"{signal.id}/{start}",
                keys=signal.keys[start : start + _KEYS_AT_ONCE],
            )
            for start in range(0, len(signal.keys), _KEYS_AT_ONCE)
        )
        self._signals.extend(parts)
        return parts

    def next(self) -> tuple[Signal, ...]:
        """The first signal; with it, those of others of its table that nobody waits for by name."""
        signals = [self._signals.popleft()]
        keys = set(signals[0].keys)
        while self._signals and _may_join(signals[0], self._signals[0], len(keys)):
            signals.append(self._signals.popleft())
            keys |= set(signals[-1].keys)
        return tuple(signals)

    def put_back(self, signals: Sequence[Signal]) -> None:
        """A read of these has failed."""
        self._signals.extend(signals)

    def go_on(self, rest: Signal) -> None:
        """The keys of a signal that its read did not come to: they are the next."""
        self._signals.appendleft(rest)

    def of(self, table: TableId) -> list[Signal]:
        """Those of this table."""
        return [signal for signal in self._signals if signal.table == table]

    def forget(self, ids: Collection[str]) -> None:
        """Drop these signals."""
        self._signals = deque(signal for signal in self._signals if signal.id not in ids)


def too_many(signals: Iterable[Signal]) -> bool:
    """Whether the keys of these, one table's, are more than a checkpoint should carry."""
    size = sum(len(key) + _KEY_OVERHEAD for signal in signals for key in signal.keys)
    return size > _MOST_OWN_BYTES


def _may_join(first: Signal, other: Signal, keys: int) -> bool:
    return (
        first.source == OUR_OWN == other.source
        and other.table == first.table
        and keys + len(other.keys) <= _KEYS_AT_ONCE
    )
