"""What a replica holds of each partition that a sink applies apart from the others, and who may write it.

One row of ``cdc.partitions`` per (sink, source, topic, partition). A claim raises its epoch; every commit of rows
updates the rows of all its partitions *under their epochs*, as its last statement, like ``cdc.checkpoints`` in
transaction mode. An owner that gives a partition up says so in its row; one that did not is ended by the next claim,
because it may have been stopped while it held locks.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg import errors

from cdc.checkpoint import PartitionProgress, PartitionState, Resume, SinkCheckpoint
from cdc.errors import Refused, Unreachable
from cdc.position import Position, TopicPartition
from connectors.postgres import checkpoints
from connectors.postgres.checkpoints import Session

_LOCK = 0x6364_632E_7631

_INSTALL = """
CREATE TABLE cdc.partitions (
    sink text NOT NULL,
    source text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    epoch bigint NOT NULL,
    owner_pid integer,
    owner_started timestamptz,
    next_offset bigint,
    topic_id text NOT NULL DEFAULT '',
    leader_epoch integer NOT NULL DEFAULT -1,
    generation bigint,
    commit_lsn bigint,
    total_order bigint,
    cluster_id text NOT NULL DEFAULT '',
    since bigint NOT NULL DEFAULT 0,
    claimed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz,
    PRIMARY KEY (sink, source, topic, partition)
) WITH (fillfactor = 20);
CREATE TABLE cdc.withheld (
    sink text NOT NULL,
    source text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    key bytea NOT NULL,
    at_offset bigint NOT NULL,
    PRIMARY KEY (sink, source, topic, partition, key)
);
CREATE TABLE cdc.truncates (
    sink text NOT NULL,
    source text NOT NULL,
    topic text NOT NULL,
    generation bigint NOT NULL,
    commit_lsn bigint NOT NULL,
    total_order bigint NOT NULL,
    arrived integer[] NOT NULL,
    done boolean NOT NULL DEFAULT false,
    PRIMARY KEY (sink, source, topic, generation, commit_lsn, total_order)
);
"""

_ADD = """
INSERT INTO cdc.partitions (sink, source, topic, partition, epoch)
SELECT %s, %s, u.*, 0 FROM unnest(%s::text[], %s::integer[]) AS u
ON CONFLICT DO NOTHING
"""

_OF = "sink = %s AND source = %s AND topic = %s AND partition = %s"

_OWNER = f"SELECT owner_pid, owner_started FROM cdc.partitions WHERE {_OF}"  # noqa: S608 - constants

_RAISE = f"""
UPDATE cdc.partitions AS c
SET epoch = epoch + 1, owner_pid = me.pid, owner_started = me.backend_start, claimed_at = clock_timestamp()
FROM pg_stat_activity AS me
WHERE me.pid = pg_backend_pid() AND {_OF}
RETURNING epoch, next_offset, topic_id, leader_epoch, generation, commit_lsn, total_order, cluster_id, since
"""  # noqa: S608 - constants

_WITHHELD = f"SELECT encode(key, 'hex'), at_offset FROM cdc.withheld WHERE {_OF}"  # noqa: S608 - constants

_RELEASE = f"""
UPDATE cdc.partitions SET owner_pid = NULL, owner_started = NULL WHERE {_OF} AND epoch = %s
"""  # noqa: S608 - constants

_SAVE = """
UPDATE cdc.partitions AS p
SET next_offset = u.next_offset, topic_id = u.topic_id, generation = u.generation, commit_lsn = u.commit_lsn,
    total_order = u.total_order, cluster_id = u.cluster_id, since = u.since, updated_at = clock_timestamp()
FROM unnest(%s::text[], %s::integer[], %s::bigint[], %s::bigint[], %s::text[], %s::bigint[], %s::bigint[],
            %s::bigint[], %s::text[], %s::bigint[])
     AS u (topic, partition, epoch, next_offset, topic_id, generation, commit_lsn, total_order, cluster_id, since)
WHERE p.sink = %s AND p.source = %s AND p.topic = u.topic AND p.partition = u.partition AND p.epoch = u.epoch
"""

_HOLD = """
SELECT 1 FROM cdc.partitions AS p
JOIN unnest(%s::text[], %s::integer[], %s::bigint[]) AS u (topic, partition, epoch)
  ON p.topic = u.topic AND p.partition = u.partition AND p.epoch = u.epoch
WHERE p.sink = %s AND p.source = %s FOR UPDATE OF p
"""

_WITHHOLD = """
INSERT INTO cdc.withheld (sink, source, topic, partition, key, at_offset)
SELECT %s, %s, u.topic, u.partition, decode(u.key, 'hex'), u.at_offset
FROM unnest(%s::text[], %s::integer[], %s::text[], %s::bigint[]) AS u (topic, partition, key, at_offset)
ON CONFLICT (sink, source, topic, partition, key) DO UPDATE SET at_offset = EXCLUDED.at_offset
"""

_SETTLE = """
DELETE FROM cdc.withheld AS w USING unnest(%s::text[], %s::integer[], %s::text[]) AS u (topic, partition, key)
WHERE w.sink = %s AND w.source = %s AND w.topic = u.topic AND w.partition = u.partition AND w.key = decode(u.key, 'hex')
"""

_ANY = "SELECT 1 FROM cdc.partitions WHERE sink = %s AND source = %s LIMIT 1"

_OFFSETS = """
SELECT p.topic, p.partition, p.next_offset, p.topic_id, p.cluster_id, min(w.at_offset)
FROM cdc.partitions AS p LEFT JOIN cdc.withheld AS w USING (sink, source, topic, partition)
WHERE p.sink = %s AND p.source = %s AND p.next_offset IS NOT NULL
GROUP BY p.sink, p.source, p.topic, p.partition
"""

_ARRIVE = """
INSERT INTO cdc.truncates AS t (sink, source, topic, generation, commit_lsn, total_order, arrived)
VALUES (%s, %s, %s, %s, %s, %s, ARRAY[%s::integer])
ON CONFLICT (sink, source, topic, generation, commit_lsn, total_order) DO UPDATE
SET arrived = ARRAY(SELECT DISTINCT unnest(t.arrived || EXCLUDED.arrived))
RETURNING cardinality(arrived), done
"""

_TRUNCATED = """
UPDATE cdc.truncates SET done = true
WHERE sink = %s AND source = %s AND topic = %s AND generation = %s AND commit_lsn = %s AND total_order = %s
"""

# Every partition has come to this TRUNCATE, so each is behind the earlier ones.
_FORGET_EARLIER = """
DELETE FROM cdc.truncates
WHERE sink = %s AND source = %s AND topic = %s AND (generation, commit_lsn, total_order) < (%s, %s, %s)
"""

Owner = tuple[str, str]
"""Sink and source."""

Epochs = Mapping[TopicPartition, int]


def install(session: Session) -> None:
    """Make the schema ``cdc`` and what this mode needs of it, where it is missing."""
    checkpoints.install(session)
    with session.transaction():
        session.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        if session.execute("SELECT to_regclass('cdc.partitions')").fetchone() == (None,):
            session.execute(_INSTALL)


def claim(
    session: Session, owner: Owner, partition: TopicPartition, patience: float = 30.0
) -> tuple[int, PartitionState]:
    """Raise the partition's epoch, and end the session of a former owner that has not given it up.

    Returns the epoch and what the replica holds. Unreachable after ``patience`` seconds of waiting.
    """
    deadline = time.monotonic() + patience
    session.execute(_ADD, (*owner, [partition.topic], [partition.partition]))
    while (raised := _raise(session, owner, partition)) is None:
        # Somebody holds the row: its owner between its last statement and its end, or stopped there.
        found = session.execute(_OWNER, (*owner, *partition)).fetchone()
        if found is not None and found[0] is not None:
            checkpoints.end_session(session, found)
        if time.monotonic() > deadline:
            raise Unreachable(
                f"{partition} stayed locked in the replica for {patience:.0f} s",
                "see pg_locks for who holds cdc.partitions",
            )
    former, (epoch, *held) = raised
    if former[0] is not None:
        checkpoints.end_session(session, former)
    withheld = {
        bytes.fromhex(key): at for key, at in session.execute(_WITHHELD, (*owner, *partition))
    }
    return epoch, _state(held, withheld)


def release(session: Session, owner: Owner, epochs: Epochs) -> None:
    """Say that these are given up, as far as they are still held."""
    for partition, epoch in epochs.items():
        session.execute(_RELEASE, (*owner, *partition, epoch))


def check_mode(session: Session, owner: Owner) -> None:
    """Refused when this sink has applied whole transactions: where each partition stands is not told apart then."""
    if checkpoints.load(session, *owner).position is not None:
        raise Refused(
            f"{owner[0]} has applied whole transactions to this replica",
            "set apply.mode=transaction, or deploy the sink under another name with a new replica",
        )


def refuse_mode(session: Session, owner: Owner) -> None:
    """Refused when this sink has applied partitions apart: the replica then equals the source at no one commit."""
    if any_held(session, owner):
        raise Refused(
            f"{owner[0]} has applied partitions apart from each other to this replica",
            "set apply.mode=partition, or deploy the sink under another name with a new replica",
        )


def any_held(session: Session, owner: Owner) -> bool:
    """Whether the replica holds anything of this sink partition by partition."""
    if session.execute("SELECT to_regclass('cdc.partitions')").fetchone() == (None,):
        return False
    return session.execute(_ANY, owner).fetchone() is not None


def save(session: Session, owner: Owner, epochs: Epochs, checkpoint: SinkCheckpoint) -> bool:
    """Store what changed, in the open transaction; False when a partition is no longer held under its epoch.

    The last statement takes the rows' locks, so that they are held only until the commit that follows.
    """
    progress = checkpoint.progress
    with session.pipeline():
        checkpoints.save_tables(session, owner, checkpoint)
        if added := _keys((at, one.withheld.items()) for at, one in progress.items()):
            session.execute(_WITHHOLD, (*owner, *map(list, zip(*added, strict=True))))
        if settled := _keys(
            (at, ((key, 0) for key in one.settled)) for at, one in progress.items()
        ):
            topics, numbers, keys, _ = map(list, zip(*settled, strict=True))
            session.execute(_SETTLE, (topics, numbers, keys, *owner))
        saved = session.execute(_SAVE, (*_columns(epochs, progress), *owner))
    return saved.rowcount == len(progress)


def hold(session: Session, owner: Owner, epochs: Epochs) -> bool:
    """Keep claims of these waiting until the open transaction ends; False when one is no longer held."""
    topics, numbers = [tp.topic for tp in epochs], [tp.partition for tp in epochs]
    found = session.execute(_HOLD, (topics, numbers, list(epochs.values()), *owner))
    return len(found.fetchall()) == len(epochs)


def arrive(
    session: Session, owner: Owner, topic: str, position: Position, partition: int
) -> tuple[int, bool]:
    """Note that a partition has come to a TRUNCATE: how many have by now, and whether it has taken effect."""
    row = session.execute(_ARRIVE, (*owner, topic, *position, partition)).fetchone()
    assert row is not None
    return int(row[0]), bool(row[1])


def truncated(session: Session, owner: Owner, topic: str, position: Position) -> None:
    """Note that it has taken effect, in the same transaction."""
    session.execute(_TRUNCATED, (*owner, topic, *position))
    session.execute(_FORGET_EARLIER, (*owner, topic, *position))


def load(session: Session, sink: str, source: str) -> SinkCheckpoint:
    """What the replica holds of all partitions, in the session's snapshot, whoever owns them."""
    tables = checkpoints.load_tables(session, (sink, source))
    offsets: dict[TopicPartition, Resume] = {}
    withheld: dict[TopicPartition, int] = {}
    cluster_id = ""
    for topic, number, offset, topic_id, cluster, waiting in session.execute(
        _OFFSETS, (sink, source)
    ):
        offsets[TopicPartition(topic, number)] = Resume(offset, topic_id)
        cluster_id = cluster or cluster_id
        if waiting is not None:
            withheld[TopicPartition(topic, number)] = waiting
    return SinkCheckpoint(
        source, None, cluster_id, offsets=offsets, tables=tables, withheld=withheld
    )


def _raise(
    session: Session, owner: Owner, partition: TopicPartition
) -> tuple[tuple[int | None, datetime | None], tuple[Any, ...]] | None:
    """The owner before, and the row; None when the row stayed locked for a moment."""
    try:
        with session.transaction():
            session.execute("SET LOCAL lock_timeout = '300ms'")
            former = session.execute(f"{_OWNER} FOR UPDATE", (*owner, *partition)).fetchone()
            row = session.execute(_RAISE, (*owner, *partition)).fetchone()
    except errors.LockNotAvailable:
        return None
    assert former is not None
    assert row is not None
    return (former[0], former[1]), row


def _state(held: Sequence[Any], withheld: Mapping[bytes, int]) -> PartitionState:
    offset, topic_id, leader_epoch, generation, lsn, order, cluster_id, since = held
    return PartitionState(
        None if offset is None else Resume(offset, topic_id, leader_epoch),
        None if generation is None else Position(generation, lsn, order),
        cluster_id,
        since,
        withheld,
    )


def _columns(
    epochs: Epochs, progress: Mapping[TopicPartition, PartitionProgress]
) -> tuple[list[Any], ...]:
    rows = [
        (
            *at,
            epochs.get(at, -1),
            one.resume.offset,
            one.resume.topic_id,
            *(one.position or (None, None, None)),
            one.cluster_id,
            one.since,
        )
        for at, one in progress.items()
    ]
    return tuple(map(list, zip(*rows, strict=True))) if rows else tuple([] for _ in range(10))


def _keys(
    of: Iterable[tuple[TopicPartition, Iterable[tuple[bytes, int]]]],
) -> list[tuple[str, int, str, int]]:
    return [(*at, key.hex(), offset) for at, items in of for key, offset in items]
