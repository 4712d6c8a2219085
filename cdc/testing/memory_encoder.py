"""Events to records without Avro or a registry: what a test of capture sends, and `MemoryEvents` reads again."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Literal
from zlib import crc32

from cdc.event import Change, Message, Record, Truncate
from cdc.fence import Watermark
from cdc.table import Table, TableId


class MemoryEncoder:
    """`cdc.protocols.EventEncoder`. A key's partition follows from its bytes and its topic's partition count."""

    def __init__(self, prefix: str, partitions: Callable[[str], int], generation: int = 1) -> None:
        self.transaction_topic = f"{prefix}.transaction"
        self._prefix = prefix
        self._partitions = partitions
        self._generation = generation
        self._xid = self._commit_lsn = 0
        self._sent: dict[str, int] = {}
        self._begun = False

    def topic(self, table: TableId) -> str:
        return f"{self._prefix}.{table}"

    def begin(
        self,
        xid: int,
        commit_lsn: int,
        commit_us: int,  # noqa: ARG002 - the protocol's
        snapshot: Literal["false", "incremental"] = "false",  # noqa: ARG002
    ) -> None:
        self._xid, self._commit_lsn = xid, commit_lsn
        self._sent = {}
        self._begun = False

    def register(self, table: Table) -> None:
        self.topic(table.id)

    def changes(self, changes: Sequence[Change]) -> list[Record]:
        records = self._first()
        for change in changes:
            self._count(change.table.id)
            records.append(self._data(change))
            if change.op == "d":
                records.append(records[-1]._replace(value=None))
        return records

    def truncate(self, truncate: Truncate) -> list[Record]:
        records = self._first()
        topic = self.topic(truncate.table.id)
        self._count(truncate.table.id)
        value = pickle.dumps(("t", self._position(truncate.total_order), self._xid, *_NO_ROW))
        numbers = range(self._partitions(topic))
        return records + [Record(topic, number, None, value) for number in numbers]

    def message(self, message: Message) -> list[Record]:
        return [Record(f"{self._prefix}.message", 0, None, message.content)]

    def end(self) -> list[Record]:
        return [self._mark(ended=True)] if self._begun else []

    def withdraw(self) -> list[Record]:
        return [self._mark(ended=True)]

    def heartbeat(self, topic: str) -> list[Record]:
        """One record with nothing in it."""
        return [Record(topic, 0, b"", b"")]

    def watermark(self, watermark: Watermark) -> Record:
        table = str(watermark.table) if watermark.table else ""
        value = (
            watermark.fence,
            watermark.kind,
            table,
            watermark.generation,
            watermark.lsn,
            watermark.ends,
            watermark.void,
            watermark.phase,
        )
        return Record(f"{self._prefix}.watermark", 0, None, pickle.dumps(value))

    def _first(self) -> list[Record]:
        if self._begun:
            return []
        self._begun = True
        return [self._mark(ended=False)]

    def _mark(self, *, ended: bool) -> Record:
        counts = tuple(self._sent.items()) if ended else ()
        value = pickle.dumps((ended, self._xid, self._commit_lsn, counts))
        return Record(self.transaction_topic, 0, None, value)

    def _count(self, table: TableId) -> None:
        self._sent[str(table)] = self._sent.get(str(table), 0) + 1

    def _data(self, change: Change) -> Record:
        topic = self.topic(change.table.id)
        fields = (
            change.op,
            self._position(change.total_order),
            self._xid,
            change.key,
            change.after,
            change.unchanged,
            change.other_key,
        )
        partition = crc32(change.key or b"") % self._partitions(topic)
        return Record(topic, partition, change.key, pickle.dumps(fields))

    def _position(self, total_order: int) -> tuple[int, int, int]:
        return (self._generation, self._commit_lsn, total_order)


_NO_ROW = (None, None, (), None)
