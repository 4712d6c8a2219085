"""Events to records, transaction by transaction: rows in their envelopes, tombstones, BEGIN and END.

A value is a concatenation: see ``cdc.avro.source_bytes`` for its constant parts, ``cdc.avro.envelopes`` for the loop.
fastavro is the reference that the tests hold this to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

from cdc import __version__
from cdc.avro.envelopes import Shared, envelopes, headers_of, native
from cdc.avro.framing import frame
from cdc.avro.names import AS_AVRO, NameAdjustment, topic_characters, topic_name
from cdc.avro.packaged import packaged_schema, schema_text
from cdc.avro.row_schema import key_schema, message_schema, value_schema
from cdc.avro.source_bytes import TransactionBytes, optional_long, times
from cdc.avro.watermark import SchemaIds, encode_watermark
from cdc.avro_binary import (
    END_OF_BLOCKS,
    NULL,
    PRESENT,
    bytes_bytes,
    long_bytes,
    string_bytes,
)
from cdc.errors import Refused
from cdc.event import Change, Message, Record, Truncate
from cdc.fence import Watermark
from cdc.position import TransactionId
from cdc.protocols import SchemaRegistry
from cdc.table import Table, TableId


class _TableTopic:
    """A row schema as registered for its topic. ``between`` belongs to the transaction ``shared``."""

    def __init__(self, table: Table, topic: str, collection: str, ids: SchemaIds):
        key_id, value_id = ids
        self.id = table.id
        self.ids = ids
        self.topic = topic
        self.collection = collection
        self.key_frame = frame(key_id) if key_id is not None else b""
        value_frame = frame(value_id)
        self.only_before = value_frame + PRESENT
        self.only_after = value_frame + NULL + PRESENT
        self.neither = value_frame + NULL + NULL
        self.between = b""
        self.shared: TransactionBytes | None = None


class EventEncoder:
    """See ``cdc.protocols.EventEncoder``. Not thread-safe.

    ``partition`` gives the partition for a topic and a framed key (None: a table without one), ``partitions`` the
    count of a topic's partitions; ``clock`` gives nanoseconds since 1970, read once a call, for ``ts_ms`` and its like.
    After an error a call can be repeated: what it was to send is not counted.
    """

    def __init__(
        self,
        *,
        prefix: str,
        database: str,
        generation: int,
        registry: SchemaRegistry,
        partition: Callable[[str, bytes | None], int],
        partitions: Callable[[str], int],
        version: str = __version__,
        connector: str = "postgresql",
        clock: Callable[[], int] = time.time_ns,
        tombstones: bool = True,
        names: NameAdjustment = AS_AVRO,
    ) -> None:
        self._prefix = topic_characters(prefix)
        self._constants = (version, connector, prefix, database)
        self._generation = generation
        self._registry = registry
        self._partition = partition
        self._partitions = partitions
        self._connector = connector
        self._clock = clock
        self._tombstones = tombstones
        self._names = names
        self._tables: dict[Table, _TableTopic] = {}
        self._topic_of: dict[str, TableId] = {}
        self._frames: dict[str, bytes] = {}
        self._previous_commit: int | None = None
        self._xid = 0
        self._commit_lsn: int | None = None
        self._commit_us = 0
        self._shared: TransactionBytes | None = None
        self._sent: dict[str, int] = {}
        self._begun = False
        self.transaction_topic = f"{self._prefix}.transaction"

    def topic(self, table: TableId) -> str:
        """The name of the table's topic."""
        return topic_name(self._prefix, table)

    # --- transactions ----------------------------------------------------------------------------------------

    def begin(
        self,
        xid: int,
        commit_lsn: int,
        commit_us: int,
        snapshot: Literal["false", "incremental"] = "false",
    ) -> None:
        """The events that follow belong to this transaction."""
        self._xid, self._commit_lsn, self._commit_us = xid, commit_lsn, commit_us
        self._shared = TransactionBytes(
            self._constants,
            TransactionId(xid, commit_lsn),
            commit_us,
            snapshot,
            self._previous_commit,
            self._generation,
        )
        self._sent = {}
        self._begun = False

    def end(self) -> list[Record]:
        """END with the counts; nothing at all for a transaction that sent nothing."""
        records = []
        if self._begun:
            records.append(self._mark("END", self._sent))
        if self._xid:
            self._previous_commit = self._commit_lsn
        self._shared = None
        self._commit_lsn = None
        return records

    def withdraw(self) -> list[Record]:
        """END that counts nothing: whatever was sent of the transaction before takes no effect."""
        records = [self._mark("END", {})]
        self._sent = {}
        self._begun = False
        return records

    def _begin_record(self) -> list[Record]:
        if self._begun:
            return []
        return [self._mark("BEGIN", None)]

    def _mark(self, status: str, counts: dict[str, int] | None) -> Record:
        topic = self.transaction_topic
        transaction_id = string_bytes(self._transaction().id)
        if counts is None:
            body = NULL + NULL
        else:
            body = PRESENT + long_bytes(sum(counts.values())) + PRESENT
            if counts:
                body += long_bytes(len(counts)) + b"".join(
                    PRESENT + string_bytes(collection) + long_bytes(count)
                    for collection, count in counts.items()
                )
            body += END_OF_BLOCKS
        return Record(
            topic,
            0,
            self._frame(f"{topic}-key", "transaction_key") + transaction_id,
            self._frame(f"{topic}-value", "transaction_value")
            + string_bytes(status)
            + transaction_id
            + body
            + long_bytes(self._commit_us // 1000),
        )

    def _transaction(self) -> TransactionBytes:
        if self._shared is None:
            raise ValueError("an event outside any transaction: begin() comes first")
        return self._shared

    # --- events ----------------------------------------------------------------------------------------------

    def changes(self, changes: Sequence[Change]) -> list[Record]:
        """Records in order; a delete is followed by its tombstone. The first of a transaction brings BEGIN along."""
        if not changes:
            return []
        records = self._begin_record()
        sent = dict(self._sent)
        self._encode(list(changes), records, sent)
        self._sent = sent
        self._begun = True
        return records

    def _encode(
        self, changes: list[Change], records: list[Record], sent_to: dict[str, int]
    ) -> None:
        transaction = self._transaction()
        written_at = times(self._clock())
        run = envelopes if native is None else native.envelopes
        at = 0
        while at < len(changes):
            target = self._table_topic(changes[at].table, transaction)
            shared = Shared(
                Record,
                target.topic,
                self._partition,
                headers_of,
                target.key_frame,
                target.only_before,
                target.only_after,
                target.neither,
                transaction.head,
                transaction.sequence,
                target.between,
                transaction.tail,
                written_at,
                self._tombstones,
            )
            sent = sent_to.get(target.collection, 0)
            at, sent_to[target.collection] = run(changes, at, records, shared, sent)

    def truncate(self, truncate: Truncate) -> list[Record]:
        """The same event for every partition of the table's topic, under one position, counted once."""
        records = self._begin_record()
        shared = self._transaction()
        topic = self._table_topic(truncate.table, shared)
        sent = self._sent.get(topic.collection, 0) + 1
        value = (
            topic.neither
            + shared.source(truncate.table.id, truncate.lsn)
            + PRESENT
            + string_bytes(shared.id)
            + long_bytes(truncate.total_order)
            + long_bytes(sent)
            + string_bytes("t")
            + times(self._clock())
        )
        records += [
            Record(topic.topic, partition, None, value)
            for partition in range(self._partitions(topic.topic))
        ]
        self._sent[topic.collection] = sent
        self._begun = True
        return records

    def message(self, message: Message) -> list[Record]:
        """A logical message of somebody's own, for ``<prefix>.message``; never counted, brings no BEGIN along."""
        topic = f"{self._prefix}.message"
        now = self._clock()
        shared = self._shared
        if shared is None or not message.transactional:
            shared = TransactionBytes(
                self._constants,
                TransactionId(0, message.lsn),
                now // 1000,
                "false",
                self._previous_commit,
                self._generation,
            )
        prefix = PRESENT + string_bytes(message.prefix)
        key = self._frame(f"{topic}-key", "message_key") + prefix
        value = (
            self._frame(f"{topic}-value", None)
            + string_bytes("m")
            + optional_long(now // 1_000_000)
            + shared.source(None, message.lsn)
            + prefix
            + PRESENT
            + bytes_bytes(message.content)
        )
        return [Record(topic, self._partition(topic, key), key, value)]

    def watermark(self, watermark: Watermark) -> Record:
        """For ``<prefix>.watermark``; stands outside transactions. Registers the schemas of its ``shape``."""
        topic = f"{self._prefix}.watermark"
        shape = None if watermark.shape is None else self._registered(watermark.shape).ids
        value = self._frame(f"{topic}-value", "watermark") + encode_watermark(watermark, shape)
        return Record(topic, 0, None, value)

    def heartbeat(self, topic: str) -> list[Record]:
        """Debezium's heartbeat, for a topic of its own; stands outside transactions."""
        key = self._frame(f"{topic}-key", "heartbeat_key") + string_bytes(self._prefix)
        now = long_bytes(self._clock() // 1_000_000)
        value = self._frame(f"{topic}-value", "heartbeat_value") + now
        self._partitions(topic)
        return [Record(topic, 0, key, value)]

    # --- schemas ---------------------------------------------------------------------------------------------

    def register(self, table: Table) -> None:
        """Register the schemas of the table's topic, unless they are."""
        self._registered(table)

    def _table_topic(self, table: Table, shared: TransactionBytes) -> _TableTopic:
        topic = self._registered(table)
        if topic.shared is not shared:
            topic.shared = shared
            topic.between = shared.between(table.id)
        return topic

    def _registered(self, table: Table) -> _TableTopic:
        topic = self._tables.get(table)
        if topic is None:
            topic = self._tables[table] = self._register(table)
        return topic

    def _register(self, table: Table) -> _TableTopic:
        topic = self.topic(table.id)
        owner = self._topic_of.setdefault(topic, table.id)
        if owner != table.id:
            raise Refused(
                f"tables {owner} and {table.id} would share the topic {topic}",
                "capture only one of them under this topic.prefix",
            )
        key_id = None
        if table.key:
            key_id = self._registry.register(f"{topic}-key", key_schema(topic, table, self._names))
        value_id = self._registry.register(
            f"{topic}-value", value_schema(topic, table, self._connector, self._names)
        )
        return _TableTopic(table, topic, str(table.id), SchemaIds(key_id, value_id))

    def _frame(self, subject: str, packaged: str | None) -> bytes:
        known = self._frames.get(subject)
        if known is None:
            text = (
                schema_text(packaged_schema(packaged))
                if packaged
                else message_schema(self._connector)
            )
            known = self._frames[subject] = frame(self._registry.register(subject, text))
        return known
