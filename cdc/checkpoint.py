"""How far each side has come: what is stored so that a restart loses and repeats nothing."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from cdc.fence import Signal
from cdc.position import Position, TopicPartition
from cdc.table import KeyRange, TableId

TableState = Literal["backfilling", "live", "stale", "parked"]
"""In a replica: still being copied; equal to the source at the checkpoint; known not to be; with parked keys."""


class Identity(NamedTuple):
    """Which history a source's log positions belong to."""

    system_id: str
    timeline: int
    database: str


@dataclass(frozen=True, slots=True)
class BackfillProgress:
    """How far the first copy of one table has come.

    ``remaining`` are the stretches of its keys whose rows are not all on the topics, each read by a chain of its own.
    ``key`` is what their bounds are encoded by: under another key they mean nothing.
    ``opened`` is the LSN of the fence that opened it, 0 while it waits. ``stale``: its changes are not sent, because
    the registry does not take its row schema, until a copy is asked for.
    """

    state: Literal["waiting", "running", "done", "stale"]
    remaining: tuple[KeyRange, ...] = (KeyRange(),)
    opened: int = 0
    rows: int = 0
    signal: str = ""
    key: str = ""


class Pin(NamedTuple):
    """A topic as it was when it came into use: its keys stay in their partitions, and it is not made again unnoticed."""

    partitions: int
    topic_id: str


@dataclass(frozen=True, slots=True)
class SourceCheckpoint:
    """What capture knows to be on the topics, written after the acknowledgements and before the slot is confirmed.

    ``lsn`` is where the stream goes on: every record of every transaction that ends at or below it is durable.
    ``state`` is ``creating`` between the intent to make a slot and the slot's first use: a slot found then is ours
    and holds nothing yet. It is ``copied`` once a capture that was only to copy has done so: there is no slot any more.
    ``partitions`` pins each topic's partition count, so that a key never changes its partition unnoticed.
    ``unseen`` holds 64-bit xids, as intervals with both ends, that were decoded while the source did not show them as committed yet.
    ``floor`` is the lowest xid that a read may find running: the source's next xid when the slot was made or the
    publication grew. Older transactions may hold rows that the slot never delivers.
    ``signals`` are those taken from the log and not finished.
    ``admitted`` are the LSNs of fences behind ``lsn`` whose rows are all on the topics: no watermark calls a fence valid
    before it stands here.
    ``owner`` is the mark of the process that claimed it last.
    ``members`` are the marks of the tables' memberships in the publication (``Source.memberships``).
    ``skipped`` says which operations are not sent, as (LSN, operations): transactions that commit at or above the LSN
    go by it. A change takes effect where the log was when it was met, so a replay sends what was sent before.
    ``memos`` are what the source wants to be told of each table's shape when the stream goes on from ``lsn``.
    ``topic_ids`` tells each pinned topic from one made again under its name.
    ``written`` is the highest LSN of a commit (or one below that of a fence: its record ends there) of which anything
    was handed to the producer by then, and
    ``marks`` are offsets of the topics of marks and watermarks: whatever stands below them was handed over by then.
    """

    identity: Identity
    state: Literal["creating", "streaming", "copied"]
    generation: int = 1
    lsn: int = 0
    last_commit_lsn: int = 0
    partitions: Mapping[str, int] = field(default_factory=dict)
    backfills: Mapping[TableId, BackfillProgress] = field(default_factory=dict)
    signals: tuple[Signal, ...] = ()
    unseen: tuple[tuple[int, int], ...] = ()
    floor: int = 0
    admitted: tuple[int, ...] = ()
    owner: str = ""
    skipped: tuple[tuple[int, str], ...] = ()
    topic_ids: Mapping[str, str] = field(default_factory=dict)
    written: int = 0
    marks: Mapping[str, int] = field(default_factory=dict)
    members: Mapping[TableId, str] = field(default_factory=dict)
    memos: Mapping[TableId, str] = field(default_factory=dict)

    def skips(self, commit_lsn: int) -> str:
        """The operations that are not sent of a transaction that commits there (``skipped.operations``)."""
        return max((entry for entry in self.skipped if entry[0] <= commit_lsn), default=(0, ""))[1]

    def to_json(self) -> dict[str, Any]:
        """JSON's shape, as it is stored."""
        return {
            "version": 1,
            "identity": list(self.identity),
            "state": self.state,
            "generation": self.generation,
            "lsn": self.lsn,
            "last_commit_lsn": self.last_commit_lsn,
            "partitions": dict(self.partitions),
            "backfills": [
                {
                    "table": list(table),
                    "state": progress.state,
                    "remaining": [
                        [_text(keys.after), _text(keys.upto)] for keys in progress.remaining
                    ],
                    "opened": progress.opened,
                    "rows": progress.rows,
                    "signal": progress.signal,
                    "key": progress.key,
                }
                for table, progress in self.backfills.items()
            ],
            "signals": [signal.to_json() for signal in self.signals],
            "unseen": [list(interval) for interval in self.unseen],
            "floor": self.floor,
            "admitted": list(self.admitted),
            "owner": self.owner,
            "skipped": [list(entry) for entry in self.skipped],
            "topic_ids": dict(self.topic_ids),
            "written": self.written,
            "marks": dict(self.marks),
            "members": [[*table, mark] for table, mark in self.members.items()],
            "memos": [[*table, memo] for table, memo in self.memos.items()],
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> SourceCheckpoint:
        """Read JSON's shape; ValueError for a version that this one does not know, or a torn record."""
        if raw.get("version") != 1:
            raise ValueError(f"a source checkpoint of version {raw.get('version')!r}")
        try:
            return cls(
                identity=Identity(*raw["identity"]),
                state=raw["state"],
                generation=raw["generation"],
                lsn=raw["lsn"],
                last_commit_lsn=raw["last_commit_lsn"],
                partitions=raw["partitions"],
                backfills={
                    TableId(*entry["table"]): BackfillProgress(
                        entry["state"],
                        _remaining(entry),
                        entry["opened"],
                        entry["rows"],
                        entry["signal"],
                        entry.get("key", ""),
                    )
                    for entry in raw["backfills"]
                },
                signals=tuple(Signal.from_json(signal) for signal in raw["signals"]),
                unseen=tuple((first, last) for first, last in raw["unseen"]),
                floor=raw["floor"],
                admitted=tuple(raw.get("admitted", ())),
                owner=raw.get("owner", ""),
                skipped=tuple((since, operations) for since, operations in raw.get("skipped", ())),
                topic_ids=raw.get("topic_ids", {}),
                written=raw.get("written", 0),
                marks=raw.get("marks", {}),
                members={TableId(*table): mark for *table, mark in raw.get("members", ())},
                memos={TableId(schema, name): memo for schema, name, memo in raw.get("memos", ())},
            )
        except (KeyError, TypeError) as error:
            raise ValueError("a torn source checkpoint") from error


class Resume(NamedTuple):
    """Where reading a partition goes on. ``topic_id`` tells a topic from one re-created under its name.

    Every record below ``offset`` has taken effect, or never will; ``leader_epoch`` is -1 when it is not known.
    """

    offset: int
    topic_id: str = ""
    leader_epoch: int = -1


class PartitionState(NamedTuple):
    """Where one partition stands in a replica that applies partitions apart from each other.

    ``resume`` is None for one that it holds nothing of. A position at or below ``position`` is a repeat. Events that
    committed below ``since`` (LSN) are left to the backfill that opened there. ``withheld`` has keys whose row is not
    there because the log did not carry it whole, each with the offset of the event that said so.
    """

    resume: Resume | None = None
    position: Position | None = None
    cluster_id: str = ""
    since: int = 0
    withheld: Mapping[bytes, int] = {}


class PartitionProgress(NamedTuple):
    """What applying brought one partition to. ``withheld`` and ``settled`` hold what changed since the last one."""

    resume: Resume
    position: Position | None
    cluster_id: str = ""
    since: int = 0
    withheld: Mapping[bytes, int] = {}
    settled: frozenset[bytes] = frozenset()


class ParkedKey(NamedTuple):
    """A key whose changes are kept out of the replica from one record on, because that one could not be applied.

    ``key`` is an Avro key record; None means all keys of the partition, because the record's own cannot be known.
    ``offset`` is where that record stands, ``position`` its place in the source's history (its transaction's, with
    number 0, where it could not be read). ``kind`` and ``message`` say why, and hold no values.
    """

    collection: str
    key: bytes | None
    topic: str
    partition: int
    offset: int
    position: Position
    kind: str
    message: str

    @property
    def place(self) -> TopicPartition:
        """The partition that its changes stand in."""
        return TopicPartition(self.topic, self.partition)


@dataclass(frozen=True, slots=True)
class SinkCheckpoint:
    """What a replica holds of one source, kept in the replica itself and changed with its rows.

    The replica equals the source at ``position`` (None: it has taken nothing yet).
    ``offsets`` may hold only what changed when it is saved; a claim returns all.
    ``since`` says for a collection that joined late from which LSN on its events count (its backfill's opening).
    A replica that applies partitions apart from each other has no ``position``: ``progress`` is what is saved of each
    partition, and ``withheld`` the lowest offset at which it waits for the whole row of a key that it left out.
    ``parked`` are keys kept out of it: newly parked ones when it is saved, all when it is claimed; ``released`` are
    those that are parked no more.
    """

    source: str
    position: Position | None
    cluster_id: str = ""
    offsets: Mapping[TopicPartition, Resume] = field(default_factory=dict)
    tables: Mapping[str, TableState] = field(default_factory=dict)
    since: Mapping[str, int] = field(default_factory=dict)
    progress: Mapping[TopicPartition, PartitionProgress] = field(default_factory=dict)
    withheld: Mapping[TopicPartition, int] = field(default_factory=dict)
    parked: tuple[ParkedKey, ...] = ()
    released: tuple[ParkedKey, ...] = ()


def _remaining(entry: Mapping[str, Any]) -> tuple[KeyRange, ...]:
    """Until there were several chains, the key was stored behind which the only one went on."""
    if "remaining" not in entry:
        return (KeyRange(_bytes(entry["after"])),)
    return tuple(KeyRange(_bytes(after), _bytes(upto)) for after, upto in entry["remaining"])


def _text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
