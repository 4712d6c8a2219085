"""Rows that somebody else took away or changed in the replica are counted, or stop the sink, by policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace

import psycopg
import pytest

from cdc.checkpoint import SinkCheckpoint
from cdc.errors import Refused
from cdc.event import Delivered, Op
from cdc.position import Position
from connectors.postgres.sink import PostgresStore
from tests.integration.item_history import COLLECTION, ITEMS, Row, event, row_bytes, store

FULL = replace(ITEMS, identity="full")
FEW_OR_MANY = pytest.mark.parametrize("others", [0, 100], ids=["inline", "staged"])


def changed(key: int, before: Row, after: Row | None, *, xid: int = 7) -> Delivered:
    """An update, or a delete, as a table with replica identity full has it."""
    op: Op = "d" if after is None else "u"
    return event(op, key, after, xid=xid, table=FULL)._replace(before=row_bytes(before))


@contextmanager
def opened(dsn: str, **settings: object) -> Iterator[PostgresStore]:
    with closing(store(dsn, **settings)) as made:
        made.claim("sink", "p")
        yield made


def apply(sink: PostgresStore, events: Sequence[Delivered]) -> None:
    transaction = sink.begin()
    transaction.apply(events)
    transaction.save(SinkCheckpoint("p", Position(1, 8, 1), tables={COLLECTION: "live"}))
    transaction.commit()


def rows(count: int) -> list[Delivered]:
    return [
        event("c", key, (key, str(key), "n" if key % 2 else None, None), table=FULL)
        for key in range(1, count + 1)
    ]


@FEW_OR_MANY
def test_a_row_other_than_its_old_image_is_counted_and_overwritten(
    replica_dsn: str, others: int
) -> None:
    with opened(replica_dsn) as sink:
        apply(sink, rows(6 + others))
        with psycopg.connect(replica_dsn) as replica:
            replica.execute("UPDATE shop.items SET note = 'by hand' WHERE id IN (1, 2, 3)")
            replica.execute("DELETE FROM shop.items WHERE id = 4")
        apply(
            sink,
            [
                changed(1, (1, "1", "n", None), (1, "1", "new", None)),
                changed(2, (2, "2", None, None), None),
                changed(3, (3, "3", "n", None), (3, "3", "of a fence", None), xid=0),
                changed(4, (4, "4", None, None), (4, "4", "new", None)),
                changed(5, (5, "5", "n", None), (5, "5", None, None)),
                changed(5, (5, "5", None, None), (5, "5", "twice", None)),
                *(
                    changed(key, (key, str(key), "n" if key % 2 else None, None), None)
                    for key in range(7, 7 + others)
                ),
            ],
        )
        assert sink.mismatched_rows() == {COLLECTION: 2}
        assert sink.missing_rows() == {COLLECTION: 1}
        with psycopg.connect(replica_dsn) as replica:
            found = replica.execute("SELECT id, note FROM shop.items ORDER BY id").fetchall()
        assert found == [(1, "new"), (3, "of a fence"), (4, "new"), (5, "twice"), (6, None)]


@pytest.mark.parametrize(
    "damage",
    ["DELETE FROM shop.items WHERE id = 1", "UPDATE shop.items SET note = 'x' WHERE id = 1"],
)
def test_by_policy_the_sink_stops_and_names_table_and_key_columns(
    replica_dsn: str, damage: str
) -> None:
    with opened(replica_dsn, missing_rows="fail") as sink:
        apply(sink, rows(2))
        with psycopg.connect(replica_dsn) as replica:
            replica.execute(damage.encode())
        transaction = sink.begin()
        with pytest.raises(Refused, match=r"shop\.items.*\(id\)") as raised:
            transaction.apply([changed(1, (1, "1", "n", None), (1, "1", "secret", None))])
        assert "secret" not in str(raised.value)
        transaction.rollback()
        apply(sink, [changed(1, (1, "1", "n", None), None, xid=0)])
