"""Every kind of statement on a real server: what the log brings of it, in which order, under which numbers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from cdc.errors import ConfigError
from cdc.event import Begin, Change, Commit, Item, Message, Truncate
from connectors.postgres.source import PostgresSource, open_source
from tests.integration.postgres_source import changes, read_to_now, source_config

Connection = psycopg.Connection[Any]

FOREIGN = (
    "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
    "CREATE FOREIGN TABLE odd (id int) SERVER s"
)


@pytest.fixture
def writer(source_dsn: str) -> Iterator[Connection]:
    with psycopg.connect(source_dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, a text)")
        yield connection


@pytest.fixture
def streaming(source_dsn: str, writer: Connection) -> Iterator[Any]:
    """Opens sources that stream from their slot's beginning; drops their slots at the end."""
    opened: list[PostgresSource] = []

    def stream(**given: Any) -> PostgresSource:
        source = open_source(source_config(source_dsn, **given))
        opened.append(source)
        source.prepare()
        source.start(source.create_slot(), {})
        return source

    yield stream
    for source in opened:
        source.drop_slot()
        source.close()


def said(items: list[Item]) -> list[tuple[str, str, int]]:
    """Changes and truncates as (op, table, number)."""
    return [
        (item.op, item.table.id.name, item.total_order)
        if isinstance(item, Change)
        else ("t", item.table.id.name, item.total_order)
        for item in items
        if isinstance(item, Change | Truncate)
    ]


def commits(items: list[Item]) -> list[Commit]:
    return [item for item in items if isinstance(item, Commit)]


def test_many_rows_of_one_statement_have_one_lsn_and_numbers_of_their_own(
    streaming: Any, writer: Connection
) -> None:
    source = streaming()
    with writer.cursor().copy("COPY t FROM STDIN") as copy:
        for number in range(300):
            copy.write_row((number, "x"))
    writer.execute("INSERT INTO t SELECT n, 'y' FROM generate_series(1000, 1299) n")
    items = read_to_now(source)
    copied, inserted = changes(items)[:300], changes(items)[300:]
    assert [change.total_order for change in copied] == list(range(1, 301))
    assert [change.total_order for change in inserted] == list(range(1, 301))
    assert len({change.lsn for change in copied}) < 300, "COPY writes several rows at one LSN"
    assert len(commits(items)) == 2


def test_keys_that_are_swapped_in_a_transaction(streaming: Any, writer: Connection) -> None:
    source = streaming()
    writer.execute("INSERT INTO t VALUES (1, 'one'), (2, 'two')")
    with writer.transaction():
        writer.execute("UPDATE t SET id = 0 WHERE id = 1")
        writer.execute("UPDATE t SET id = 1 WHERE id = 2")
        writer.execute("UPDATE t SET id = 2 WHERE id = 0")
    swapped = changes(read_to_now(source))[2:]
    assert [(c.op, c.key, c.total_order) for c in swapped] == [
        ("d", b"\x02", 1),
        ("c", b"\x00", 2),
        ("d", b"\x04", 3),
        ("c", b"\x02", 4),
        ("d", b"\x00", 5),
        ("c", b"\x04", 6),
    ]


def test_savepoints_give_what_was_not_rolled_back_in_one_transaction(
    streaming: Any, writer: Connection
) -> None:
    source = streaming()
    with writer.transaction():
        writer.execute("INSERT INTO t VALUES (1, 'kept')")
        writer.execute("SAVEPOINT one")
        writer.execute("INSERT INTO t VALUES (2, 'undone')")
        writer.execute("ROLLBACK TO one")
        writer.execute("SAVEPOINT two")
        writer.execute("INSERT INTO t VALUES (3, 'kept')")
        writer.execute("RELEASE two")
        for number in range(10, 80):  # more subtransactions than a backend's cache holds
            writer.execute("SAVEPOINT s")
            writer.execute("INSERT INTO t VALUES (%s, 'many')", (number,))
            if number % 2:
                writer.execute("ROLLBACK TO s")
            else:
                writer.execute("RELEASE s")
    items = read_to_now(source)
    assert len([item for item in items if isinstance(item, Begin)]) == 1
    kept = [1, 3, *range(10, 80, 2)]
    assert [c.key for c in changes(items)] == [
        bytes([2 * number]) if number < 64 else bytes([(2 * number) & 127 | 128, 1])
        for number in kept
    ]
    assert [c.total_order for c in changes(items)] == list(range(1, len(kept) + 1))


def test_truncate_cascades_over_published_tables_and_takes_a_number_each(
    streaming: Any, writer: Connection
) -> None:
    writer.execute("CREATE TABLE child (id int PRIMARY KEY, t int REFERENCES t)")
    writer.execute("CREATE TABLE counted (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY)")
    source = streaming()
    with writer.transaction():
        writer.execute("INSERT INTO t VALUES (1, 'x')")
        writer.execute("TRUNCATE t CASCADE")
        writer.execute("INSERT INTO t VALUES (2, 'x')")
        writer.execute("TRUNCATE counted RESTART IDENTITY")
    found = said(read_to_now(source))
    assert found[0] == ("c", "t", 1)
    assert sorted(found[1:3]) in (
        [("t", "child", 2), ("t", "t", 3)],
        [("t", "child", 3), ("t", "t", 2)],
    )
    assert found[3:] == [("c", "t", 4), ("t", "counted", 5)]


def test_a_prepared_transaction_comes_whole_at_its_commit(
    streaming: Any, writer: Connection, source_dsn: str
) -> None:
    source = streaming()
    gid = f"gid_{writer.info.dbname}"
    writer.execute("BEGIN")
    writer.execute("INSERT INTO t VALUES (1, 'prepared')")
    writer.execute(f"PREPARE TRANSACTION '{gid}'")
    writer.execute("INSERT INTO t VALUES (2, 'between')")
    before = read_to_now(source)
    assert [change.key for change in changes(before)] == [b"\x04"]
    source.confirm(commits(before)[-1].end_lsn)
    source.start(commits(before)[-1].end_lsn, {})  # a restart while it is open
    writer.execute(f"COMMIT PREPARED '{gid}'")
    after = read_to_now(source)
    assert [change.key for change in changes(after)] == [b"\x02"]
    assert commits(after)[0].commit_lsn > commits(before)[-1].commit_lsn


def test_a_prepared_transaction_that_is_rolled_back_never_comes(
    streaming: Any, writer: Connection
) -> None:
    source = streaming()
    gid = f"gid_{writer.info.dbname}"
    writer.execute("BEGIN")
    writer.execute("INSERT INTO t VALUES (1, 'prepared')")
    writer.execute(f"PREPARE TRANSACTION '{gid}'")
    writer.execute(f"ROLLBACK PREPARED '{gid}'")
    assert changes(read_to_now(source)) == []


def test_a_copy_waits_for_a_prepared_transaction_and_names_it(
    streaming: Any, writer: Connection
) -> None:
    source = streaming()
    writer.execute("CREATE TABLE later (id int PRIMARY KEY)")
    gid = f"gid_{writer.info.dbname}"
    writer.execute("BEGIN")
    writer.execute("INSERT INTO later VALUES (1)")
    writer.execute(f"PREPARE TRANSACTION '{gid}'")
    try:
        assert source.prepare()
        floor = source.snapshot().xmax
        assert source.snapshot().xmin < floor
        assert f"prepared transaction {gid}" in source.waiting_for(floor)
    finally:
        writer.execute(f"ROLLBACK PREPARED '{gid}'")
    assert source.snapshot().xmin >= floor


def test_messages_are_chosen_by_their_prefix_and_keep_their_numbers(
    streaming: Any, writer: Connection
) -> None:
    source = streaming(message_prefix_include_list="app,audit.*")
    with writer.transaction():
        writer.execute("SELECT pg_logical_emit_message(true, 'app', 'one')")
        writer.execute("SELECT pg_logical_emit_message(true, 'noise', 'two')")
        writer.execute("INSERT INTO t VALUES (1, 'x')")
        writer.execute("SELECT pg_logical_emit_message(true, 'audit.login', 'three')")
    writer.execute("SELECT pg_logical_emit_message(false, 'noise', 'four')")
    writer.execute("SELECT pg_logical_emit_message(false, 'cdc.signal', 'ours always')")
    items = [item for item in source_items(source) if isinstance(item, Message | Change)]
    assert [
        (item.prefix if isinstance(item, Message) else item.op, item.total_order) for item in items
    ] == [("app", 1), ("c", 3), ("audit.login", 4), ("cdc.signal", 0)]


def source_items(source: PostgresSource) -> list[Item]:
    """What came until the log is silent for half a second: filters hide the mark that other tests read up to."""
    items: list[Item] = []
    quiet = time.monotonic()
    while time.monotonic() - quiet < 1.0:
        came = [item for item in source.read(0.1) if isinstance(item, Message | Change | Commit)]
        if came:
            items += came
            quiet = time.monotonic()
    return items


def test_messages_that_are_excluded_do_not_come(streaming: Any, writer: Connection) -> None:
    source = streaming(message_prefix_exclude_list="noise")
    writer.execute("SELECT pg_logical_emit_message(false, 'noise', 'x')")
    writer.execute("SELECT pg_logical_emit_message(false, 'app', 'y')")
    found = [item for item in source_items(source) if isinstance(item, Message)]
    assert [item.prefix for item in found] == ["app"]


def test_both_lists_of_message_prefixes_are_refused(source_dsn: str) -> None:
    with pytest.raises(ConfigError, match=r"message\.prefix\.include\.list"):
        open_source(
            source_config(
                source_dsn, message_prefix_include_list="a", message_prefix_exclude_list="b"
            )
        )


@pytest.mark.parametrize(
    ("identity", "before", "whole"),
    [("DEFAULT", False, False), ("FULL", True, True), ("USING INDEX t_code", False, False)],
)
def test_replica_identities(
    streaming: Any, writer: Connection, identity: str, before: bool, whole: bool
) -> None:
    writer.execute("ALTER TABLE t ADD code int NOT NULL")
    writer.execute("CREATE UNIQUE INDEX t_code ON t (code)")
    writer.execute(f"ALTER TABLE t REPLICA IDENTITY {identity}")
    source = streaming()
    writer.execute("INSERT INTO t VALUES (1, 'x', 7)")
    writer.execute("UPDATE t SET a = 'y'")
    writer.execute("DELETE FROM t")
    created, updated, deleted = changes(read_to_now(source))
    key = b"\x0e" if "INDEX" in identity else b"\x02"
    assert [change.key for change in (created, updated, deleted)] == [key] * 3
    assert (updated.before is not None) == before
    assert deleted.before is not None
    if whole:
        assert updated.before == created.after


def test_a_table_without_a_key_comes_with_null_keys_where_no_copy_is_wanted(
    streaming: Any, writer: Connection
) -> None:
    writer.execute("CREATE TABLE keyless (a int, b text)")
    writer.execute("ALTER TABLE keyless REPLICA IDENTITY FULL")
    source = streaming(table_include_list="public.keyless", snapshot_mode="no_data")
    writer.execute("INSERT INTO keyless VALUES (1, 'x'), (1, 'x')")
    writer.execute("UPDATE keyless SET b = 'y'")
    writer.execute("DELETE FROM keyless")
    found = changes(read_to_now(source))
    assert [change.op for change in found] == ["c", "c", "u", "u", "d", "d"]
    assert {change.key for change in found} == {None}
    assert found[2].before == found[0].after
    assert found[4].before == found[2].after


def test_without_an_identity_postgresql_itself_refuses_updates(
    streaming: Any, writer: Connection
) -> None:
    """Why REPLICA IDENTITY NOTHING is refused before the table is published."""
    streaming()
    writer.execute("INSERT INTO t VALUES (1, 'x')")
    writer.execute("ALTER TABLE t REPLICA IDENTITY NOTHING")
    with pytest.raises(psycopg.Error, match="does not have a replica identity"):
        writer.execute("UPDATE t SET a = 'y'")


@pytest.fixture
def parted(writer: Connection) -> Connection:
    writer.execute("CREATE TABLE p (id int PRIMARY KEY, a text) PARTITION BY RANGE (id)")
    writer.execute("CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)")
    writer.execute("CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20)")
    return writer


def test_partitions_are_tables_of_their_own(streaming: Any, parted: Connection) -> None:
    source = streaming()
    parted.execute("INSERT INTO p VALUES (1, 'x'), (11, 'x')")
    parted.execute("UPDATE p SET id = 12 WHERE id = 1")  # moves to the other partition
    parted.execute("TRUNCATE p2")
    parted.execute("TRUNCATE p")
    assert said(read_to_now(source)) == [
        ("c", "p1", 1),
        ("c", "p2", 2),
        ("d", "p1", 1),
        ("c", "p2", 2),
        ("t", "p2", 1),
        ("t", "p1", 1),
        ("t", "p2", 2),
    ]


def test_partitions_are_one_table_through_their_root(streaming: Any, parted: Connection) -> None:
    source = streaming(publish_via_partition_root="true")
    parted.execute("INSERT INTO p VALUES (1, 'x'), (11, 'x')")
    parted.execute("UPDATE p SET id = 12 WHERE id = 1")
    parted.execute("TRUNCATE p")
    assert said(read_to_now(source)) == [
        ("c", "p", 1),
        ("c", "p", 2),
        ("d", "p", 1),
        ("c", "p", 2),
        ("t", "p", 1),
    ]


def test_generated_columns_come_where_the_publication_says_so(
    streaming: Any, writer: Connection
) -> None:
    writer.execute(
        "CREATE TABLE g (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED,"
        " thrice int GENERATED ALWAYS AS (id * 3) VIRTUAL)"
    )
    writer.execute(
        "CREATE PUBLICATION cdc_publication FOR TABLE g WITH (publish_generated_columns = stored)"
    )
    source = streaming(table_include_list="public.g")
    writer.execute("INSERT INTO g VALUES (4)")
    (created,) = changes(read_to_now(source))
    assert [column.name for column in created.table.columns] == ["id", "twice"]
    assert [table.columns for table in source.tables()] == [created.table.columns]
    assert created.after == b"\x08\x02\x10"


def test_a_hand_made_publications_columns_and_rows_are_what_comes(
    streaming: Any, writer: Connection
) -> None:
    writer.execute("CREATE TABLE f (id int PRIMARY KEY, a text, secret text)")
    writer.execute("CREATE PUBLICATION cdc_publication FOR TABLE f (id, a) WHERE (id > 10)")
    source = streaming(table_include_list="public.f")
    writer.execute("INSERT INTO f VALUES (1, 'x', 's'), (11, 'y', 's')")
    writer.execute("UPDATE f SET id = 12 WHERE id = 1")  # enters the published rows
    writer.execute("UPDATE f SET id = 2 WHERE id = 11")  # leaves them
    found = changes(read_to_now(source))
    assert [(c.op, c.key) for c in found] == [("c", b"\x16"), ("c", b"\x18"), ("d", b"\x16")]
    assert [column.name for column in found[0].table.columns] == ["id", "a"]


def test_inheritance_children_are_tables_of_their_own(streaming: Any, writer: Connection) -> None:
    writer.execute("CREATE TABLE heir (extra int, PRIMARY KEY (id)) INHERITS (t)")
    source = streaming()
    writer.execute("INSERT INTO heir VALUES (1, 'x', 5)")
    writer.execute("UPDATE t SET a = 'y'")  # through the parent
    assert said(read_to_now(source)) == [("c", "heir", 1), ("u", "heir", 1)]


@pytest.mark.parametrize(
    ("ddl", "kind"),
    [
        ("CREATE UNLOGGED TABLE odd (id int PRIMARY KEY)", "is not logged"),
        ("CREATE VIEW odd AS SELECT 1 AS id", "is a view"),
        ("CREATE MATERIALIZED VIEW odd AS SELECT 1 AS id", "is a materialized view"),
        (
            FOREIGN,
            "is a foreign table",
        ),
    ],
)
def test_what_has_no_log_is_refused_when_it_is_asked_for_by_name(
    source_dsn: str, writer: Connection, ddl: str, kind: str
) -> None:
    for statement in ddl.split(";"):
        writer.execute(statement)
    opened = open_source(source_config(source_dsn, table_include_list="public.t,public.odd"))
    with pytest.raises(ConfigError, match=rf"public\.odd {kind}") as refused:
        opened.prepare()
    assert refused.value.remedy
    opened.close()


def test_odd_identifiers(streaming: Any, writer: Connection) -> None:
    writer.execute('CREATE SCHEMA "My Schema"')
    writer.execute('CREATE TABLE "My Schema"."a ""b"".c" ("the key" int PRIMARY KEY, "sélect" int)')
    source = streaming(schema_include_list="My Schema")
    writer.execute('INSERT INTO "My Schema"."a ""b"".c" VALUES (1, 2)')
    (created,) = changes(read_to_now(source))
    assert (created.table.id.schema, created.table.id.name) == ("My Schema", 'a "b".c')
    assert [column.name for column in created.table.columns] == ["the key", "sélect"]
