"""The exact pass: single keys, read on both sides under a fence, with what the log brought in between."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from cdc.event import Delivered
from cdc.fence import Snapshot
from cdc.position import Position
from cdc.verify.compare import RowDifference, compare_rows
from cdc.verify.history import KeyHistory, Values, check_values, expected, outside
from cdc.verify.inconclusive import Inconclusive
from cdc.verify.parts import Fencing, Low

_VOID_PAUSE = 0.05  # seconds, more with every attempt: what made a fence void may pass

Texts = Mapping[str, str | None]


class Settled(NamedTuple):
    """``differing`` keys were found so twice. ``unsettled`` ones changed whenever they were looked at."""

    differing: dict[bytes, RowDifference]
    unsettled: list[bytes]


class Examined(NamedTuple):
    """One look: ``moved`` keys were touched by transactions that the source's snapshot does not show."""

    differing: dict[bytes, RowDifference]
    unsettled: set[bytes]
    moved: set[bytes]


def settle(fencing: Fencing, keys: Iterable[bytes]) -> Settled:
    """Look at each key until it is as it must be, or differs twice in a row with nothing happening to it.

    A key that moves all the time is called differing when every look finds it so: each look alone is exact.
    """
    attempts = fencing.parts.settings.attempts
    waiting = dict.fromkeys(keys, 0)
    confirmed: dict[bytes, RowDifference] = {}
    low = fencing.follow()
    for attempt in range(1, attempts + 1):
        if not waiting:
            break
        examined = examine(fencing, low, list(waiting))
        again: dict[bytes, int] = {}
        for key, times in waiting.items():
            if (difference := examined.differing.get(key)) is not None:
                quiet = times > 0 and key not in examined.moved
                if quiet or times + 1 == attempts:
                    confirmed[key] = difference
                else:
                    again[key] = times + 1
            elif key in examined.unsettled:
                again[key] = 0
        waiting = again
        if attempt == attempts:
            break
    return Settled(confirmed, list(waiting))


def examine(fencing: Fencing, low: Low, keys: Sequence[bytes]) -> Examined:
    """One fenced read of these keys on both sides. Inconclusive when fence after fence is void."""
    parts = fencing.parts
    void = ""
    for attempt in range(parts.settings.attempts):
        time.sleep(attempt * _VOID_PAUSE)
        fence = fencing.new_id()
        with parts.source.read(fencing.table, fence, low.lsn) as (reader, snapshot):
            texts, rows = reader.texts(keys), reader.rows(keys)
        high = fencing.published(fence)
        if high.void:
            void = high.void
            continue
        fencing.await_replica(high)
        with fencing.replica_read() as (reader, state):
            history = KeyHistory(
                keys, Position.at_fence(high.generation, low.lsn), state.checkpoint
            )
            # The snapshot stands: every event that it holds is below the topic's present end.
            parts.window.read(low.starts, history)
            their_texts = reader.texts(keys)
            moved = [key for key in keys if outside(snapshot, history.of(key))]
            their_rows = reader.rows(moved)
        look = _Look(fencing, snapshot, texts, rows, their_texts, their_rows)
        return look.judge(keys, {key: history.of(key) for key in moved})
    raise Inconclusive(f"its fences were void: {void}")


class _Look(NamedTuple):
    """What one fenced read brought from both sides."""

    fencing: Fencing
    snapshot: Snapshot
    texts: Mapping[bytes, Texts]
    rows: Mapping[bytes, bytes]
    their_texts: Mapping[bytes, Texts]
    their_rows: Mapping[bytes, bytes]

    def judge(self, keys: Sequence[bytes], moved: Mapping[bytes, Sequence[Delivered]]) -> Examined:
        differing: dict[bytes, RowDifference] = {}
        unsettled: set[bytes] = set()
        for key in keys:
            if key in moved:
                difference, unknown = self._moved(key, moved[key])
                if difference is None and unknown:
                    unsettled.add(key)
            else:
                difference = compare_rows(self.texts.get(key), self.their_texts.get(key))
            if difference is not None:
                differing[key] = difference
        return Examined(differing, unsettled, set(moved))

    def _moved(self, key: bytes, events: Sequence[Delivered]) -> tuple[RowDifference | None, bool]:
        """The difference, and whether some column could not be compared."""
        base = self._values(self.rows.get(key))
        wanted = expected(base, events, self.fencing.parts.decoder.values)
        found = self._values(self.their_rows.get(key))
        theirs = self.their_texts.get(key, {})
        if wanted is None:
            extra = None if found is None else RowDifference("extra", (), {}, theirs)
            return extra, False
        if found is None:
            return RowDifference("missing", (), _as_texts(wanted), {}), False
        check = check_values(wanted, found)
        if not check.columns:
            return None, check.unknown
        wanted_texts = _as_texts(wanted)
        return (
            RowDifference(
                "changed",
                check.columns,
                {name: wanted_texts[name] for name in check.columns},
                {name: theirs.get(name) for name in check.columns},
            ),
            False,
        )

    def _values(self, row: bytes | None) -> Values | None:
        if row is None:
            return None
        return self.fencing.parts.decoder.values(self.fencing.table, row)


def _as_texts(values: Values) -> dict[str, str | None]:
    return {name: None if value is None else str(value) for name, value in values.items()}
