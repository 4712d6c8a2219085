"""What the log told of tables' shapes inside the transaction that is being captured, and what follows at its commit.

Rows of the transaction carry their schemas themselves. What no row tells is told here, behind the commit: the new row
schema, so that sinks know it without a row; that values changed without events, so that the table is copied anew; that
a table is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cdc.event import SchemaChange
from cdc.table import Table, TableId


@dataclass(slots=True)
class Followed:
    """What the changes of one table come to. ``shape`` is None where the last one tells none."""

    shape: Table | None = None
    memo: str = ""
    rewritten: bool = False
    stale: bool = False
    gone: bool = False
    joins: bool = False
    replaced: bool = False
    """Another table has its name now."""


class SchemaChanges:
    """Collects the current transaction's, in order."""

    def __init__(self) -> None:
        self._tables: dict[TableId, Followed] = {}

    def add(self, change: SchemaChange) -> None:
        """The next one of the transaction."""
        followed = self._tables.setdefault(change.table, Followed())
        followed.shape = change.shape or followed.shape
        followed.memo = change.memo or followed.memo
        match change.what:
            case "shape":
                pass
            case "rewritten":
                followed.rewritten = True
            case "stale":
                followed.stale = True
            case "gone":
                followed.gone, followed.joins = True, False
                followed.shape = None
            case "anew":
                followed.gone, followed.replaced = False, True
            case "joins":
                followed.gone, followed.joins = False, True

    def take(self) -> Sequence[tuple[TableId, Followed]]:
        """The transaction ended: what follows for each table."""
        if not self._tables:
            return ()
        found, self._tables = list(self._tables.items()), {}
        return found
