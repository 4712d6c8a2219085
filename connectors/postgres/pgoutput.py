"""pgoutput's messages made into items: a decoder without I/O, whose whole test suite is captured bytes.

Numbers count what the slot delivers in a transaction, before anything is left out: one per insert and delete, two per
update (a changed key is a delete and a create), one per truncated table, one per transactional message. So a replay
gives the same numbers, whatever is selected.
https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

from cdc.errors import Failed
from cdc.event import Begin, Change, Commit, Item, Message, Progress, SchemaChange, Truncate
from cdc.fence import SIGNAL_PREFIX
from cdc.table import TableId
from connectors.postgres.decoding import RowDecoder
from connectors.postgres.event_trigger import SCHEMA_PREFIX
from connectors.postgres.relation import Relation, parse_relation
from connectors.postgres.transcoder import native

_SCHEMA_PREFIX = SCHEMA_PREFIX.encode()
_EPOCH_2000_US = 946_684_800_000_000

_XLOG = ord("w")
_BEGIN, _COMMIT, _ORIGIN, _RELATION, _TYPE = b"BCORY"
_INSERT, _UPDATE, _DELETE, _TRUNCATE, _MESSAGE = b"IUDTM"
_NEW, _KEY = b"NK"
_OF_RELATION = b"RIUD"
_OID_ENDS = 30

DescribeRelation = Callable[[Relation], RowDecoder | None]
"""Makes the rows' decoder for a relation met in the log; None for a table that is not selected."""

TakesMessages = Callable[[str], bool]
ReadSchemaMessage = Callable[[bytes, int, int, Container[int]], Iterable[SchemaChange]]
"""What a message of the event trigger says."""


class Decoder:
    """Turns frames (of ``log.py``) into items, in order.

    ``describe`` is asked at each Relation message, and may ask the catalog: that is its own I/O. So may ``told``, which
    gets the content of each message of our event trigger, with its LSN and number, and the oids of tables met so far.
    ``takes_messages`` tells by its prefix whether a logical message is wanted. ``joins`` tells which table a signal asks
    to capture from there on: the rows behind it are read then, also those of the same call.
    """

    def __init__(
        self,
        describe: DescribeRelation,
        told: ReadSchemaMessage = lambda *_: (),
        *,
        takes_messages: TakesMessages = lambda _: True,
        joins: Callable[[bytes], TableId | None] = lambda _: None,
    ) -> None:
        self._describe = describe
        self._told = told
        self._joins = joins
        self._passed_over: dict[TableId, Relation] = {}
        self._takes_messages = takes_messages
        self._rows: dict[int, RowDecoder | None] = {}
        self._programs: dict[int, Any] = {}
        self._in_transaction = False
        self._order = 0

    def named(self, oid: int) -> str:
        """The relation's name, for messages."""
        rows = self._rows.get(oid)
        return str(rows.table.id) if rows is not None else f"relation {oid}"

    def decode(self, frames: Sequence[bytes]) -> list[Item]:
        """The items of these frames. Failed for a message that this decoder does not know."""
        items: list[Item] = []
        if native is None:
            self._by_python(frames, items)
            return items
        frames = list(frames)
        at = 0
        while True:
            # Runs of row messages at once; what stands between them, and what is not plain, one by one.
            at, self._order = native.row_messages(
                frames, at, self._programs, self._order, Change, items
            )
            if at == len(frames):
                return items
            self._by_python(frames[at : at + 1], items)
            self._learn(frames[at])
            at += 1

    def _learn(self, frame: bytes) -> None:
        """A relation was described, or a row has widened its table."""
        if len(frame) > _OID_ENDS and frame[25] in _OF_RELATION:
            oid = int.from_bytes(frame[26:_OID_ENDS])
            self._compile(oid, self._rows.get(oid))

    def _compile(self, oid: int, rows: RowDecoder | None) -> None:
        """None stands for a table that is not selected; one that only Python knows must not stand there at all."""
        if rows is not None and rows.program is None:
            self._programs.pop(oid, None)
        else:
            self._programs[oid] = None if rows is None else rows.program

    def _by_python(self, frames: Sequence[bytes], items: list[Item]) -> None:
        """Append the items of these frames: the reference for what is compiled."""
        append = items.append
        read = int.from_bytes
        rows = self._rows
        order = self._order
        for frame in frames:
            if frame[0] != _XLOG:
                # Inside a transaction a keepalive's LSN can lie beyond changes that are still to come.
                if not self._in_transaction:
                    append(Progress(read(frame[1:9])))
                continue
            kind = frame[25]
            if kind == _INSERT:
                order += 1
                table = rows[read(frame[26:30])]
                if table is not None:
                    append(table.insert(frame, read(frame[1:9]), order))
            elif kind == _UPDATE:
                order += 2
                table = rows[read(frame[26:30])]
                if table is not None:
                    if frame[30] == _NEW:
                        append(table.update(frame, read(frame[1:9]), order - 1))
                    else:
                        items += table.update_with_old(frame, read(frame[1:9]), order - 1)
            elif kind == _DELETE:
                order += 1
                table = rows[read(frame[26:30])]
                if table is not None:
                    append(table.delete(frame, read(frame[1:9]), order))
            elif kind == _BEGIN:
                order = 0
                self._in_transaction = True
                append(
                    Begin(
                        read(frame[26:34]),
                        read(frame[42:46]),
                        read(frame[34:42], signed=True) + _EPOCH_2000_US,
                    )
                )
            elif kind == _COMMIT:
                self._in_transaction = False
                append(Commit(read(frame[27:35]), read(frame[35:43])))
            elif kind == _RELATION:
                self._relation(parse_relation(frame, 26))
            elif kind == _TRUNCATE:
                order = self._truncate(frame, order, items)
            elif kind == _MESSAGE:
                order = self._message(frame, order, items)
            elif kind not in (_ORIGIN, _TYPE):
                raise Failed(
                    f"the log holds a message of unknown kind {chr(kind)!r}",
                    "this version does not know the server's pgoutput protocol",
                )
        self._order = order

    def _relation(self, relation: Relation) -> None:
        found = self._rows[relation.oid] = self._describe(relation)
        self._compile(relation.oid, found)
        if found is None:
            self._passed_over[relation.id] = relation
        else:
            self._passed_over.pop(relation.id, None)

    def _truncate(self, frame: bytes, order: int, items: list[Item]) -> int:
        lsn = int.from_bytes(frame[1:9])
        count = int.from_bytes(frame[26:30])
        for start in range(31, 31 + 4 * count, 4):
            order += 1
            table = self._rows[int.from_bytes(frame[start : start + 4])]
            if table is not None:
                items.append(Truncate(table.table, lsn, order))
        return order

    def _message(self, frame: bytes, order: int, items: list[Item]) -> int:
        transactional = bool(frame[26] & 1)
        end = frame.index(0, 35)
        content = frame[end + 5 :]
        if transactional:
            order += 1
            if frame[35:end] == _SCHEMA_PREFIX:
                items += self._told(content, int.from_bytes(frame[27:35]), order, self._rows.keys())
                return order
        prefix = frame[35:end].decode()
        if prefix == SIGNAL_PREFIX and not transactional:
            joined = self._joins(content)
            relation = None if joined is None else self._passed_over.get(joined)
            if relation is not None:
                self._relation(relation)
        if self._takes_messages(prefix):
            number = order if transactional else 0
            lsn = int.from_bytes(frame[27:35])
            items.append(Message(prefix, content, lsn, transactional, number))
        return order
