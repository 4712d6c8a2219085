"""What the replica remembers of its tables' row schemas: which column of the source each of its columns is.

A name tells too little: a column that is renamed keeps its number, and a new one of an old name has another. The
replica's own column numbers stand beside them, so that a column which an operator made anew is recognised as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import psycopg
from psycopg.types.json import Jsonb

from cdc.position import Position

Session = psycopg.Connection[tuple[Any, ...]]

_INSTALL = """
CREATE TABLE cdc.shapes (
    sink text NOT NULL,
    source text NOT NULL,
    collection text NOT NULL,
    generation bigint NOT NULL,
    commit_lsn bigint NOT NULL,
    columns jsonb NOT NULL,
    PRIMARY KEY (sink, source, collection)
)
"""

_LOAD = """
SELECT generation, commit_lsn, columns FROM cdc.shapes WHERE sink = %s AND source = %s AND collection = %s
"""

_SAVE = """
INSERT INTO cdc.shapes VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (sink, source, collection) DO UPDATE
SET generation = EXCLUDED.generation, commit_lsn = EXCLUDED.commit_lsn, columns = EXCLUDED.columns
"""


class RememberedColumn(NamedTuple):
    """``number`` is the source's (`cdc.table.Column`), ``own`` the replica's ``attnum``."""

    number: int
    own: int


class Memory(NamedTuple):
    """Of one collection: the place in the log from which on its table has this shape, and its columns by name."""

    position: Position
    columns: Mapping[str, RememberedColumn]


NOTHING = Memory(Position(0, 0, 0), {})


def install(session: Session) -> None:
    """Make the table if it is missing. To be called under the lock of the schema's installation."""
    if session.execute("SELECT to_regclass('cdc.shapes')").fetchone() == (None,):
        session.execute(_INSTALL)


def load(session: Session, sink: str, source: str, collection: str) -> Memory:
    """What is remembered of a collection; NOTHING at first."""
    row = session.execute(_LOAD, (sink, source, collection)).fetchone()
    if row is None:
        return NOTHING
    generation, commit_lsn, columns = row
    remembered = {name: RememberedColumn(*numbers) for name, numbers in columns.items()}
    return Memory(Position(generation, commit_lsn, 0), remembered)


def save(session: Session, sink: str, source: str, collection: str, memory: Memory) -> None:
    """Remember it, in the open transaction."""
    generation, commit_lsn, _ = memory.position
    columns = Jsonb({name: list(numbers) for name, numbers in memory.columns.items()})
    session.execute(_SAVE, (sink, source, collection, generation, commit_lsn, columns))
