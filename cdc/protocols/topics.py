"""What stands between the two sides must do: schemas, envelopes, topics, and a source's checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from cdc.checkpoint import SourceCheckpoint
from cdc.errors import Rejected
from cdc.event import Change, DeadLetter, Delivered, Message, Record, TransactionMark, Truncate
from cdc.fence import Watermark
from cdc.position import TopicPartition
from cdc.table import Table, TableId


class SchemaRegistry(Protocol):
    """Schemas by id. Errors: Unreachable (try again), Refused for an incompatible schema."""

    def register(self, subject: str, schema: str) -> int:
        """The id of this Avro schema (JSON text) under the subject; registered if it was not."""
        ...

    def schema(self, schema_id: int) -> str:
        """The Avro schema (JSON text) with this id; Rejected when the registry does not know it."""
        ...


class EventEncoder(Protocol):
    """Turns one transaction after another into records: envelope, tombstones, BEGIN and END with counts.

    The partition of each record is chosen here, by the function that the encoder was made with.
    """

    transaction_topic: str

    def topic(self, table: TableId) -> str:
        """The name of the table's topic."""
        ...

    def begin(
        self,
        xid: int,
        commit_lsn: int,
        commit_us: int,
        snapshot: Literal["false", "incremental"] = "false",
    ) -> None:
        """The events that follow belong to this transaction (for a fence's rows: xid 0, the LSN before H)."""
        ...

    def register(self, table: Table) -> None:
        """Register its schemas, unless they are: Incompatible where its subjects' rule forbids them, Unreachable."""
        ...

    def changes(self, changes: Sequence[Change]) -> list[Record]:
        """Records in order; a delete is followed by its tombstone. The first of a transaction brings BEGIN along.

        Meeting a new ``Table`` registers its schemas: Unreachable, or Refused for an incompatible one.
        """
        ...

    def truncate(self, truncate: Truncate) -> list[Record]:
        """The same event for every partition of the table's topic, under one position, counted once."""
        ...

    def message(self, message: Message) -> list[Record]:
        """A logical message of somebody's own, for ``<prefix>.message``; never counted."""
        ...

    def end(self) -> list[Record]:
        """END with the counts; nothing at all for a transaction that sent nothing."""
        ...

    def withdraw(self) -> list[Record]:
        """END that counts nothing, in place of `end`: whatever was sent of the transaction before takes no effect.

        Unless it took effect already.
        """
        ...

    def watermark(self, watermark: Watermark) -> Record:
        """For ``<prefix>.watermark``; stands outside transactions."""
        ...

    def heartbeat(self, topic: str) -> list[Record]:
        """Debezium's heartbeat, for a topic of its own."""
        ...


class RowDecoder(Protocol):
    """Reads rows and keys for whoever does not take their bytes."""

    def values(self, table: Table, row: bytes) -> Mapping[str, object]:
        """A row's values by column name, for reports and for stores that do not take bytes."""
        ...

    def key_values(self, table: Table, key: bytes) -> Mapping[str, object]:
        """A key record's values by column name."""
        ...


class EventDecoder(RowDecoder, Protocol):
    """Turns records back into what they say: ours, and Debezium's."""

    def data(self, records: Sequence[Record]) -> list[Delivered | Rejected | None]:
        """Aligned with ``records``: the event, None for a tombstone, or why it can never be read (not raised)."""
        ...

    def key(self, record: Record) -> bytes | None:
        """The key of a data record as `Delivered` has it; None when it cannot be known."""
        ...

    def transaction(self, record: Record) -> TransactionMark:
        """A record of the transaction topic. Rejected when it is none."""
        ...

    def watermark(self, record: Record) -> Watermark:
        """A record of the watermark topic. Rejected when it is none."""
        ...


class TopicInfo(NamedTuple):
    """``topic_id`` changes when a topic is deleted and made again."""

    topic_id: str
    partitions: int
    cleanup_policy: str


class TopicWriter(Protocol):
    """The one producer of a source's topics: in order, for ever or not at all.

    After any delivery error nothing more is sent and every call raises Unreachable (or Refused, for a record that
    the broker will never take): the owner starts anew from its checkpoint.
    """

    def write(self, records: Sequence[Record]) -> None:
        """Send in order. Blocks while the byte budget is used up, calling ``keep_alive`` of the source meanwhile."""
        ...

    def mark(self, mark: object) -> None:
        """Remember ``mark`` as standing behind all that was written so far."""
        ...

    def durable(self) -> Sequence[object]:
        """The marks, in order, each returned once, before which every record is acknowledged by acks=all."""
        ...

    def end_offset(self, partition: TopicPartition) -> int:
        """One past the last acknowledged record of the partition, by this or any earlier producer."""
        ...

    def acknowledged(self, partition: TopicPartition) -> int | None:
        """The same as far as this producer knows it without asking; None when none of its records is acknowledged."""
        ...

    def flush(self, timeout: float) -> bool:
        """Wait for all acknowledgements; False when the time was not enough."""
        ...

    def close(self) -> None:
        """Drop what is not acknowledged. Safe to repeat."""
        ...


class TopicReader(Protocol):
    """Reads partitions that the caller chooses, from offsets that the caller keeps."""

    def assign(self, at: Mapping[TopicPartition, int]) -> None:
        """Read these as well, from these offsets on. One already assigned moves there."""
        ...

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Deliver nothing of these until ``resume``; what was delivered already is not taken back."""
        ...

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Deliver these again, gapless."""
        ...

    def read(self, timeout: float, limit: int = 10_000) -> Sequence[Record]:
        """What arrived; in order within a partition. Refused when an offset is no longer there."""
        ...

    def position(self, partition: TopicPartition) -> int:
        """Where reading a partition goes on: what stands below was delivered, or is no record. 0 if it is not assigned.

        The last offsets of a partition need not hold records: marks of Kafka transactions have offsets too.
        """
        ...

    def bounds(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, tuple[int, int]]:
        """First offset still there, and end offset, of each, asked of the brokers."""
        ...

    def topics(self) -> Mapping[str, TopicInfo]:
        """All topics of the cluster that are not internal."""
        ...

    def cluster_id(self) -> str:
        """The cluster's identity."""
        ...

    def close(self) -> None:
        """Safe to repeat."""
        ...


class DeadLetterTopic(Protocol):
    """Takes what a sink could not apply."""

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Acknowledged by acks=all on return. Unreachable when that is not known: write them again then."""
        ...

    def close(self) -> None:
        """Safe to repeat."""
        ...


class CheckpointTopic(Protocol):
    """A source's checkpoints in a compacted topic, by connector name.

    ``atomic``: a save takes effect together with every record that was written before it, or none of them does. So it
    has to speak of all of them, and its owner writes nothing while it is under way.
    """

    @property
    def atomic(self) -> bool: ...

    def claim(self, connector: str, held: str = "") -> SourceCheckpoint | None:
        """Fence every earlier writer of this connector for good, then return what it wrote last.

        ``held`` is the mark that this owner left in the checkpoint before, if it did: Fenced when another one stands
        there now, because an owner that was replaced does not take it back.
        """
        ...

    def save(self, connector: str, checkpoint: SourceCheckpoint | None) -> None:
        """Durable on return (None forgets). Fenced when a newer owner has claimed; Unreachable when unknown."""
        ...

    def close(self) -> None:
        """Safe to repeat."""
        ...


__all__ = [
    "CheckpointTopic",
    "DeadLetterTopic",
    "EventDecoder",
    "EventEncoder",
    "RowDecoder",
    "SchemaRegistry",
    "TopicInfo",
    "TopicReader",
    "TopicWriter",
]
