"""What reads bring into the stream, and what they change in the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cdc.checkpoint import BackfillProgress
from cdc.event import Change
from cdc.fence import Signal, Watermark
from cdc.table import Table, TableId


@dataclass(frozen=True, slots=True)
class Admission:
    """What enters the stream at a fence, and what is true once it is acknowledged.

    ``watermark`` lacks only its end offsets. ``progress`` and the two lists of signals go into the checkpoint.
    ``withdrawn``: an earlier capture may have sent rows at this fence, and not all of them.
    """

    changes: list[Change]
    watermark: Watermark
    progress: Mapping[TableId, BackfillProgress] = field(default_factory=dict)
    new_signals: tuple[Signal, ...] = ()
    finished: frozenset[str] = frozenset()
    withdrawn: bool = False


@dataclass(frozen=True, slots=True)
class Amendment:
    """What reads that can never be made as they were asked for change in the checkpoint.

    ``gone`` are tables that cannot be read any more. ``progress`` are copies that begin again, ``finished`` signals
    that such a copy answers.
    """

    gone: frozenset[TableId] = frozenset()
    progress: Mapping[TableId, BackfillProgress] = field(default_factory=dict)
    finished: frozenset[str] = frozenset()


def reads(
    table: Table, rows: list[tuple[bytes, bytes]], touched: Mapping[bytes, bool], lsn: int
) -> list[Change]:
    """The rows of a read whose fence was met at ``lsn``, but for those that are the log's: it touched their keys."""
    if touched:
        rows = [entry for entry in rows if entry[0] not in touched]
    at = lsn - 1
    new = tuple.__new__
    return [
        new(Change, (table, "r", at, order, key, None, row, (), None))
        for order, (key, row) in enumerate(rows, start=1)
    ]
