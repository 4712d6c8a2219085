from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest

from cdc.avro_binary import long_bytes
from cdc.checkpoint import Resume, SinkCheckpoint
from cdc.errors import Failed, Fenced, Rejected, Unreachable
from cdc.event import Delivered
from cdc.position import Position, TopicPartition
from cdc.table import Column, Table, TableId
from connectors.postgres.sink import PostgresStore
from tests.integration.item_history import (
    COLLECTION,
    ITEMS,
    PLACEHOLDER,
    ItemHistory,
    event,
    split,
    store,
)

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def replica(replica_dsn: str) -> Iterator[Connection]:
    with psycopg.connect(replica_dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def sink(replica_dsn: str) -> Iterator[PostgresStore]:
    made = store(replica_dsn)
    made.claim("sink", "p")
    yield made
    made.close()


def at(lsn: int, **tables: str) -> SinkCheckpoint:
    return SinkCheckpoint("p", Position(1, lsn, 1), tables=tables)  # type: ignore[arg-type]


def claimed(dsn: str) -> SinkCheckpoint:
    """What a new owner finds."""
    newest = store(dsn)
    found = newest.claim("sink", "p")
    newest.close()
    return found


def apply(sink: PostgresStore, *batches: Sequence[Delivered], lsn: int = 800) -> None:
    transaction = sink.begin()
    for batch in batches:
        transaction.apply(batch)
    transaction.save(at(lsn))
    transaction.commit()


def go_live(sink: PostgresStore) -> None:
    transaction = sink.begin()
    transaction.save(SinkCheckpoint("p", None, tables={COLLECTION: "live"}))
    transaction.commit()


def rows(replica: Connection, table: str = "shop.items") -> list[tuple[Any, ...]]:
    return replica.execute(f"SELECT * FROM {table} ORDER BY 1".encode()).fetchall()


def many(count: int, start: int = 1000) -> list[Delivered]:
    """Inserts enough to make a batch go by the staging table."""
    return [event("c", key, (key, None, "n", None)) for key in range(start, start + count)]


FEW_OR_MANY = pytest.mark.parametrize("others", [0, 100], ids=["inline", "staged"])


# --- rows ---------------------------------------------------------------------------------------------------


@FEW_OR_MANY
def test_the_last_state_of_each_key_stands(
    sink: PostgresStore, replica: Connection, others: int
) -> None:
    apply(
        sink,
        [
            event("c", 1, (1, "a", None, None)),
            event("c", 2, (2, "b", None, None)),
            event("u", 1, (1, "a", "x", "")),
            event("d", 2),
            event("c", 3, (3, "c", None, None)),
            event("d", 3),
            event("c", 3, (3, "d", None, None)),
            *many(others),
        ],
    )
    assert rows(replica)[:2] == [(1, "a", "x", ""), (3, "d", None, None)]


@FEW_OR_MANY
def test_an_unchanged_column_keeps_its_value(
    sink: PostgresStore, replica: Connection, others: int
) -> None:
    apply(sink, [event("c", key, (key, None, None, f"big {key}")) for key in (1, 2)])
    apply(
        sink,
        [
            event("u", 1, (1, "a", "x", PLACEHOLDER), unchanged=["big"]),
            event("c", 3, (3, None, None, "big 3")),
            event("u", 3, (3, "c", "y", PLACEHOLDER), unchanged=["big"]),
            event("u", 2, (2, PLACEHOLDER, "z", PLACEHOLDER), unchanged=["code", "big"]),
            event("u", 2, (2, "b", "zz", PLACEHOLDER), unchanged=["big"]),
            *many(others),
        ],
    )
    assert rows(replica)[:3] == [
        (1, "a", "x", "big 1"),
        (2, "b", "zz", "big 2"),
        (3, "c", "y", "big 3"),
    ]


@FEW_OR_MANY
def test_an_update_with_unchanged_columns_never_inserts(
    sink: PostgresStore, replica: Connection, others: int
) -> None:
    apply(
        sink,
        [event("u", 1, (1, "a", "x", PLACEHOLDER), unchanged=["big"]), *many(others)],
        many(1, 900),
    )
    assert [row[0] for row in rows(replica)][:2] == [900, *([1000] if others else [])]


@pytest.mark.parametrize("batches", ["one batch", "cut between d and c"])
def test_a_changed_key_takes_its_unchanged_column_along(
    sink: PostgresStore, replica: Connection, batches: str
) -> None:
    apply(sink, [event("c", 1, (1, "a", "n", "big"))])
    pair = [
        event("d", 1, other=2),
        event("c", 2, (2, "a", "m", PLACEHOLDER), unchanged=["big"], other=1),
    ]
    apply(sink, *([pair] if batches == "one batch" else [pair[:1], pair[1:]]))
    assert rows(replica) == [(2, "a", "m", "big")]


def test_two_rows_swap_their_keys(sink: PostgresStore, replica: Connection) -> None:
    apply(sink, [event("c", key, (key, None, None, f"big {key}")) for key in (1, 2)])

    def move(old: int, new: int) -> list[Delivered]:
        after = (new, None, None, PLACEHOLDER)
        return [event("d", old, other=new), event("c", new, after, unchanged=["big"], other=old)]

    apply(sink, [*move(1, -1), *move(2, 1), *move(-1, 2)])
    assert rows(replica) == [(1, None, None, "big 2"), (2, None, None, "big 1")]


@FEW_OR_MANY
def test_two_rows_trade_a_unique_value(
    sink: PostgresStore, replica: Connection, others: int
) -> None:
    replica.execute("CREATE SCHEMA shop")
    replica.execute(
        "CREATE TABLE shop.items (id bigint PRIMARY KEY, code text UNIQUE, note text, big text, own int DEFAULT 5)"
    )
    apply(sink, [event("c", key, (key, f"code {key}", None, f"b{key}")) for key in (1, 2)])
    replica.execute("UPDATE shop.items SET own = id * 10")
    apply(
        sink,
        [
            event("u", 1, (1, None, None, PLACEHOLDER), unchanged=["big"]),
            event("u", 2, (2, "code 1", None, "new")),
            event("u", 1, (1, "code 2", None, PLACEHOLDER), unchanged=["big"]),
            *many(others),
        ],
    )
    assert rows(replica)[:2] == [(1, "code 2", None, "b1", 10), (2, "code 1", None, "new", 20)]
    assert len(rows(replica)) == 2 + others


@pytest.mark.parametrize("constraint", ["", ", UNIQUE (code)"], ids=["plain", "unique"])
def test_rows_that_are_there_after_all_are_overwritten(
    sink: PostgresStore, replica: Connection, constraint: str
) -> None:
    replica.execute("CREATE SCHEMA shop")
    replica.execute(
        f"CREATE TABLE shop.items (id bigint PRIMARY KEY, code text, note text, big text{constraint})".encode()
    )
    replica.execute("INSERT INTO shop.items VALUES (1010, 'old', 'old', 'old')")
    for _ in range(3):
        apply(sink, many(100))
    assert rows(replica) == [(key, None, "n", None) for key in range(1000, 1100)]


def test_a_truncate_stands_between_what_came_before_and_after(
    sink: PostgresStore, replica: Connection
) -> None:
    apply(sink, [event("c", 1, (1, None, None, None))])
    apply(
        sink,
        [
            event("c", 2, (2, None, None, None)),
            event("t", None),
            event("c", 3, (3, None, None, None)),
            event("c", 1, (1, "again", None, None)),
        ],
    )
    assert rows(replica) == [(1, "again", None, None), (3, None, None, None)]


def test_a_table_that_others_refer_to_is_emptied(sink: PostgresStore, replica: Connection) -> None:
    apply(sink, [event("c", 1, (1, None, None, None))])
    replica.execute("CREATE TABLE refers (id bigint REFERENCES shop.items)")
    apply(sink, [event("t", None)])
    assert rows(replica) == []


def test_several_batches_of_one_transaction_appear_at_once(
    sink: PostgresStore, replica: Connection
) -> None:
    apply(sink, many(1))
    transaction = sink.begin()
    transaction.apply(many(100, 2000))
    transaction.apply(many(100, 3000))
    transaction.apply([event("d", key) for key in range(2000, 2050)])
    assert len(rows(replica)) == 1
    transaction.save(at(900))
    transaction.commit()
    assert len(rows(replica)) == 151


def test_a_rollback_leaves_nothing_and_the_next_transaction_works(
    sink: PostgresStore, replica: Connection
) -> None:
    transaction = sink.begin()
    transaction.apply(many(100))
    transaction.rollback()
    assert replica.execute("SELECT to_regclass('shop.items')").fetchone() == (None,)
    apply(sink, many(100))
    assert len(rows(replica)) == 100


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("unique", [False, True], ids=["plain", "unique"])
def test_any_valid_history_in_any_batches_equals_the_same_sql(
    sink: PostgresStore, replica: Connection, seed: int, unique: bool
) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    columns = "(id bigint PRIMARY KEY, code text UNIQUE, note text, big text)"
    replica.execute(f"CREATE SCHEMA direct; CREATE TABLE direct.items {columns}".encode())
    if unique:
        replica.execute(f"CREATE SCHEMA shop; CREATE TABLE shop.items {columns}".encode())
    history = ItemHistory(rng)
    apply(sink, many(1), [event("t", None)])
    go_live(sink)
    for number in range(12):
        events = [
            each
            for _ in range(rng.randrange(1, 6))
            for each in history.transaction(rng.choice((1, 3, 30, 150)))
        ]
        for statement, parameters in history.statements:
            replica.execute(statement.encode(), parameters)
        history.statements.clear()
        apply(sink, *split(rng, events))
        assert rows(replica) == rows(replica, "direct.items"), f"seed {seed}, step {number}"
    assert sink.missing_rows() == {}


# --- rows that are missing ----------------------------------------------------------------------------------


@FEW_OR_MANY
def test_missing_rows_of_live_tables_are_counted(
    sink: PostgresStore, replica: Connection, others: int
) -> None:
    gone = [
        event("u", 1, (1, None, None, None)),
        event("u", 2, (2, None, None, PLACEHOLDER), unchanged=["big"]),
        event("d", 3),
        event("c", 4, (4, None, None, None)),
        event("u", 4, (4, "x", None, None)),
        event("d", 5, xid=0),
        event("r", 6, (6, None, None, None), xid=0),
        event("u", 9, (9, "there", None, None)),
    ]
    apply(sink, [event("c", 9, (9, None, None, None))])
    apply(sink, [*gone, *many(others)])
    assert sink.missing_rows() == {}
    replica.execute("DELETE FROM shop.items WHERE id <> 9")
    go_live(sink)
    apply(sink, [*gone, *many(others)])
    assert sink.missing_rows() == {COLLECTION: 3}


def test_rows_missing_in_a_rolled_back_transaction_are_not_counted(sink: PostgresStore) -> None:
    go_live(sink)
    transaction = sink.begin()
    transaction.apply([event("d", 3)])
    transaction.rollback()
    assert sink.missing_rows() == {}


# --- tables -------------------------------------------------------------------------------------------------

WIDER = Table(ITEMS.id, (*ITEMS.columns, Column("more", "long", nullable=False)), ("id",))


def test_a_table_is_made_with_the_types_and_key_of_the_source(
    sink: PostgresStore, replica: Connection
) -> None:
    apply(sink, many(1))
    made = replica.execute(
        "SELECT attname::text, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute"
        " WHERE attrelid = 'shop.items'::regclass AND attnum > 0 ORDER BY attnum"
    ).fetchall()
    assert made == [
        ("id", "bigint", True),
        ("code", "text", False),
        ("note", "text", False),
        ("big", "text", False),
    ]


def test_a_table_dropped_behind_the_sinks_back_is_made_anew_and_known_to_lack_rows(
    sink: PostgresStore, replica: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    apply(sink, many(100))
    go_live(sink)
    replica.execute("DROP TABLE shop.items")
    transaction = sink.begin()
    with pytest.raises(Unreachable, match="changed under the sink"):
        transaction.apply(many(1, 1))
    transaction.rollback()
    sink.claim("sink", "p")
    apply(sink, many(1, 1))
    assert rows(replica) == [(1, None, "n", None)]
    assert "cdc table backfill FILE --table shop.items" in caplog.text
    assert claimed_states(sink) == {COLLECTION: "stale"}
    go_live(sink)
    assert claimed_states(sink) == {COLLECTION: "live"}


def claimed_states(sink: PostgresStore) -> object:
    return sink.claim("sink", "p").tables


def test_a_new_column_is_added(sink: PostgresStore, replica: Connection) -> None:
    apply(sink, many(1))
    wider = event("c", 1, (1, None, None, None), table=WIDER)
    apply(sink, [*many(1, 1), wider._replace(after=(wider.after or b"") + b"\x0e")])
    assert rows(replica) == [(1, None, None, None, 7), (1000, None, "n", None, None)]


def test_without_evolution_the_statement_to_run_is_said(replica_dsn: str) -> None:
    strict = store(replica_dsn, schema_evolution="none")
    strict.claim("sink", "p")
    with pytest.raises(Failed, match=r'CREATE TABLE "shop"\."items"'):
        strict.begin().apply(many(1))
    strict.close()


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ("id text PRIMARY KEY, code text, note text, big text", 'ALTER COLUMN "id" TYPE bigint'),
        ("id bigint, code text, note text, big text", 'ADD PRIMARY KEY \\("id"\\)'),
        ("id bigint UNIQUE DEFERRABLE, code text, note text, big text", "ADD PRIMARY KEY"),
        (
            "id bigint PRIMARY KEY, code text, note text, big text, own int NOT NULL",
            'ALTER COLUMN "own" DROP NOT NULL',
        ),
    ],
)
def test_a_table_that_does_not_fit_stops_with_the_statement_to_run(
    sink: PostgresStore, replica: Connection, columns: str, match: str
) -> None:
    replica.execute(f"CREATE SCHEMA shop; CREATE TABLE shop.items ({columns})".encode())
    own = ", own" if "own" in columns else ""
    replica.execute(f"INSERT INTO shop.items (id{own}) VALUES (1{', 1' if own else ''})".encode())
    with pytest.raises(Failed, match=match):
        sink.begin().apply(many(1))


def test_not_null_is_dropped_where_the_source_may_hold_null(
    sink: PostgresStore, replica: Connection
) -> None:
    replica.execute("CREATE SCHEMA shop")
    replica.execute(
        "CREATE TABLE shop.items (id bigint PRIMARY KEY, code text NOT NULL, note text)"
    )
    apply(sink, many(1))
    assert rows(replica) == [(1000, None, "n", None)]


def test_odd_names_and_a_key_of_several_columns_in_another_order(
    sink: PostgresStore, replica: Connection
) -> None:
    odd = Table(
        TableId('a "%s" b', "t%t.x"),
        (
            Column('v"%', "long", nullable=True),
            Column("k%b", "long", nullable=False),
            Column("k a", "long", nullable=False),
        ),
        ("k a", "k%b"),
    )

    two = long_bytes(2)

    def change(op: str, key: bytes, after: bytes | None) -> Delivered:
        return event("c", 1, table=odd, collection="odd")._replace(op=op, key=key, after=after)  # type: ignore[arg-type]

    for extra in (0, 100):
        apply(
            sink,
            [
                change("c", b"\x02\x04", b"\x02\x08\x04\x02"),
                change("c", b"\x02\x06", b"\x00\x06\x02"),
                *(
                    change("c", two + long_bytes(n), b"\x00" + long_bytes(n) + two)
                    for n in range(10, 10 + extra)
                ),
            ],
        )
        apply(sink, [change("d", b"\x02\x06", None)])
        assert set(rows(replica, '"a ""%s"" b"."t%t.x"')) == {
            (4, 2, 1),
            *((None, n, 2) for n in range(10, 10 + extra)),
        }


def test_what_the_replica_cannot_hold_is_rejected(sink: PostgresStore, replica: Connection) -> None:
    replica.execute("CREATE SCHEMA shop")
    replica.execute(
        "CREATE TABLE shop.items (id bigint PRIMARY KEY, code text CHECK (code <> 'bad'), note text, big text)"
    )
    transaction = sink.begin()
    with pytest.raises(Rejected, match=r"shop\.items"):
        transaction.apply([event("c", 1, (1, "bad", None, None))])
    with pytest.raises(Failed):
        transaction.commit()
    transaction.rollback()
    transaction = sink.begin()
    with pytest.raises(Rejected):
        transaction.apply([event("c", 1, (1, None, None, None))._replace(after=b"\x02")])
    transaction.rollback()
    apply(sink, many(1))


def test_deletes_and_truncates_can_be_turned_off(replica_dsn: str, replica: Connection) -> None:
    keeps = store(replica_dsn, delete_enabled=False, truncate_enabled=False)
    keeps.claim("sink", "p")
    apply(keeps, [event("c", 1, (1, None, None, "b"))])
    apply(
        keeps,
        [
            event("d", 1),
            event("t", None),
            event("d", 1, other=2),
            event("c", 2, (2, None, None, PLACEHOLDER), unchanged=["big"], other=1),
        ],
    )
    assert rows(replica) == [(2, None, None, "b")]
    keeps.close()


# --- checkpoint and ownership -------------------------------------------------------------------------------


def test_a_restart_finds_the_checkpoint(replica_dsn: str) -> None:
    first = store(replica_dsn)
    assert first.claim("sink", "p") == SinkCheckpoint("p", None)
    one, two = TopicPartition("p.shop.items", 0), TopicPartition("p.shop.items", 1)
    transaction = first.begin()
    transaction.apply(many(100))
    transaction.save(
        SinkCheckpoint("p", Position(1, 8, 3), "cluster", {one: Resume(5, "id", 2), two: Resume(1)})
    )
    transaction.commit()
    transaction = first.begin()
    transaction.save(
        SinkCheckpoint(
            "p",
            Position(2, 16, 4),
            "cluster",
            {one: Resume(9, "id", 3)},
            {"a.b": "live"},
            {"c.d": 7},
        )
    )
    transaction.commit()
    first.close()
    second = store(replica_dsn)
    assert second.claim("sink", "p") == SinkCheckpoint(
        "p",
        Position(2, 16, 4),
        "cluster",
        {one: Resume(9, "id", 3), two: Resume(1)},
        {"a.b": "live"},
        {"c.d": 7},
    )
    assert second.claim("other", "p") == SinkCheckpoint("p", None)
    second.close()


def test_sinks_that_start_at_once_make_the_schema_once(replica_dsn: str) -> None:
    failures: list[BaseException] = []

    def start(number: int) -> None:
        made = store(replica_dsn)
        try:
            made.claim(f"sink {number}", "p")
        except BaseException as error:  # noqa: BLE001 - reported by the test
            failures.append(error)
        made.close()

    threads = [threading.Thread(target=start, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize("stopped_at", ["applied", "saved"])
def test_an_owner_stopped_in_mid_transaction_is_replaced_at_once_and_takes_no_effect(
    replica_dsn: str, replica: Connection, stopped_at: str
) -> None:
    zombie, owner = store(replica_dsn), store(replica_dsn)
    zombie.claim("sink", "p")
    apply(zombie, [event("c", 1, (1, "zombie", None, None))], lsn=800)
    held = zombie.begin()
    held.apply([event("u", 1, (1, "never", None, None)), *many(100)])
    if stopped_at == "saved":
        held.save(at(1600))
    begun = time.monotonic()
    assert owner.claim("sink", "p").position == Position(1, 800, 1)
    assert time.monotonic() - begun < 3
    apply(owner, [event("u", 1, (1, "owner", None, None))], lsn=1600)
    with pytest.raises(Fenced):
        held.commit()
    held.rollback()
    with pytest.raises(Unreachable):
        zombie.begin()
    with pytest.raises(Fenced):
        zombie.claim("sink", "p")
    assert rows(replica) == [(1, "owner", None, None)]
    zombie.close()
    owner.close()
    assert claimed(replica_dsn).position == Position(1, 1600, 1)


@pytest.mark.parametrize("saves", [True, False])
def test_an_epoch_raised_behind_its_back_fences_a_commit(
    sink: PostgresStore, replica: Connection, saves: bool
) -> None:
    apply(sink, many(1))
    transaction = sink.begin()
    transaction.apply(many(1, 5000))
    replica.execute("UPDATE cdc.checkpoints SET epoch = epoch + 1")
    with pytest.raises(Fenced):
        (transaction.save(at(900)) if saves else transaction.commit())
    transaction.rollback()
    assert len(rows(replica)) == 1


def test_a_claim_waits_for_a_commit_that_is_on_its_way(
    replica_dsn: str, sink: PostgresStore
) -> None:
    transaction = sink.begin()
    transaction.apply(many(1))
    transaction.save(at(4000))
    transaction.commit()
    assert claimed(replica_dsn).position == Position(1, 4000, 1)


def test_a_session_that_was_cut_is_unreachable_and_a_new_claim_goes_on(
    sink: PostgresStore, replica: Connection
) -> None:
    apply(sink, many(1))
    transaction = sink.begin()
    transaction.apply(many(1, 5000))
    transaction.save(at(900))
    replica.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cdc/tests/apply'"
    )
    with pytest.raises(Unreachable):
        transaction.commit()
    transaction.rollback()
    assert sink.claim("sink", "p").position == Position(1, 800, 1)
    apply(sink, many(1, 5000))
    assert len(rows(replica)) == 2


def test_triggers_of_the_replica_do_not_run(sink: PostgresStore, replica: Connection) -> None:
    apply(sink, many(1))
    replica.execute("CREATE TABLE parent (id text PRIMARY KEY)")
    replica.execute("ALTER TABLE shop.items ADD FOREIGN KEY (code) REFERENCES parent")
    apply(sink, [event("c", 1, (1, "no parent", None, None))])
    assert len(rows(replica)) == 2


def test_a_role_without_privileges_beyond_its_tables_is_enough(
    replica_dsn: str, replica: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    role = f"plain_{replica.info.dbname}"
    replica.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'".encode())
    replica.execute(f"GRANT CREATE ON DATABASE {replica.info.dbname} TO {role}".encode())
    plain = {"connection_username": role, "connection_password": "x"}
    try:
        zombie, owner = store(replica_dsn, **plain), store(replica_dsn, **plain)
        zombie.claim("sink", "p")
        held = zombie.begin()
        held.apply(many(100))
        held.save(at(100))
        assert owner.claim("sink", "p").position is None
        apply(owner, many(100))
        with pytest.raises(Fenced):
            held.commit()
        assert "session_replication_role" in caplog.text
        owner.close()
        zombie.close()
    finally:
        replica.execute(f"DROP OWNED BY {role} CASCADE".encode())
        replica.execute(f"DROP ROLE {role}".encode())
