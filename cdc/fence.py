"""Fences: marks in the source's log that tie a read of the source to a place in the log.

One REPEATABLE READ transaction takes a snapshot S, reads a range, and before it ends emits a fence that carries S.
The fence arrives in the log at LSN H. All that S sees has its commit record before H, so the log below H holds S
plus only transactions that S does not see; these are known by xid. README.md, "The fenced read".

This file holds the words: snapshot, fence, signal, and how they stand in the log's messages.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from cdc.table import Table, TableId

OUR_MESSAGES = "cdc."
"""What the prefixes of our own logical messages begin with: they are nobody else's business."""

FENCE_PREFIX = "cdc.fence"
SIGNAL_PREFIX = "cdc.signal"

FenceKind = Literal["backfill", "repair", "verify", "mark"]
"""Whose read it closes. A ``mark`` closes none: it only ties a moment to a place in the log."""


class Snapshot(NamedTuple):
    """A set of visible transactions: PostgreSQL's ``pg_current_snapshot()``, with 64-bit xids.

    ``xmin`` is the lowest xid still running, ``xmax`` one past the highest assigned, ``running`` those between
    that had not ended.
    """

    xmin: int
    xmax: int
    running: frozenset[int]

    def sees(self, xid: int) -> bool:
        """Whether the transaction, if it committed, is visible in this snapshot (``xid`` in 64 bits)."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.running)

    def lift(self, xid32: int) -> int:
        """The 64-bit xid nearest to this snapshot that has these lower 32 bits."""
        candidate = (self.xmax & ~0xFFFFFFFF) | xid32
        if candidate > self.xmax + 0x7FFFFFFF:
            return candidate - (1 << 32)
        if candidate < self.xmax - 0x80000000:
            return candidate + (1 << 32)
        return candidate

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, sorted(self.running)))}"

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Read PostgreSQL's text form ``xmin:xmax:xip,xip``; ValueError when it is not one."""
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(int(x) for x in running.split(",") if x))


@dataclass(frozen=True, slots=True)
class Fence:
    """A fence as it stands in the log.

    ``source`` is the topic prefix of the connector that it is meant for: others ignore it.
    ``low`` is the LSN of an earlier fence of the same reader: whoever judges this fence or computes the keys that
    S does not see has followed the log from there on. 0: from the reader's registration with capture.
    """

    id: str
    kind: FenceKind
    source: str
    table: TableId | None
    snapshot: Snapshot
    low: int = 0

    def to_message(self) -> bytes:
        """The content of the logical message that emits it."""
        return json.dumps(
            {
                "id": self.id,
                "kind": self.kind,
                "source": self.source,
                "table": list(self.table) if self.table else None,
                "snapshot": str(self.snapshot),
                "low": self.low,
            }
        ).encode()

    @classmethod
    def from_message(cls, content: bytes) -> Fence:
        """Read a message's content; ValueError when it is not a fence of ours."""
        try:
            raw = json.loads(content)
            return cls(
                id=raw["id"],
                kind=raw["kind"],
                source=raw["source"],
                table=TableId(*raw["table"]) if raw["table"] else None,
                snapshot=Snapshot.parse(raw["snapshot"]),
                low=raw["low"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a fence: {content[:200]!r}") from error


@dataclass(frozen=True, slots=True)
class Signal:
    """A request to capture that travels in the source's own log, so that it is ordered and survives restarts.

    ``backfill``: read the table anew from its first key. ``repair``: read these keys anew (``keys`` are Avro key
    records, unframed) and send what is there: the row, or its deletion. ``add``: capture this table from here on, and
    copy it; its publication was changed before.
    """

    id: str
    type: Literal["backfill", "repair", "add"]
    source: str
    table: TableId
    keys: tuple[bytes, ...] = field(default=())

    def to_json(self) -> dict[str, object]:
        """JSON's shape, as in messages and checkpoints."""
        return {
            "id": self.id,
            "type": self.type,
            "source": self.source,
            "table": list(self.table),
            "keys": [base64.b64encode(key).decode() for key in self.keys],
        }

    @classmethod
    def from_json(cls, raw: dict[str, object]) -> Signal:
        """Read JSON's shape; ValueError when it is not a signal of ours."""
        match raw:
            case {
                "id": str(id_),
                "type": "backfill" | "repair" | "add" as type_,
                "source": str(source),
                "table": [str(schema), str(name)],
                "keys": list(keys),
            }:
                return cls(
                    id_, type_, source, TableId(schema, name), tuple(map(base64.b64decode, keys))
                )
        raise ValueError(f"not a signal: {raw!r}")

    def to_message(self) -> bytes:
        """The content of the logical message that sends it."""
        return json.dumps(self.to_json()).encode()

    @classmethod
    def from_message(cls, content: bytes) -> Signal:
        """Read a message's content; ValueError when it is not a signal of ours."""
        raw = json.loads(content)
        if not isinstance(raw, dict):
            raise ValueError(f"not a signal: {content[:200]!r}")
        return cls.from_json(raw)


@dataclass(frozen=True, slots=True)
class Watermark:
    """What capture publishes for a fence on ``<prefix>.watermark``, after every record before it is acknowledged.

    ``lsn`` is H. A consumer that has consumed each partition up to ``ends`` has passed the fence.
    ``ends`` lists the partitions of the fence's table and of the transaction topic.
    ``void`` says why the fence ties nothing (its read must be made again); empty for a valid one.
    ``phase`` is for backfill fences: ``open`` before the first chunk, ``chunk``, and ``final``, from which on the
    table is live. ``rows`` counts the rows that entered the log at it. A mark may say ``stale``: from here on the log
    does not hold all changes of the table.
    ``shape`` is the table's row schema at a ``final`` fence, so that a table is known to sinks that has no rows, and at
    a mark behind a commit that changed it.
    """

    fence: str
    kind: FenceKind
    table: TableId | None
    generation: int
    lsn: int
    ends: dict[tuple[str, int], int]
    void: str = ""
    phase: Literal["", "open", "chunk", "final", "stale"] = ""
    rows: int = 0
    shape: Table | None = None
