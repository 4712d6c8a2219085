"""What both sides must do to be compared: digests and rows of key ranges, on one snapshot each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from cdc.checkpoint import SinkCheckpoint
from cdc.fence import Fence, Snapshot
from cdc.table import KeyRange, Table


class Bucket(NamedTuple):
    """The digest of one run of rows: two independent sums of row hashes, and the count."""

    upto: bytes | None
    row_count: int
    sums: tuple[int, int]


class Hashes(NamedTuple):
    """Per-row digests, aligned lists: Avro key records in key order, and the rows' hashes."""

    keys: list[bytes]
    hashes: list[tuple[int, int]]


class ReplicaState(NamedTuple):
    """What a replica says of itself inside the snapshot of a read."""

    checkpoint: SinkCheckpoint
    """With every offset, and the state of every table."""


class RangeReader(Protocol):
    """One side of a comparison, inside one read transaction on one snapshot.

    Both sides order keys in the same way (bytewise for text) and hash the same columns to the same numbers.
    """

    def digest(self, key_range: KeyRange, bucket_rows: int, row_limit: int) -> Sequence[Bucket]:
        """Digests of runs of ``bucket_rows`` rows from the range's start on: their upper ends are chosen here.

        Stops after about ``row_limit`` rows; the last bucket ends at the range's own end if that was reached.
        """
        ...

    def digest_at(self, key_range: KeyRange, ends: Sequence[bytes | None]) -> Sequence[Bucket]:
        """Digests of the runs with these upper ends, as the other side chose them."""
        ...

    def hashes(self, key_range: KeyRange) -> Hashes:
        """Every row's key and hash."""
        ...

    def rows(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """The rows (Avro records by ``table``) with these keys, as far as they exist."""
        ...

    def texts(self, keys: Sequence[bytes]) -> Mapping[bytes, Mapping[str, str | None]]:
        """The compared columns of the rows with these keys, each in the text form that tells every value apart."""
        ...


class SourceSide(Protocol):
    """The source's door for verification."""

    def read(
        self, table: Table, fence: str, low: int
    ) -> AbstractContextManager[tuple[RangeReader, Snapshot]]:
        """A locked, fenced read: the fence is emitted when the block ends without an error."""
        ...

    def emit(self, prefix: str, content: bytes) -> int:
        """A message into the source's log, flushed; its LSN."""
        ...

    def incomparable(self, table: Table) -> str:
        """Why the replica need not hold the table's rows, by the configuration; empty when it must."""
        ...

    def mark(self, fence: Fence) -> int:
        """Emit a fence that closes no read; its LSN."""
        ...

    def snapshot(self) -> Snapshot:
        """The transactions that are visible now."""
        ...

    def tables(self) -> Sequence[Table]:
        """The captured tables, with those of their columns that can be compared."""
        ...

    def not_compared(self, table: Table) -> Sequence[str]:
        """Captured columns that it leaves out: the replica holds what no digest of the source can tell (a mask)."""
        ...

    def estimate(self, table: Table) -> int:
        """About how many rows it has, for progress; 0 when it is not known. Costs nothing."""
        ...

    def close(self) -> None:
        """Safe to repeat."""
        ...


class ReplicaSide(Protocol):
    """The replica's door for verification."""

    def state(self, sink: str, source: str) -> ReplicaState:
        """What the replica holds now."""
        ...

    def read(
        self, table: Table, sink: str, source: str
    ) -> AbstractContextManager[tuple[RangeReader, ReplicaState]]:
        """A read transaction on one snapshot, which the state belongs to.

        A table that is not there is read as one without rows. Raises Failed when it lacks a column.
        """
        ...

    def close(self) -> None:
        """Safe to repeat."""
        ...


__all__ = [
    "Bucket",
    "Hashes",
    "KeyRange",
    "RangeReader",
    "ReplicaSide",
    "ReplicaState",
    "SourceSide",
]
