"""A sink's checkpoint in its replica: the schema ``cdc``, and the SQL that claims, reads and advances it.

One row of ``cdc.checkpoints`` per (sink, source) holds the position, the epoch and who owns it. A claim raises the
epoch; every commit of rows updates the row *under its epoch*, as its last statement. So under READ COMMITTED a claim
either waits for the commit in flight and sees what it brought, or that commit's update finds no row of its epoch.

A claim does not wait for an owner that was stopped while it held the row: it ends that owner's session, which the row
names by pid *and* start time, so that a pid used again is never hit. That needs no superuser: a role may end its own
sessions.
"""

from __future__ import annotations

import logging
import time
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg import errors

from cdc.checkpoint import Resume, SinkCheckpoint, TableState
from cdc.errors import Failed, Unreachable
from cdc.position import Position, TopicPartition
from connectors.postgres import parked_keys, replica_memory

Session = psycopg.Connection[tuple[Any, ...]]

VERSION = 1

_LOCK = 0x6364_632E_7631
"""Key of the advisory lock under which the schema is made: two sinks may start at once."""

_INSTALL = """
CREATE SCHEMA cdc;
CREATE TABLE cdc.version (version integer NOT NULL);
INSERT INTO cdc.version VALUES (1);
CREATE TABLE cdc.checkpoints (
    sink text NOT NULL,
    source text NOT NULL,
    epoch bigint NOT NULL,
    owner_pid integer NOT NULL,
    owner_started timestamptz NOT NULL,
    generation bigint,
    commit_lsn bigint,
    total_order bigint,
    cluster_id text NOT NULL DEFAULT '',
    claimed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz,
    PRIMARY KEY (sink, source)
) WITH (fillfactor = 20);
CREATE TABLE cdc.offsets (
    sink text NOT NULL,
    source text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    topic_id text NOT NULL,
    leader_epoch integer NOT NULL,
    PRIMARY KEY (sink, source, topic, partition)
) WITH (fillfactor = 20);
CREATE TABLE cdc.tables (
    sink text NOT NULL,
    source text NOT NULL,
    collection text NOT NULL,
    state text CHECK (state IN ('backfilling', 'live', 'stale', 'parked')),
    since bigint,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (sink, source, collection)
);
COMMENT ON SCHEMA cdc IS 'Checkpoints of change data capture, changed together with the rows of this replica';
"""
# The low fill factors leave room in each page for new versions of a row that is updated at every commit.

_ADD = """
INSERT INTO cdc.checkpoints (sink, source, epoch, owner_pid, owner_started)
SELECT %s, %s, 0, pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()
ON CONFLICT DO NOTHING
"""

_OWNER = "SELECT owner_pid, owner_started FROM cdc.checkpoints WHERE sink = %s AND source = %s"

_RAISE = """
UPDATE cdc.checkpoints AS c
SET epoch = epoch + 1, owner_pid = me.pid, owner_started = me.backend_start, claimed_at = clock_timestamp()
FROM pg_stat_activity AS me
WHERE me.pid = pg_backend_pid() AND c.sink = %s AND c.source = %s
RETURNING c.epoch
"""

_END = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = %s AND backend_start = %s AND pid <> pg_backend_pid()
"""

_EPOCH = "SELECT epoch FROM cdc.checkpoints WHERE sink = %s AND source = %s"

_POSITION = """
SELECT generation, commit_lsn, total_order, cluster_id FROM cdc.checkpoints WHERE sink = %s AND source = %s
"""

_OFFSETS = """
SELECT topic, partition, next_offset, topic_id, leader_epoch FROM cdc.offsets WHERE sink = %s AND source = %s
"""

_TABLES = "SELECT collection, state, since FROM cdc.tables WHERE sink = %s AND source = %s"

_SAVE_OFFSETS = """
INSERT INTO cdc.offsets AS o (sink, source, topic, partition, next_offset, topic_id, leader_epoch)
SELECT %s, %s, u.* FROM unnest(%s::text[], %s::integer[], %s::bigint[], %s::text[], %s::integer[]) AS u
ON CONFLICT (sink, source, topic, partition) DO UPDATE
SET next_offset = EXCLUDED.next_offset, topic_id = EXCLUDED.topic_id, leader_epoch = EXCLUDED.leader_epoch
"""

_SAVE_TABLES = """
INSERT INTO cdc.tables AS t (sink, source, collection, state, since)
SELECT %s, %s, u.* FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS u
ON CONFLICT (sink, source, collection) DO UPDATE
SET state = COALESCE(EXCLUDED.state, t.state), since = COALESCE(EXCLUDED.since, t.since),
    changed_at = clock_timestamp()
"""

_SAVE = """
UPDATE cdc.checkpoints
SET generation = %s, commit_lsn = %s, total_order = %s, cluster_id = %s, updated_at = clock_timestamp()
WHERE sink = %s AND source = %s AND epoch = %s AND releases = %s
"""

_HOLD = """
SELECT 1 FROM cdc.checkpoints WHERE sink = %s AND source = %s AND epoch = %s FOR UPDATE
"""

_log = logging.getLogger(__name__)


class Claim(NamedTuple):
    """Which checkpoint, the epoch under which it is held, and how often keys had been released beside it by then."""

    sink: str
    source: str
    epoch: int
    releases: int = 0


def install(session: Session) -> None:
    """Make the schema ``cdc`` if it is missing. Failed when a later version of this software made it."""
    with session.transaction():
        session.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        if session.execute("SELECT to_regclass('cdc.version')").fetchone() == (None,):
            session.execute(_INSTALL)
        replica_memory.install(session)
        parked_keys.install(session)
        found = session.execute("SELECT version FROM cdc.version").fetchone()
    if found != (VERSION,):
        raise Failed(
            f"the replica's schema cdc has version {found[0] if found else None}, this one knows {VERSION}",
            "use the version of this software that made it",
        )


def claim(session: Session, sink: str, source: str, patience: float = 30.0) -> Claim:
    """Raise the epoch, then end the previous owner's session. Unreachable after ``patience`` seconds of waiting."""
    deadline = time.monotonic() + patience
    while (raised := _raise(session, sink, source)) is None:
        # Somebody holds the row: the owner between its last statement and its end, or stopped there.
        owner = session.execute(_OWNER, (sink, source)).fetchone()
        if owner is not None:
            end_session(session, owner)
        if time.monotonic() > deadline:
            raise Unreachable(
                f"the checkpoint of {sink} in the replica stayed locked for {patience:.0f} s",
                "see pg_locks for who holds cdc.checkpoints",
            )
    epoch, owner = raised
    end_session(session, owner)
    return Claim(sink, source, epoch, parked_keys.releases(session, sink, source))


def epoch(session: Session, sink: str, source: str) -> int:
    """The epoch of the newest claim, 0 before the first."""
    found = session.execute(_EPOCH, (sink, source)).fetchone()
    return int(found[0]) if found else 0


def load(session: Session, sink: str, source: str) -> SinkCheckpoint:
    """Everything the replica holds, in the session's snapshot; an empty checkpoint when it holds nothing."""
    found = session.execute(_POSITION, (sink, source)).fetchone()
    if found is None:
        return SinkCheckpoint(source, None)
    generation, commit_lsn, total_order, cluster_id = found
    tables = session.execute(_TABLES, (sink, source)).fetchall()
    return SinkCheckpoint(
        source=source,
        position=None if generation is None else Position(generation, commit_lsn, total_order),
        cluster_id=cluster_id,
        offsets={
            TopicPartition(topic, partition): Resume(offset, topic_id, leader_epoch)
            for topic, partition, offset, topic_id, leader_epoch in session.execute(
                _OFFSETS, (sink, source)
            )
        },
        tables={collection: state for collection, state, _ in tables if state is not None},
        since={collection: since for collection, _, since in tables if since is not None},
        parked=parked_keys.load(session, sink, source),
    )


def load_tables(session: Session, owner: tuple[str, str]) -> dict[str, TableState]:
    """The state of each table of a sink and its source."""
    tables = session.execute(_TABLES, owner).fetchall()
    return {collection: state for collection, state, _ in tables if state is not None}


def save(session: Session, held: Claim, checkpoint: SinkCheckpoint) -> bool:
    """Store what changed, in the open transaction; False when the claim is outdated.

    A newer claim raised the epoch then, or keys were released beside this one. The last statement takes the checkpoint's row lock, so that it is held only until the commit that follows.
    """
    owner = (held.sink, held.source)
    with session.pipeline():
        if checkpoint.offsets:
            at = checkpoint.offsets
            resumes = at.values()
            session.execute(
                _SAVE_OFFSETS,
                (
                    *owner,
                    [partition.topic for partition in at],
                    [partition.partition for partition in at],
                    [resume.offset for resume in resumes],
                    [resume.topic_id for resume in resumes],
                    [resume.leader_epoch for resume in resumes],
                ),
            )
        save_tables(session, owner, checkpoint)
        parked_keys.save(session, owner, checkpoint)
        position = checkpoint.position or (None, None, None)
        saved = session.execute(
            _SAVE, (*position, checkpoint.cluster_id, *owner, held.epoch, held.releases)
        )
    return saved.rowcount == 1


def save_tables(session: Session, owner: tuple[str, str], checkpoint: SinkCheckpoint) -> None:
    """Store what the checkpoint says of tables, for a sink and its source."""
    if collections := sorted({*checkpoint.tables, *checkpoint.since}):
        session.execute(
            _SAVE_TABLES,
            (
                *owner,
                collections,
                [checkpoint.tables.get(collection) for collection in collections],
                [checkpoint.since.get(collection) for collection in collections],
            ),
        )


def hold(session: Session, held: Claim) -> bool:
    """Keep every claim waiting until the open transaction ends; False when the epoch is no longer this claim's."""
    return session.execute(_HOLD, held[:3]).fetchone() is not None


def _raise(session: Session, sink: str, source: str) -> tuple[int, tuple[int, datetime]] | None:
    """The new epoch and the owner before; None when the row stayed locked for a moment."""
    try:
        with session.transaction():
            session.execute("SET LOCAL lock_timeout = '300ms'")
            session.execute(_ADD, (sink, source))
            owner = session.execute(f"{_OWNER} FOR UPDATE", (sink, source)).fetchone()
            raised = session.execute(_RAISE, (sink, source)).fetchone()
    except errors.LockNotAvailable:
        return None
    if owner is None or raised is None:
        raise Failed(
            f"the checkpoint of {sink} in the replica went away while it was claimed",
            "see who deletes from cdc.checkpoints",
        )
    return raised[0], (owner[0], owner[1])


def end_session(session: Session, owner: tuple[Any, ...]) -> None:
    """End a session and wait until it is gone, and its locks with it."""
    deadline = time.monotonic() + 5
    try:
        while session.execute(_END, owner).fetchone() is not None and time.monotonic() < deadline:
            time.sleep(0.01)
    except errors.InsufficientPrivilege:
        _log.warning(
            "the previous owner's session (pid %s) belongs to another role and was left alone:"
            " it cannot commit any more, but may hold locks until it ends",
            owner[0],
        )
