"""What a store must do: rows and the checkpoint that belongs to them, together or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from cdc.checkpoint import SinkCheckpoint
from cdc.errors import Rejected
from cdc.event import Delivered
from cdc.position import Position
from cdc.table import Table


class Shape(NamedTuple):
    """A table's row schema from a place of the log on; ``collection`` and ``topic`` are those of its rows."""

    table: Table
    collection: str
    topic: str
    position: Position


class StoreTransaction(Protocol):
    """Rows and checkpoint that appear together or not at all."""

    def apply(self, events: Sequence[Delivered]) -> None:
        """Apply in this order, which is the source's. May hold parts of transactions; may be called again.

        Raises Rejected for what can never be applied; then the transaction can only be rolled back.
        """
        ...

    def attempt(self, events: Sequence[Delivered]) -> Rejected | None:
        """Apply as ``apply`` does, or say why that can never be: then none of these took effect, and one may go on.

        A store without transactions may leave some of them in effect: applied again, they change nothing.
        """
        ...

    def ensure(self, shape: Shape) -> None:
        """Make the table of this row schema if there is none, and bring one that is there into it.

        One that has followed a later row schema is left as it is. A store that knows no tables does nothing. Failed
        where the table cannot follow, or is not to.
        """
        ...

    def save(self, checkpoint: SinkCheckpoint) -> None:
        """Store the checkpoint with the rows. ``offsets``, ``tables`` and ``since`` hold what changed.

        A live table with parked keys becomes ``parked``, and live again with the last of them released.
        """
        ...

    def commit(self) -> None:
        """Visible on return, rows and checkpoint together. Fenced when a newer owner has claimed; then nothing took effect.

        A store that crashes may take the last commits back, in order and whole, and says so by its checkpoint: what
        the topics still hold is applied again. What was claimed stays claimed.
        Unreachable when the outcome is unknown, or when keys were released beside the owner (`Store.beside`): claim
        again and go on from what the checkpoint says.
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

    def beside(
        self, sink: str, source: str
    ) -> AbstractContextManager[tuple[SinkCheckpoint, StoreTransaction]]:
        """A transaction beside the owner, which cannot commit meanwhile: to apply what was kept out of the replica.

        It belongs to the checkpoint that comes with it. ``save`` takes ``released`` alone. It is rolled back at the
        block's end unless it was committed. Refused when the replica holds no checkpoint of this sink.
        """
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
    "Shape",
    "Store",
    "StoreTransaction",
]
