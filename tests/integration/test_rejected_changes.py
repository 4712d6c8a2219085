"""A change that the replica never takes is found in its batch, however the batch goes there; all others take effect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from cdc.checkpoint import SinkCheckpoint
from cdc.errors import Rejected
from cdc.event import Delivered
from cdc.pipeline.parking import find_culprit
from cdc.position import Position
from connectors.postgres.sink import PostgresStore
from tests.integration.item_history import Row, event, store

CONSTRAINTS = {
    "a check": "ALTER TABLE shop.items ADD CHECK (note <> 'bad')",
    "a unique value": "INSERT INTO shop.items VALUES (900, 'taken'); CREATE UNIQUE INDEX ON shop.items (code)",
}
BAD: dict[str, Row] = {
    "a check": (50, None, "bad", None),
    "a unique value": (50, "taken", "n", None),
    "a NUL byte": (50, None, "a\0b", None),
}


@pytest.fixture
def sink(replica_dsn: str) -> Iterator[PostgresStore]:
    with closing(store(replica_dsn, schema_evolution="none")) as made:
        made.claim("sink", "p")
        with psycopg.connect(replica_dsn) as replica:
            replica.execute(
                "CREATE SCHEMA shop;"
                "CREATE TABLE shop.items (id bigint PRIMARY KEY, code text, note text, big text)"
            )
        yield made


def batch(bad: Row, size: int) -> list[Delivered]:
    events = [
        event("c", 1000 + key, (1000 + key, None, "n", None), order=key)
        for key in range(1, size + 1)
    ]
    events[size // 2] = event("c", bad[0], bad, order=size // 2 + 1)
    return events


@pytest.mark.parametrize("size", [3, 300])
@pytest.mark.parametrize("cause", list(BAD))
def test_the_culprit_is_found_and_the_rest_applied(
    sink: PostgresStore, replica_dsn: str, cause: str, size: int
) -> None:
    with psycopg.connect(replica_dsn) as replica:
        if cause in CONSTRAINTS:
            replica.execute(CONSTRAINTS[cause].encode())
        before = replica.execute("SELECT count(*) FROM shop.items").fetchone()
    events = batch(BAD[cause], size)
    transaction = sink.begin()
    whole = transaction.attempt(events)
    assert isinstance(whole, Rejected)
    assert "bad" not in whole.what, "values stay out of messages"
    found = find_culprit(transaction, events)
    assert found is not None
    assert found[0] is events[size // 2]
    assert transaction.attempt(events[size // 2 + 1 :]) is None
    transaction.save(SinkCheckpoint("p", Position(1, 8, 1)))
    transaction.commit()
    with psycopg.connect(replica_dsn) as replica:
        after = replica.execute("SELECT count(*) FROM shop.items").fetchone()
    assert before is not None
    assert after is not None
    assert after[0] - before[0] == size - 1
