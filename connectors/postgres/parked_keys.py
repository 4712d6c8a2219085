"""Parked keys in the replica: ``cdc.parked``, changed with the checkpoint in one transaction.

Keys may be released beside the owner of the checkpoint (by a replay of dead letters). ``cdc.checkpoints.releases`` counts
how often that was: an owner that does not know of the last one cannot commit, and claims again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from cdc.checkpoint import ParkedKey, SinkCheckpoint
from cdc.position import Position

Session = psycopg.Connection[tuple[Any, ...]]

_INSTALL = """
ALTER TABLE cdc.checkpoints ADD COLUMN releases bigint NOT NULL DEFAULT 0;
CREATE TABLE cdc.parked (
    sink text NOT NULL,
    source text NOT NULL,
    collection text NOT NULL,
    key bytea NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    first_offset bigint NOT NULL,
    generation bigint NOT NULL,
    commit_lsn bigint NOT NULL,
    total_order bigint NOT NULL,
    kind text NOT NULL,
    message text NOT NULL,
    parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (sink, source, topic, partition, key)
);
COMMENT ON TABLE cdc.parked IS 'Keys whose changes are in the dead-letter topic; an empty key: all of the partition'
"""

_LOAD = """
SELECT collection, key, topic, partition, first_offset, generation, commit_lsn, total_order, kind, message
FROM cdc.parked WHERE sink = %s AND source = %s ORDER BY topic, partition, first_offset
"""

_ADD = """
INSERT INTO cdc.parked (sink, source, collection, key, topic, partition, first_offset, generation, commit_lsn,
                        total_order, kind, message)
VALUES (%s, %s, %s, %s::bytea, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""

_REMOVE = """
DELETE FROM cdc.parked WHERE sink = %s AND source = %s AND topic = %s AND partition = %s AND key = %s::bytea
"""

_STATES = """
UPDATE cdc.tables AS t SET state = f.state, changed_at = clock_timestamp()
FROM (
    SELECT sink, source, collection, CASE WHEN EXISTS (
        SELECT FROM cdc.parked AS p
        WHERE (p.sink, p.source, p.collection) = (o.sink, o.source, o.collection)
    ) THEN 'parked' ELSE 'live' END AS state
    FROM cdc.tables AS o WHERE sink = %s AND source = %s AND state IN ('live', 'parked')
) AS f
WHERE (t.sink, t.source, t.collection) = (f.sink, f.source, f.collection) AND t.state <> f.state
"""

_RELEASED_BESIDE = (
    "UPDATE cdc.checkpoints SET releases = releases + 1 WHERE sink = %s AND source = %s"
)

_RELEASES = "SELECT releases FROM cdc.checkpoints WHERE sink = %s AND source = %s"


def install(session: Session) -> None:
    """Make the table if it is missing; in an open transaction, under whose lock nobody else does."""
    if session.execute("SELECT to_regclass('cdc.parked')").fetchone() == (None,):
        session.execute(_INSTALL)


def load(session: Session, sink: str, source: str) -> tuple[ParkedKey, ...]:
    """All that are parked, in the session's snapshot."""
    return tuple(
        ParkedKey(collection, key or None, topic, number, offset, Position(*place), kind, message)
        for collection, key, topic, number, offset, *place, kind, message in session.execute(
            _LOAD, (sink, source)
        )
    )


def save(session: Session, owner: tuple[str, str], checkpoint: SinkCheckpoint) -> None:
    """Store what is parked and released since the last time, and what that makes of the tables' states."""
    _remove(session, owner, checkpoint.released)
    for one in checkpoint.parked:
        session.execute(
            _ADD,
            (
                *owner,
                one.collection,
                _hex(one.key),
                one.topic,
                one.partition,
                one.offset,
                *one.position,
                one.kind,
                one.message,
            ),
        )
    if checkpoint.parked or checkpoint.released or checkpoint.tables:
        session.execute(_STATES, owner)


def release_beside(session: Session, owner: tuple[str, str], released: Sequence[ParkedKey]) -> None:
    """Take them away beside the owner, who is made to look again."""
    _remove(session, owner, released)
    session.execute(_STATES, owner)
    session.execute(_RELEASED_BESIDE, owner)


def releases(session: Session, sink: str, source: str) -> int:
    """How often keys were released beside the owner."""
    found = session.execute(_RELEASES, (sink, source)).fetchone()
    return int(found[0]) if found else 0


def _remove(session: Session, owner: tuple[str, str], released: Sequence[ParkedKey]) -> None:
    for one in released:
        session.execute(_REMOVE, (*owner, one.topic, one.partition, _hex(one.key)))


def _hex(key: bytes | None) -> str:
    # As text: in a session that applies rows, bytes are passed on as whatever type the statement gives them.
    return "\\x" + (key or b"").hex()
