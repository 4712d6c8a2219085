"""Updates and deletes whose row was not in the replica, or was not there as the source had it.

Either means that somebody else changed the replica. Only tables that are live are looked at: while a table is being
copied, changes stream in before their rows do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from cdc.errors import Refused
from cdc.table import Table


class RowFaults:
    """Counts them by collection, ``missing`` and ``mismatched``; with ``fails`` the first one is Refused instead."""

    def __init__(self, live: Collection[str] = (), *, fails: bool = False) -> None:
        self.missing: Counter[str] = Counter()
        self.mismatched: Counter[str] = Counter()
        self._live = live
        self._fails = fails

    def count_missing(self, collection: str, table: Table, rows: int) -> None:
        """So many updates and deletes found no row with their key."""
        self._count(self.missing, collection, table, rows, "found no row")

    def count_mismatched(self, collection: str, table: Table, rows: int) -> None:
        """So many updates and deletes found a row that differs from their old image."""
        self._count(self.mismatched, collection, table, rows, "found a row other than the source's")

    def add(self, others: RowFaults) -> None:
        """Count these as well."""
        self.missing.update(others.missing)
        self.mismatched.update(others.mismatched)

    def copy(self) -> RowFaults:
        """The same counts, counted on apart from these."""
        other = RowFaults(self._live, fails=self._fails)
        other.add(self)
        return other

    def clear(self) -> None:
        """Begin to count anew."""
        self.missing.clear()
        self.mismatched.clear()

    def _count(
        self, counter: Counter[str], collection: str, table: Table, rows: int, how: str
    ) -> None:
        if not rows or collection not in self._live:
            return
        if self._fails:
            raise Refused(
                f"{rows} updates or deletes of {table.id} {how} in the replica by their key ({', '.join(table.key)})",
                "see who else writes there; set missing.rows=report, then cdc verify run --repair",
            )
        counter[collection] += rows
