"""The seams: what a source, a store, a reader for verification, a registry and the topics must do.

Whoever writes a connector reads this file and `cdc.connector`, and nothing else of `cdc` but the words of floor 0.
Hot seams carry batches. Loops are plain and synchronous. Each docstring says what holds on return.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple, Protocol

from cdc.checkpoint import Identity, SinkCheckpoint, SourceCheckpoint, TableState
from cdc.errors import Rejected
from cdc.event import Change, Delivered, Item, Message, Record, Rows, TransactionMark, Truncate
from cdc.fence import Fence, Snapshot, Watermark
from cdc.position import TopicPartition
from cdc.table import Table, TableId

# --- source side ---------------------------------------------------------------------------------------------


class Slot(NamedTuple):
    """What the source says of our replication slot. ``confirmed`` is where it would go on at the earliest."""

    confirmed: int
    active: bool
    lost: str
    """Why it can no longer be used; empty when it can."""


class Horizon(NamedTuple):
    """What every reader of ours can see by now, and where in the log that is known.

    A transaction is *settled* when ``snapshot`` sees it and its xid is below ``readers_xmin``, the lowest xmin that
    any open reading transaction of ours holds: then no fence that stands at or behind ``lsn`` in the log (taken after
    both) carries a snapshot that does not see it.
    """

    snapshot: Snapshot
    readers_xmin: int
    lsn: int

    def settled(self, xid: int) -> bool:
        """Whether no fence to come can carry a snapshot without this transaction (``xid`` in 64 bits)."""
        return xid < self.readers_xmin and self.snapshot.sees(xid)


class Source(Protocol):
    """One source database: its log, read once and in order, and what is asked of it beside the log.

    Errors: Unreachable when the server is away (then ``close`` and open anew), Refused when going on would lose
    changes, ConfigError for what a person has to set right. Not thread-safe.
    """

    def identify(self) -> Identity:
        """Which history the server's log positions belong to, now."""
        ...

    def switch_point(self, timeline: int) -> int:
        """The LSN at which the history left ``timeline`` (an older one than the server's)."""
        ...

    def prepare(self) -> bool:
        """Check settings, grants and tables, and make or extend the publication as configured.

        True when the publication was made or extended: then a table's first chunk has to wait until every
        transaction that was running meanwhile has ended (``snapshot``'s xmin has passed the xmax taken after this).
        Refuses (ConfigError) what could not be captured whole: wal_level, a table that is not there, one without a
        key, an identity that does not carry the key.
        """
        ...

    def tables(self) -> Sequence[Table]:
        """The row schemas of the tables to capture, as the catalog has them now: a hint (the log decides)."""
        ...

    def slot(self) -> Slot | None:
        """Our slot, None when there is none."""
        ...

    def create_slot(self) -> int:
        """Make the slot; every transaction that commits at or after the returned LSN will be delivered."""
        ...

    def drop_slot(self) -> None:
        """Drop the slot if it is there."""
        ...

    def start(self, after: int) -> None:
        """Begin to stream: every transaction that ends after ``after``, from its BEGIN on."""
        ...

    def read(self, timeout: float) -> Sequence[Item]:
        """What arrived, in log order; empty after ``timeout`` seconds of silence. May split transactions.

        Delivered items repeat only after a new ``start``.
        """
        ...

    def confirm(self, lsn: int) -> None:
        """Let the source forget what ends at or below ``lsn``. Never moves back; sent at the latest in 10 s."""
        ...

    def keep_alive(self) -> None:
        """Answer the server if an answer is due. To be called from every wait, at least once a second."""
        ...

    def snapshot(self) -> Snapshot:
        """The transactions that are visible now, by a connection beside the stream."""
        ...

    def horizon(self) -> Horizon:
        """The snapshot as above, with the lowest xmin of our own reading transactions, and an LSN taken after both.

        Ours are those whose application_name begins with ``cdc/``; none open: ``readers_xmin`` is ``snapshot.xmax``.
        """
        ...

    def waiting_for(self, xid: int) -> str:
        """Who keeps ``snapshot``'s xmin from passing ``xid``: pid, age and application of the oldest; empty when none."""
        ...

    def emit(self, prefix: str, content: bytes) -> int:
        """Put a message into the log outside any transaction, flushed; its LSN."""
        ...

    def close(self) -> None:
        """End the stream and every connection. Safe to repeat."""
        ...


class FencedReader(Protocol):
    """Reads tables of a source under snapshots with fences behind them. Lives in a process of its own.

    Each read is a context manager: the rows are there on entry, and the fence is emitted when the block ends without
    an error, still inside the reading transaction. So rows are handed over before their fence can be met.
    The table is locked in ACCESS SHARE mode from before the snapshot until the fence is in the log: no rewrite,
    TRUNCATE or ALTER stands between them.
    """

    def read_range(
        self, table: TableId, after: bytes | None, limit: int, fence: str
    ) -> AbstractContextManager[Rows]:
        """The next ``limit`` rows behind the key ``after`` (None: from the first), in key order."""
        ...

    def read_keys(
        self, table: TableId, keys: Sequence[bytes], fence: str
    ) -> AbstractContextManager[Rows]:
        """The rows with these keys, as far as they exist."""
        ...

    def close(self) -> None:
        """Safe to repeat."""
        ...


# --- topics and schemas --------------------------------------------------------------------------------------


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

    def watermark(self, watermark: Watermark) -> Record:
        """For ``<prefix>.watermark``; stands outside transactions."""
        ...


class EventDecoder(Protocol):
    """Turns records back into what they say: ours, and Debezium's."""

    def data(self, records: Sequence[Record]) -> list[Delivered | Rejected | None]:
        """Aligned with ``records``: the event, None for a tombstone, or why it can never be read (not raised)."""
        ...

    def transaction(self, record: Record) -> TransactionMark:
        """A record of the transaction topic. Rejected when it is none."""
        ...

    def watermark(self, record: Record) -> Watermark:
        """A record of the watermark topic. Rejected when it is none."""
        ...

    def values(self, table: Table, row: bytes) -> Mapping[str, object]:
        """A row's values by column name, for reports and for stores that do not take bytes."""
        ...

    def key_values(self, table: Table, key: bytes) -> Mapping[str, object]:
        """A key record's values by column name."""
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


class CheckpointTopic(Protocol):
    """A source's checkpoints in a compacted topic, by connector name."""

    def claim(self, connector: str) -> SourceCheckpoint | None:
        """Fence every earlier writer of this connector for good, then return what it wrote last."""
        ...

    def save(self, connector: str, checkpoint: SourceCheckpoint | None) -> None:
        """Durable on return (None forgets). Fenced when a newer owner has claimed; Unreachable when unknown."""
        ...

    def close(self) -> None:
        """Safe to repeat."""
        ...


# --- replica side --------------------------------------------------------------------------------------------


class StoreTransaction(Protocol):
    """Rows and checkpoint that appear together or not at all."""

    def apply(self, events: Sequence[Delivered]) -> None:
        """Apply in this order, which is the source's. May hold parts of transactions; may be called again.

        Raises Rejected for what can never be applied; then the transaction can only be rolled back.
        """
        ...

    def save(self, checkpoint: SinkCheckpoint) -> None:
        """Store the checkpoint with the rows. ``offsets``, ``tables`` and ``since`` hold what changed."""
        ...

    def commit(self) -> None:
        """Durable on return. Fenced when a newer owner has claimed; then nothing took effect.

        Unreachable when the outcome is unknown: claim again and go on from what the checkpoint says.
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

        Returns what the replica holds, an empty checkpoint at first.
        """
        ...

    def begin(self) -> StoreTransaction:
        """Begin a transaction under the claim; one at a time."""
        ...

    def missing_rows(self) -> Mapping[str, int]:
        """Per collection, how many updates and deletes since the claim met no row in a live table."""
        ...

    def close(self) -> None:
        """Safe to repeat."""
        ...


# --- verification --------------------------------------------------------------------------------------------


class KeyRange(NamedTuple):
    """Rows with ``after < key <= upto`` in key order (Avro key records); None leaves that side open."""

    after: bytes | None
    upto: bytes | None


class Bucket(NamedTuple):
    """The digest of one run of rows: two independent sums of row hashes, and the count."""

    upto: bytes | None
    row_count: int
    sums: tuple[int, int]


class Hashes(NamedTuple):
    """Per-row digests, aligned lists: Avro key records in key order, and the rows' hashes."""

    keys: list[bytes]
    hashes: list[tuple[int, int]]


class ReplicaState(NamedTuple):
    """What a replica says of itself inside the snapshot of a read."""

    checkpoint: SinkCheckpoint
    """With every offset, and the state of every table."""


class RangeReader(Protocol):
    """One side of a comparison, inside one read transaction on one snapshot.

    Both sides order keys in the same way (bytewise for text) and hash the same columns to the same numbers.
    """

    def digest(self, key_range: KeyRange, bucket_rows: int, row_limit: int) -> Sequence[Bucket]:
        """Digests of runs of ``bucket_rows`` rows from the range's start on: their upper ends are chosen here.

        Stops after about ``row_limit`` rows; the last bucket ends at the range's own end if that was reached.
        """
        ...

    def digest_at(self, key_range: KeyRange, ends: Sequence[bytes | None]) -> Sequence[Bucket]:
        """Digests of the runs with these upper ends, as the other side chose them."""
        ...

    def hashes(self, key_range: KeyRange) -> Hashes:
        """Every row's key and hash."""
        ...

    def rows(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """The rows (Avro records by ``table``) with these keys, as far as they exist."""
        ...

    def texts(self, keys: Sequence[bytes]) -> Mapping[bytes, Mapping[str, str | None]]:
        """The compared columns of the rows with these keys, each in the text form that tells every value apart."""
        ...


class SourceSide(Protocol):
    """The source's door for verification."""

    def read(
        self, table: Table, fence: str, low: int
    ) -> AbstractContextManager[tuple[RangeReader, Snapshot]]:
        """A locked, fenced read: the fence is emitted when the block ends without an error."""
        ...

    def emit(self, prefix: str, content: bytes) -> int:
        """A message into the source's log, flushed; its LSN."""
        ...

    def mark(self, fence: Fence) -> int:
        """Emit a fence that closes no read; its LSN."""
        ...

    def snapshot(self) -> Snapshot:
        """The transactions that are visible now."""
        ...

    def tables(self) -> Sequence[Table]:
        """The captured tables."""
        ...

    def estimate(self, table: Table) -> int:
        """About how many rows it has, for progress; 0 when it is not known. Costs nothing."""
        ...

    def close(self) -> None:
        """Safe to repeat."""
        ...


class ReplicaSide(Protocol):
    """The replica's door for verification."""

    def state(self, sink: str, source: str) -> ReplicaState:
        """What the replica holds now."""
        ...

    def read(
        self, table: Table, sink: str, source: str
    ) -> AbstractContextManager[tuple[RangeReader, ReplicaState]]:
        """A read transaction on one snapshot, which the state belongs to.

        Raises Failed when the table is not there or lacks a column.
        """
        ...

    def close(self) -> None:
        """Safe to repeat."""
        ...


__all__ = [
    "Bucket",
    "CheckpointTopic",
    "EventDecoder",
    "EventEncoder",
    "FencedReader",
    "Hashes",
    "Horizon",
    "KeyRange",
    "RangeReader",
    "ReplicaSide",
    "ReplicaState",
    "SchemaRegistry",
    "Slot",
    "Source",
    "SourceSide",
    "Store",
    "StoreTransaction",
    "TableState",
    "TopicInfo",
    "TopicReader",
    "TopicWriter",
]
