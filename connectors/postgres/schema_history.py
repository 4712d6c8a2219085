"""What the log has told of the tables' shapes so far, by the messages of our event trigger (`event_trigger`).

A description stands in the log in front of the first row that it describes. So from the first message of a table on, its
rows are read by what was in force at their own places; before it, by the catalog as it is now, which is a hint.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any

from cdc.event import SchemaChange
from cdc.table import Table, TableId
from connectors.postgres.description import Description, Memo, remembered
from connectors.postgres.relation import Relation

log = logging.getLogger(__name__)

ShapeOf = Callable[[Description], Table | None]
"""The row schema of a table that is to be captured, None of any other."""
Joins = Callable[[Description], bool]
"""Whether capture could take the table in, if it does not have it."""


class SchemaHistory:
    """Follows tables by their oids, over renames."""

    def __init__(self, shape_of: ShapeOf, joins: Joins) -> None:
        self._shape_of = shape_of
        self._joins = joins
        self._told: dict[int, Description] = {}
        self._memos: Mapping[TableId, str] = {}
        self._names: dict[int, TableId] = {}
        self._leaves: dict[int, frozenset[int]] = {}
        self._made_empty: set[int] = set()

    def begin(
        self,
        names: Iterable[tuple[int, TableId]],
        roots: Iterable[Description],
        memos: Mapping[TableId, str],
    ) -> None:
        """A stream begins: what the catalog says of the captured tables, and of partitioned ones among them."""
        self._told = {}
        self._memos = memos
        self._names = dict(names)
        self._leaves = {root.oid: root.leaves for root in roots}

    def description(self, relation: Relation) -> Description | None:
        """What the log told of this relation, None when it told nothing yet."""
        told = self._told.get(relation.oid)
        return told if told is not None and told.fits(relation) else None

    def memo(self, relation: Relation) -> Memo | None:
        """What was known of this relation where the stream began, unless the log has told of it since."""
        memo = self._memos.get(relation.id)
        return remembered(memo, relation) if memo and relation.oid not in self._told else None

    def read(
        self, content: bytes, lsn: int, order: int, met: Container[int]
    ) -> Iterator[SchemaChange]:
        """What a message says. One that is none of ours is ignored: anybody may write it, and it must not stop capture.

        ``met`` are the oids of tables of which the log has brought rows in this session.
        """
        try:
            raw: Any = json.loads(content)
            match raw:
                case {"rewritten": [int(), str(schema), str(name)]}:
                    yield SchemaChange(TableId(schema, name), "rewritten", lsn, order)
                case {"dropped": [int(oid), str(schema), str(name)]}:
                    yield from self._dropped(oid, TableId(schema, name), lsn, order)
                case {"table": table, "created": bool(created)}:
                    described = Description.of(table)
                    yield from self._described(
                        described, lsn, order, created=created, met=described.oid in met
                    )
                case _:
                    log.warning("a message of a schema change at %d is ignored: none of ours", lsn)
        except (ValueError, KeyError, TypeError) as error:
            log.warning("a message of a schema change at %d is ignored: %s", lsn, error)

    def _dropped(self, oid: int, table: TableId, lsn: int, order: int) -> Iterator[SchemaChange]:
        self._told.pop(oid, None)
        self._names.pop(oid, None)
        yield SchemaChange(table, "gone", lsn, order)
        for root, leaves in self._leaves.items():
            if oid in leaves and root in self._names:
                self._leaves[root] = leaves - {oid}
                yield SchemaChange(self._names[root], "stale", lsn, order)

    def _described(
        self, now: Description, lsn: int, order: int, *, created: bool, met: bool
    ) -> Iterator[SchemaChange]:
        before = self._names.get(now.oid, now.id)
        self._names[now.oid], self._told[now.oid] = now.id, now
        leaves_before = self._leaves.get(now.oid, now.leaves)
        self._leaves[now.oid] = now.leaves
        if created and now.partition:
            self._made_empty.add(now.oid)
        elif not now.partition:
            self._made_empty.discard(now.oid)
        renamed = before != now.id
        if renamed:
            yield SchemaChange(before, "gone", lsn, order)
        shape = self._shape_of(now)
        if shape is None:
            return
        if renamed or created:
            if created and met:
                # Made and filled by one statement: its rows stand in front of this message.
                log.warning("%s was made by a query: verify it with --repair", now.id)
            else:
                yield SchemaChange(now.id, "anew", lsn, order, shape)
        if self._joins(now):
            yield SchemaChange(now.id, "joins", lsn, order, shape)
        yield SchemaChange(now.id, "shape", lsn, order, shape, now.memo)
        if leaves_before - now.leaves:
            yield SchemaChange(now.id, "stale", lsn, order)
        if now.leaves - leaves_before - self._made_empty:
            yield SchemaChange(now.id, "rewritten", lsn, order)
