"""A Redis replica: hashes with their position beside their values, every write guarded by it (`scripts`).

The server acknowledges writes that a crash may take back. Rows and the partitions' states are lost together or not at
all, because they are in one log; the sink's own memory is not trusted over an interruption: it claims anew, reads
where the server stands, and what was lost comes from the topics again.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast

import redis

from cdc.checkpoint import PartitionState, Resume, TableState
from cdc.config import ConnectorConfig
from cdc.errors import Failed, Fenced
from cdc.event import Delivered
from cdc.position import Position, TopicPartition
from cdc.protocols import PartitionStore, RowDecoder, StoreTransaction
from connectors.redis import keys, scripts
from connectors.redis.client import connect, translated
from connectors.redis.settings import RedisSettings
from connectors.redis.transaction import RedisTransaction

_LOOK_SECONDS = 1.0  # between two looks at the tables' states, which other tasks change too
_SCAN = 1000


def open_partition_store(config: ConnectorConfig, rows: RowDecoder) -> PartitionStore:
    """The replica of a checked configuration. Connects when partitions are claimed."""
    return RedisStore(RedisSettings.of(config), rows)


class RedisStore:
    """One task's view of the replica. Not thread-safe."""

    atomic = False

    def __init__(self, settings: RedisSettings, rows: RowDecoder) -> None:
        self.settings = settings
        self.rows = rows
        self._client: redis.Redis | None = None
        self._keys = keys.SinkKeys("", "")
        self._states: dict[str, TableState] = {}
        self._look_due = 0.0
        self.tokens: dict[TopicPartition, bytes] = {}
        self.missing: Counter[str] = Counter()

    def claim(
        self, sink: str, source: str, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, PartitionState]:
        """Become the only writer of these as well."""
        if self._client is None:
            self._client = connect(self.settings)
        self._keys = keys.SinkKeys(sink, source)
        claim = self._client.register_script(scripts.CLAIM)
        found: dict[TopicPartition, PartitionState] = {}
        with translated("claiming partitions"):
            for at in partitions:
                token = uuid.uuid4().hex.encode()
                places = (self._keys.state(at), self._keys.withheld(at), self._keys.partitions)
                state, withheld = claim(places, (token, keys.name_of(at)))
                self.tokens[at] = token
                found[at] = _state(_pairs(state), _pairs(withheld))
        return found

    def release(self, partitions: Sequence[TopicPartition]) -> None:
        """Give these up: their next owner's token is another one."""
        for at in partitions:
            self.tokens.pop(at, None)

    def begin(self) -> StoreTransaction:
        """Collect events until `commit`, which writes them."""
        client = self._connected()
        if (now := time.monotonic()) >= self._look_due:
            self._look_due = now + _LOOK_SECONDS
            with translated("reading the tables' states"):
                found = cast("dict[bytes, bytes]", client.hgetall(self._keys.tables))
            self._states = {
                name.decode(): cast("TableState", state.decode()) for name, state in found.items()
            }
        live = frozenset(n for n, state in self._states.items() if state in ("live", "parked"))
        return RedisTransaction(self, client, self._keys, live)

    def truncate(self, event: Delivered, partitions: int) -> bool:  # noqa: ARG002 - nobody needs to wait
        """Let no row below this position count, then remove them: no other partition has to come to it first.

        An event of another one that stands before it, and comes later, finds the position here and does nothing.
        """
        if not self.settings.truncates:
            return True
        client = self._connected()
        table = keys.table_key(self.settings.prefix, event.collection)
        floor = keys.truncated_key(table)
        at = TopicPartition(event.topic, event.partition)
        with translated("truncating a table"):
            answer = client.register_script(scripts.TRUNCATE)(
                (floor, self._keys.state(at)),
                (self.tokens.get(at, b""), keys.guard(event.position, event.offset)),
            )
            if answer == scripts.FENCED:
                raise self.fenced()
            sweep = client.register_script(scripts.SWEEP)
            cursor = 0
            while True:
                cursor, found = cast(
                    "tuple[int, list[bytes]]",
                    client.scan(cursor, match=keys.rows_pattern(table), count=_SCAN),
                )
                with client.pipeline(transaction=False) as pipeline:
                    for row in found:
                        sweep((floor, row), client=pipeline)
                    pipeline.execute()
                if not cursor:
                    return True

    def offsets(self) -> Mapping[TopicPartition, int]:
        """Up to which offset the replica holds each partition, and lacks no row below it."""
        client = self._connected()
        held: dict[TopicPartition, int] = {}
        with translated("reading the replica's offsets"):
            for name in sorted(cast("set[bytes]", client.smembers(self._keys.partitions))):
                at = keys.partition_named(name)
                offset = cast("bytes | None", client.hget(self._keys.state(at), "offset"))
                withheld = cast("list[bytes]", client.hvals(self._keys.withheld(at)))
                if offset is not None:
                    held[at] = min(map(int, (offset, *withheld)))
        return held

    def missing_rows(self) -> Mapping[str, int]:
        """Per collection, how many updates and deletes since this was opened met no row in a live table."""
        return dict(self.missing)

    def mismatched_rows(self) -> Mapping[str, int]:
        """Old images are not compared."""
        return {}

    def close(self) -> None:
        """Safe to repeat."""
        if self._client is not None:
            self._client.close()
        self._client = None
        self.tokens.clear()

    def fenced(self) -> Fenced:
        """The error of a task whose partition is another's, or whose server holds an older state than it left."""
        return Fenced(
            "a partition of this task has another owner in the replica, or the server lost what it had acknowledged",
            "nothing to do: the task claims its partitions anew and goes on from what the server holds",
        )

    def _connected(self) -> redis.Redis:
        if self._client is None:
            raise Failed("no partition of the replica is claimed", "claim one first")
        return self._client


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _state(state: Mapping[bytes, bytes], withheld: Mapping[bytes, bytes]) -> PartitionState:
    if b"offset" not in state:
        return PartitionState()
    position = state.get(b"at", b"")
    return PartitionState(
        Resume(int(state[b"offset"]), state[b"topic_id"].decode()),
        Position(*map(int, position.split(b"/"))) if position else None,
        state[b"cluster_id"].decode(),
        int(state[b"since"]),
        {key: int(offset) for key, offset in withheld.items()},
    )
