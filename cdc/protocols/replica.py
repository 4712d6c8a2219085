"""What a store must do: rows and the checkpoint that belongs to them, together or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from cdc.checkpoint import SinkCheckpoint
from cdc.event import Delivered
from cdc.table import Table


class StoreTransaction(Protocol):
    """Rows and checkpoint that appear together or not at all."""

    def apply(self, events: Sequence[Delivered]) -> None:
        """Apply in this order, which is the source's. May hold parts of transactions; may be called again.

        Raises Rejected for what can never be applied; then the transaction can only be rolled back.
        """
        ...

    def ensure(self, table: Table, topic: str) -> None:
        """Make the table that rows of ``topic`` go to, if there is none, as this row schema has it; empty, of course.

        One that is there is left as it is. A store that is told to make no tables, or knows none, does nothing.
        """
        ...

    def save(self, checkpoint: SinkCheckpoint) -> None:
        """Store the checkpoint with the rows. ``offsets``, ``tables`` and ``since`` hold what changed."""
        ...

    def commit(self) -> None:
        """Visible on return, rows and checkpoint together. Fenced when a newer owner has claimed; then nothing took effect.

        A store that crashes may take the last commits back, in order and whole, and says so by its checkpoint: what
        the topics still hold is applied again. What was claimed stays claimed.
        Unreachable when the outcome is unknown: claim again and go on from what the checkpoint says.
        """
        ...

    def rollback(self) -> None:
        """Nothing took effect. Safe to repeat, and after ``commit``."""
        ...


class Store(Protocol):
    """One replica, as a sink sees it."""

    transactional: bool
    """Whether whole source transactions can appear at once together with the checkpoint."""

    def claim(self, sink: str, source: str) -> SinkCheckpoint:
        """Become the only owner of (sink, source): raise the epoch, end the previous owner's session.

        Returns what the replica holds, an empty checkpoint at first. May be called again, after ``close`` too: Fenced
        when somebody else has claimed since this store did, so that two owners never take it from each other in turn.
        """
        ...

    def begin(self) -> StoreTransaction:
        """Begin a transaction under the claim; one at a time."""
        ...

    def missing_rows(self) -> Mapping[str, int]:
        """Per collection, how many updates and deletes since the claim met no row in a live table."""
        ...

    def mismatched_rows(self) -> Mapping[str, int]:
        """Per collection, how many updates and deletes since the claim met a row other than their old image.

        Looked for where the source sends whole old images (replica identity full), in a live table.
        """
        ...

    def close(self) -> None:
        """Safe to repeat."""
        ...


__all__ = [
    "Store",
    "StoreTransaction",
]
