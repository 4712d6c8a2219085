"""Which row schemas the registry takes, and which tables are left behind because it does not (``schema.incompatible``).

A table whose new row schema is refused by its subject's compatibility rule either stops capture at that commit, or
becomes stale: its changes are sent no more, replicas are told, and a copy brings it back once its schema is accepted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from cdc.errors import Incompatible
from cdc.event import Change
from cdc.protocols import EventEncoder
from cdc.table import Table, TableId

log = logging.getLogger(__name__)


class RowSchemas:
    """``tolerant``: a refused table becomes stale. Otherwise every refusal is raised, and nothing here costs a thing."""

    def __init__(self, encoder: EventEncoder, stale: Iterable[TableId], *, tolerant: bool) -> None:
        self._encoder = encoder
        self._tolerant = tolerant
        self._stale = set(stale)
        self._taken: set[Table] = set()
        self._new: list[TableId] = []

    def stale(self, table: TableId) -> bool:
        """Whether nothing is sent of the table."""
        return table in self._stale

    def take(self, table: Table) -> bool:
        """Register a row schema; whether rows of it may be sent. Raises Incompatible under the policy to stop."""
        if table.id in self._stale:
            return False
        if table in self._taken:
            return True
        try:
            self._encoder.register(table)
        except Incompatible as error:
            if not self._tolerant:
                raise
            log.warning("%s becomes stale: %s", table.id, error)
            self._stale.add(table.id)
            self._new.append(table.id)
            return False
        self._taken.add(table)
        return True

    def sent(self, changes: Sequence[Change]) -> Sequence[Change]:
        """Those whose tables are not stale."""
        if not (self._tolerant or self._stale):
            return changes
        left = {table for table in {change.table for change in changes} if not self.take(table)}
        return [change for change in changes if change.table not in left] if left else changes

    def newly_stale(self) -> list[TableId]:
        """Tables that became stale since the last call."""
        found, self._new = self._new, []
        return found

    def again(self, table: TableId) -> None:
        """A copy begins: its rows are sent from here on, if their schema is accepted now."""
        self._stale.discard(table)
