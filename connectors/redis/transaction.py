"""What is committed at once: events as guarded writes in one pipeline, then the progress of their partitions."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import redis

from cdc.checkpoint import PartitionProgress, SinkCheckpoint
from cdc.errors import Failed, Rejected
from cdc.event import Delivered
from cdc.position import TopicPartition
from cdc.protocols.replica import Shape
from connectors.redis import keys, scripts
from connectors.redis.client import translated
from connectors.redis.values import field_bytes, fields_of

if TYPE_CHECKING:
    from connectors.redis.store import RedisStore


class _Write(NamedTuple):
    script: str
    keys: tuple[bytes, bytes, bytes, bytes]
    arguments: tuple[Any, ...]
    counted: str


class RedisTransaction:
    """`cdc.protocols.StoreTransaction` of a store that writes at ``commit``, row by row.

    ``commit`` that fails half way has written some rows: the next owner's repeats of these change nothing.
    """

    def __init__(
        self, store: RedisStore, client: redis.Redis, names: keys.SinkKeys, live: frozenset[str]
    ) -> None:
        self._store = store
        self._client = client
        self._keys = names
        self._live = live
        self._writes: list[_Write] = []
        self._checkpoint = SinkCheckpoint("", None)
        self._ended = False

    def apply(self, events: Sequence[Delivered]) -> None:
        """Make a guarded write of each."""
        for event in events:
            if event.op == "m" or (event.op == "d" and self._keeps_deleted(event)):
                continue
            self._writes.append(self._write(event))

    def attempt(self, events: Sequence[Delivered]) -> Rejected | None:
        """As ``apply``; the writes of a row that cannot be made are taken back with those beside it."""
        before = len(self._writes)
        try:
            self.apply(events)
        except Rejected as error:
            del self._writes[before:]
            return error
        return None

    def ensure(self, shape: Shape) -> None:
        """There are no tables to make."""

    def save(self, checkpoint: SinkCheckpoint) -> None:
        """Stored by ``commit``, behind the rows."""
        self._checkpoint = checkpoint

    def commit(self) -> None:
        """Write all. Acknowledged by the server on return, and as durable as its append-only file is.

        Fenced when a partition is another's: from there on nothing was written.
        """
        if self._ended:
            raise Failed("the transaction has ended", "begin another one")
        self._ended = True
        with translated("applying changes"):
            for first in range(0, len(self._writes), self._store.settings.batch_size):
                self._send(self._writes[first : first + self._store.settings.batch_size])
            for at, progress in self._checkpoint.progress.items():
                self._save(at, progress)
            if self._checkpoint.tables:
                states: dict[Any, Any] = dict(self._checkpoint.tables)
                self._client.hset(self._keys.tables, mapping=states)

    def rollback(self) -> None:
        """What ``commit`` has written stays."""
        self._ended = True
        self._writes = []

    # --- rows ------------------------------------------------------------------------------------------------

    def _keeps_deleted(self, event: Delivered) -> bool:
        # A row whose key changed is moved, not deleted.
        return not self._store.settings.deletes and event.other_key is None

    def _write(self, event: Delivered) -> _Write:
        if event.key is None or not event.table.key:
            raise Rejected(
                f"an event of {event.collection} has no key",
                "capture the table by a key: a primary key, or an index as its replica identity",
            )
        table = keys.table_key(self._store.settings.prefix, event.collection)
        key = self._store.rows.key_values(event.table, event.key)
        row = keys.row_keys(table, map(field_bytes, key.values()))
        at = TopicPartition(event.topic, event.partition)
        if at not in self._store.tokens:
            raise self._store.fenced()
        places = (*row, self._keys.state(at), keys.truncated_key(table))
        head = (self._store.tokens[at], keys.guard(event.position, event.offset))
        counted = event.collection if event.xid and event.collection in self._live else ""
        if event.op == "d":
            guarded = (*head, self._store.settings.guard_ms)
            return _Write(scripts.DELETE, places, guarded, counted)
        if event.after is None:
            raise Rejected(f"{event.collection}: {event.op} without a row")
        values = self._store.rows.values(event.table, event.after)
        if event.unchanged:
            known = {name: v for name, v in values.items() if name not in event.unchanged}
            fields = [part for pair in fields_of(known).items() for part in pair]
            gone = [name.encode() for name, value in known.items() if value is None]
            merged = (*head, len(fields), *fields, *gone)
            return _Write(scripts.MERGE, places, merged, counted if event.op == "u" else "")
        flat = [part for pair in fields_of(values).items() for part in pair]
        return _Write(scripts.PUT, places, (*head, *flat), counted if event.op == "u" else "")

    def _send(self, writes: Sequence[_Write]) -> None:
        run = {
            text: self._client.register_script(text)
            for text in (scripts.PUT, scripts.MERGE, scripts.DELETE)
        }
        with self._client.pipeline(transaction=False) as pipeline:
            for write in writes:
                run[write.script](write.keys, write.arguments, client=pipeline)
            answers = pipeline.execute()
        for write, answer in zip(writes, answers, strict=True):
            if answer == scripts.FENCED:
                raise self._store.fenced()
            if answer == scripts.MISSING and write.counted:
                self._store.missing[write.counted] += 1

    # --- progress --------------------------------------------------------------------------------------------

    def _save(self, at: TopicPartition, progress: PartitionProgress) -> None:
        token = uuid.uuid4().hex.encode()
        state: list[Any] = [
            *("token", token),
            *("offset", progress.resume.offset),
            *("topic_id", progress.resume.topic_id),
            *("cluster_id", progress.cluster_id),
            *("since", progress.since),
        ]
        if progress.position is not None:
            state += ["at", str(progress.position), "position", keys.guard(progress.position, 0)]
        withheld = [part for pair in progress.withheld.items() for part in pair]
        answer = self._client.register_script(scripts.SAVE)(
            (self._keys.state(at), self._keys.withheld(at)),
            (
                self._store.tokens.get(at, b""),
                len(state),
                *state,
                len(withheld),
                *withheld,
                *progress.settled,
            ),
        )
        if answer == scripts.FENCED:
            raise self._store.fenced()
        self._store.tokens[at] = token
