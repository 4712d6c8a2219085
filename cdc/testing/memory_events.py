"""Records of a source without Avro: for tests of what stands behind the decoder."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any

from cdc.errors import Rejected
from cdc.event import Delivered, Op, Record, TransactionMark
from cdc.fence import FenceKind, Watermark
from cdc.position import Position, TopicPartition
from cdc.table import Table
from cdc.testing.rows import key_bytes, key_values, row_bytes, row_values


class MemoryEvents:
    """Makes the records of the source ``prefix`` and reads them again (`MemoryDecoder`).

    ``tables`` are by collection; ``partitions`` is the count of every data topic: a row's is its id modulo that.
    """

    def __init__(self, prefix: str, tables: Sequence[Table], partitions: int = 1) -> None:
        self.prefix = prefix
        self.partitions = partitions
        self._tables = {str(table.id): table for table in tables}

    # --- making records --------------------------------------------------------------------------------------

    def change(
        self,
        collection: str,
        op: Op,
        row: Mapping[str, object],
        position: Position,
        *,
        xid: int = 1,
        unchanged: tuple[str, ...] = (),
        other_key: Mapping[str, object] | None = None,
    ) -> Record:
        """One row's event; for a delete ``row`` needs only the key."""
        table = self._tables[collection]
        key = key_bytes(table, row)
        fields = (
            op,
            tuple(position),
            xid,
            key,
            None if op == "d" else row_bytes(table, row),
            unchanged,
            None if other_key is None else key_bytes(table, other_key),
        )
        number = int(str(row[table.key[0]])) % self.partitions
        return Record(f"{self.prefix}.{collection}", number, key, pickle.dumps(fields))

    def tombstone(self, collection: str, row: Mapping[str, object]) -> Record:
        """What follows a delete."""
        key = key_bytes(self._tables[collection], row)
        number = int(str(row["id"])) % self.partitions
        return Record(f"{self.prefix}.{collection}", number, key, None)

    def truncate(self, collection: str, position: Position, xid: int = 1) -> list[Record]:
        """The same event for every partition of the topic."""
        value = pickle.dumps(("t", tuple(position), xid, None, None, (), None))
        topic = f"{self.prefix}.{collection}"
        return [Record(topic, number, None, value) for number in range(self.partitions)]

    def begin(self, lsn: int, xid: int = 1) -> Record:
        """BEGIN; the source committed at as many milliseconds as ``lsn`` says."""
        return self._mark(False, xid, lsn, {})  # noqa: FBT003 - as in TransactionMark

    def end(self, lsn: int, counts: Mapping[str, int], xid: int = 1) -> Record:
        """END with the counts per collection."""
        return self._mark(True, xid, lsn, counts)  # noqa: FBT003

    def watermark(
        self,
        lsn: int,
        ends: Mapping[TopicPartition, int],
        *,
        kind: FenceKind = "mark",
        phase: str = "",
        table: str = "",
        void: str = "",
        generation: int = 1,
    ) -> Record:
        """A watermark for the fence at ``lsn``; a ``final`` one tells the table's row schema."""
        value = (f"fence-{lsn}", kind, table, generation, lsn, dict(ends), void, phase)
        return Record(f"{self.prefix}.watermark", 0, None, pickle.dumps(value))

    def _mark(self, ended: bool, xid: int, lsn: int, counts: Mapping[str, int]) -> Record:  # noqa: FBT001
        value = pickle.dumps((ended, xid, lsn, tuple(counts.items())))
        return Record(f"{self.prefix}.transaction", 0, None, value)

    # --- reading them ----------------------------------------------------------------------------------------

    def data(self, records: Sequence[Record]) -> list[Delivered | Rejected | None]:
        return [self._event(record) for record in records]

    def key(self, record: Record) -> bytes | None:
        """Its key; an empty one cannot be known."""
        return record.key or None

    def transaction(self, record: Record) -> TransactionMark:
        ended, xid, lsn, counts = _unpickled(record)
        return TransactionMark(ended, xid, lsn, counts, record.offset, commit_ms=lsn)

    def watermark_of(self, record: Record) -> Watermark:
        """What a watermark's record says."""
        fence, kind, table, generation, lsn, ends, void, phase = _unpickled(record)
        known = self._tables[table] if table else None
        return Watermark(
            fence,
            kind,
            known.id if known else None,
            generation,
            lsn,
            ends,
            void,
            phase,
            shape=known if phase == "final" else None,
        )

    def values(self, table: Table, row: bytes) -> Mapping[str, object]:
        return row_values(table, row)

    def key_values(self, table: Table, key: bytes) -> Mapping[str, object]:
        return key_values(table, key)

    def _event(self, record: Record) -> Delivered | Rejected | None:
        if record.value is None:
            return None
        collection = record.topic[len(self.prefix) + 1 :]
        try:
            op, position, xid, key, after, unchanged, other_key = _unpickled(record)
        except Rejected as error:
            return error
        return Delivered(
            collection,
            self._tables[collection],
            op,
            Position(*position),
            xid,
            key,
            None,
            after,
            unchanged,
            other_key,
            record.topic,
            record.partition,
            record.offset,
            len(record.value),
        )


class MemoryDecoder:
    """The reading half of `MemoryEvents` under the names of `cdc.protocols.EventDecoder`."""

    def __init__(self, events: MemoryEvents) -> None:
        self.data = events.data
        self.key = events.key
        self.transaction = events.transaction
        self.watermark = events.watermark_of
        self.values = events.values
        self.key_values = events.key_values


def _unpickled(record: Record) -> tuple[Any, ...]:
    try:
        value = pickle.loads(record.value or b"")  # noqa: S301 - written by the test itself
    except (pickle.UnpicklingError, EOFError, ValueError) as error:
        raise Rejected(f"not a record of a test: {record.value!r}") from error
    assert isinstance(value, tuple)
    return value
