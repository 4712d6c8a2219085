"""Fenced reads on a real server: the fence stands behind the rows and before any change of the table's shape."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc.errors import CdcError, Gone, Unreachable
from cdc.event import Begin, Item, Message
from cdc.fence import FENCE_PREFIX, Fence
from cdc.position import TransactionId
from cdc.table import KeyRange, TableId
from connectors.postgres import CONNECTOR
from connectors.postgres.backfill import PostgresFencedReader, open_reader
from connectors.postgres.source import PostgresSource, open_source
from tests.integration.postgres_source import changes, read_to_now, source_config

Connection = psycopg.Connection[Any]
T = TableId("public", "t")


@pytest.fixture
def writer(source_dsn: str) -> Iterator[Connection]:
    with psycopg.connect(source_dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, a text)")
        yield connection


@pytest.fixture
def source(source_dsn: str, writer: Connection) -> Iterator[PostgresSource]:
    opened = open_source(source_config(source_dsn))
    opened.prepare()
    opened.start(opened.create_slot(), {})
    yield opened
    opened.drop_slot()
    opened.close()


@pytest.fixture
def reader(source_dsn: str) -> Iterator[PostgresFencedReader]:
    opened = open_reader(source_config(source_dsn))
    yield opened
    opened.close()


def _fences(items: list[Item]) -> list[tuple[int, Fence]]:
    return [
        (item.lsn, Fence.from_message(item.content))
        for item in items
        if isinstance(item, Message) and item.prefix == FENCE_PREFIX
    ]


def _read_all(
    reader: PostgresFencedReader, table: TableId, limit: int
) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    after: bytes | None = None
    while True:
        with reader.read_range(table, KeyRange(after), limit, "f") as rows:
            found += rows.rows
        if rows.last is None:
            return found
        after = rows.last


def test_the_plug_in_opens_a_reader(source_dsn: str, source: PostgresSource) -> None:
    assert CONNECTOR.open_reader is not None
    opened = CONNECTOR.open_reader(source_config(source_dsn))
    with opened.read_range(T, KeyRange(), 10, "f") as rows:
        assert rows.rows == []
    opened.close()


def test_rows_are_the_same_bytes_as_the_logs(
    source: PostgresSource, reader: PostgresFencedReader, writer: Connection
) -> None:
    writer.execute("INSERT INTO t VALUES (1, 'x'), (2, NULL), (3, '')")
    with reader.read_range(T, KeyRange(), 10, "f1") as rows:
        pass
    logged = changes(read_to_now(source))
    assert rows.rows == [(change.key, change.after) for change in logged]
    assert rows.table.same_shape(logged[0].table)


def test_the_fence_comes_behind_the_read_and_carries_its_snapshot(
    source_dsn: str, source: PostgresSource, reader: PostgresFencedReader, writer: Connection
) -> None:
    writer.execute("INSERT INTO t VALUES (1, 'seen')")
    with psycopg.connect(source_dsn) as running:
        running.execute("INSERT INTO t VALUES (2, 'not seen')")
        with reader.read_range(T, KeyRange(), 10, "f1") as rows:
            assert [key for key, _ in rows.rows] == [b"\x02"]
            writer.execute("INSERT INTO t VALUES (3, 'after the snapshot')")
    items = read_to_now(source)
    ((lsn, fence),) = _fences(items)
    assert (fence.id, fence.kind, fence.source, fence.table) == ("f1", "backfill", "shop", T)
    begins = [item for item in items if isinstance(item, Begin)]
    seen = [fence.snapshot.sees(fence.snapshot.lift(begin.xid)) for begin in begins]
    assert seen == [True, False, False]
    # All that it sees was committed below it.
    assert all(
        begin.commit_lsn < lsn for begin, visible in zip(begins, seen, strict=True) if visible
    )
    # The third commit can stand directly behind it.
    assert begins[1].commit_lsn < lsn <= begins[2].commit_lsn


def test_a_commit_directly_behind_the_fence_stays_apart_from_its_rows(
    source: PostgresSource, reader: PostgresFencedReader, writer: Connection
) -> None:
    """Correctness rule 1: H can equal the next commit's LSN; the rows' transaction id is just below."""
    writer.execute("BEGIN")
    writer.execute("INSERT INTO t VALUES (1, 'x')")
    with reader.read_range(T, KeyRange(), 10, "f1"):
        pass
    writer.execute("COMMIT")
    items = read_to_now(source)
    ((lsn, _),) = _fences(items)
    (begin,) = (item for item in items if isinstance(item, Begin))
    assert lsn <= begin.commit_lsn
    assert TransactionId.for_fence(lsn).commit_lsn < begin.commit_lsn


@pytest.mark.parametrize(
    "ddl",
    ["ALTER TABLE t ADD z int DEFAULT 5", "TRUNCATE t", "ALTER TABLE t ALTER a TYPE varchar(9)"],
)
def test_no_change_of_the_table_stands_between_snapshot_and_fence(
    source: PostgresSource,
    reader: PostgresFencedReader,
    writer: Connection,
    source_dsn: str,
    ddl: str,
) -> None:
    """Correctness rule 2."""
    writer.execute("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 100) g")
    done: list[int] = []

    def alter() -> None:
        with psycopg.connect(source_dsn, autocommit=True) as other:
            other.execute(ddl)
            row = other.execute("SELECT (pg_current_wal_lsn() - '0/0')::int8").fetchone()
            assert row is not None
            done.append(row[0])

    thread = threading.Thread(target=alter)
    with reader.read_range(T, KeyRange(), 1000, "f1") as rows:
        thread.start()
        _await_lock_wait(writer)
        assert not done
        assert len(rows.rows) == 100
    thread.join(10)
    ((lsn, _),) = _fences(read_to_now(source))
    assert done
    assert lsn < done[0]


def test_a_read_behind_a_waiting_rewrite_sees_the_table_that_it_left(
    source: PostgresSource, reader: PostgresFencedReader, writer: Connection, source_dsn: str
) -> None:
    """Correctness rule 2: a snapshot taken before the lock would find no rows at all."""
    writer.execute("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 1000) g")
    found: list[int] = []

    def read() -> None:
        with reader.read_range(T, KeyRange(), 10_000, "f1") as rows:
            found.append(len(rows.rows))

    thread = threading.Thread(target=read)
    with psycopg.connect(source_dsn) as altering:
        altering.execute("ALTER TABLE t ALTER id TYPE bigint")
        thread.start()
        _await_lock_wait(writer)
    thread.join(10)
    assert found == [1000]


def _await_lock_wait(watcher: Connection) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        row = watcher.execute(
            "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
            " WHERE NOT l.granted AND d.datname = current_database()"
        ).fetchone()
        if row and row[0]:
            return
        time.sleep(0.02)
    raise AssertionError("nobody waits for a lock")


def test_an_error_in_the_block_emits_no_fence_and_the_reader_goes_on(
    source: PostgresSource, reader: PostgresFencedReader, writer: Connection
) -> None:
    writer.execute("INSERT INTO t VALUES (1, 'x')")
    with pytest.raises(RuntimeError, match="stop"), reader.read_range(T, KeyRange(), 10, "f1"):
        raise RuntimeError("stop")
    with reader.read_range(T, KeyRange(), 10, "f2") as rows:
        assert len(rows.rows) == 1
    assert [fence.id for _, fence in _fences(read_to_now(source))] == ["f2"]


def test_ranges_follow_each_other_without_gap_or_repeat(
    source: PostgresSource, reader: PostgresFencedReader, writer: Connection
) -> None:
    writer.execute("INSERT INTO t SELECT g * 7 % 1009, 'x' FROM generate_series(1, 1000) g")
    found = _read_all(reader, T, 64)
    assert len(found) == len({key for key, _ in found}) == 1000
    assert found == _read_all(reader, T, 5000)


@pytest.mark.parametrize(
    ("columns", "key", "values"),
    [
        (
            "a text, b int, c text",
            "a, b",
            "SELECT chr(65 + g % 26) || '''\\ü', g, 'x' FROM generate_series(1, 200) g",
        ),
        ("a uuid, b text", "a", "SELECT gen_random_uuid(), g FROM generate_series(1, 100) g"),
        (
            "a timestamptz, b numeric(10,2)",
            "b, a",
            """SELECT now() + g * interval '1 ms', (g % 7)::numeric FROM generate_series(1, 100) g
               UNION ALL VALUES ('infinity'::timestamptz, 'NaN'::numeric), ('-infinity', 1)""",
        ),
        ("a float8", "a", "SELECT random() - 0.5 FROM generate_series(1, 100) UNION SELECT 'NaN'"),
        ("a bytea", "a", "SELECT decode(md5(g::text), 'hex') FROM generate_series(1, 100) g"),
        (
            '"A b" char(8), c date',
            '"A b", c',
            "SELECT g, current_date FROM generate_series(1, 100) g",
        ),
        ("a inet", "a", "SELECT '10.0.0.0'::inet + g FROM generate_series(1, 100) g"),
    ],
)
def test_keys_of_any_type_order_ranges_and_are_found_again(
    source_dsn: str,
    writer: Connection,
    reader: PostgresFencedReader,
    columns: str,
    key: str,
    values: str,
) -> None:
    writer.execute(f"CREATE TABLE k ({columns}, PRIMARY KEY ({key}))")
    writer.execute(f"INSERT INTO k {values}")
    opened = open_source(source_config(source_dsn))
    opened.prepare()
    opened.close()
    table = TableId("public", "k")
    found = _read_all(reader, table, 9)
    row = writer.execute("SELECT count(*) FROM k").fetchone()
    assert row is not None
    assert len(found) == len({key for key, _ in found}) == row[0]
    wanted = [key for key, _ in found[::3]]
    with reader.read_keys(table, wanted, "f") as rows:
        assert sorted(rows.rows) == sorted(found[::3])


def test_keys_that_are_gone_are_left_out_and_the_fence_is_a_repairs(
    source: PostgresSource, reader: PostgresFencedReader, writer: Connection
) -> None:
    writer.execute("INSERT INTO t VALUES (1, 'x')")
    with reader.read_keys(T, [b"\x02", b"\x04"], "f1") as rows:
        assert [key for key, _ in rows.rows] == [b"\x02"]
    with reader.read_keys(T, [], "f2") as rows:
        assert rows.rows == []
    assert [(fence.id, fence.kind) for _, fence in _fences(read_to_now(source))] == [
        ("f1", "repair"),
        ("f2", "repair"),
    ]


def test_the_publications_columns_and_rows_are_what_is_read(
    source_dsn: str, writer: Connection, reader: PostgresFencedReader
) -> None:
    writer.execute("CREATE TABLE p (id int PRIMARY KEY, secret text, a text)")
    writer.execute("INSERT INTO p VALUES (1, 's', 'x'), (20, 's', 'y')")
    writer.execute("CREATE PUBLICATION cdc_publication FOR TABLE p (id, a) WHERE (id > 10)")
    with reader.read_range(TableId("public", "p"), KeyRange(), 10, "f") as rows:
        assert [column.name for column in rows.table.columns] == ["id", "a"]
        assert [key for key, _ in rows.rows] == [b"\x28"]


def test_an_inheritance_child_is_a_table_of_its_own(
    source: PostgresSource, reader: PostgresFencedReader, writer: Connection
) -> None:
    writer.execute("INSERT INTO t VALUES (1, 'parent')")
    writer.execute("CREATE TABLE child () INHERITS (t)")
    writer.execute("INSERT INTO child VALUES (2, 'child')")
    with reader.read_range(T, KeyRange(), 10, "f") as rows:
        assert [key for key, _ in rows.rows] == [b"\x02"]


def test_a_partitioned_table_is_read_through_its_root(source_dsn: str, writer: Connection) -> None:
    writer.execute("DROP TABLE t")
    writer.execute("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    writer.execute("CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)")
    writer.execute("CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20)")
    writer.execute("INSERT INTO p VALUES (1), (11)")
    config = source_config(source_dsn, publish_via_partition_root="true")
    opened = open_source(config)
    opened.prepare()
    assert [str(table.id) for table in opened.tables()] == ["public.p"]
    opened.close()
    root = open_reader(config)
    with root.read_range(TableId("public", "p"), KeyRange(), 10, "f") as rows:
        assert len(rows.rows) == 2
    root.close()


def test_a_lock_that_does_not_come_is_tried_again_later(
    source_dsn: str, source: PostgresSource
) -> None:
    impatient = open_reader(source_config(source_dsn, snapshot_lock_timeout_ms="200"))
    with psycopg.connect(source_dsn) as holder:
        holder.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        with (
            pytest.raises(Unreachable, match="lock timeout"),
            impatient.read_range(T, KeyRange(), 10, "f"),
        ):
            pass
    with impatient.read_range(T, KeyRange(), 10, "f") as rows:
        assert rows.rows == []
    impatient.close()


def test_a_table_that_is_not_there_or_not_published_reads_well(
    source: PostgresSource, reader: PostgresFencedReader, writer: Connection
) -> None:
    writer.execute("CREATE TABLE other (id int PRIMARY KEY)")
    for name, what in (
        ("nowhere", "no table public.nowhere"),
        ("other", "does not hold public.other"),
    ):
        with (
            pytest.raises(Gone, match=what),
            reader.read_range(TableId("public", name), KeyRange(), 10, "f"),
        ):
            pass


def test_row_security_is_an_error_not_a_hole(
    source_dsn: str, source: PostgresSource, writer: Connection
) -> None:
    role = f"policed_{conninfo_to_dict(source_dsn)['dbname']}"
    writer.execute(f"CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'x'")
    writer.execute(f"GRANT SELECT ON t TO {role}")
    writer.execute("ALTER TABLE t ENABLE ROW LEVEL SECURITY")
    opened = open_reader(source_config(make_conninfo(source_dsn, user=role, password="x")))
    try:
        with (
            pytest.raises(CdcError, match="row-level security"),
            opened.read_range(T, KeyRange(), 10, "f"),
        ):
            pass
    finally:
        opened.close()
        writer.execute(f"DROP OWNED BY {role}")
        writer.execute(f"DROP ROLE {role}")


def test_a_not_null_that_was_never_validated_widens_the_rows(
    source: PostgresSource, reader: PostgresFencedReader, writer: Connection
) -> None:
    writer.execute("INSERT INTO t VALUES (1, 'x'), (2, NULL)")
    try:
        writer.execute("ALTER TABLE t ADD CONSTRAINT nn NOT NULL a NOT VALID")
    except errors.SyntaxError:
        return  # before PostgreSQL 18 there is no such thing
    with reader.read_range(T, KeyRange(), 10, "f") as rows:
        assert rows.table.columns[1].nullable
        assert [row for _, row in rows.rows] == [b"\x02\x02\x02x", b"\x04\x00"]


def test_a_range_of_wide_rows_ends_at_its_bytes_and_the_fence_is_of_the_same_snapshot(
    source: PostgresSource, reader: PostgresFencedReader, writer: Connection
) -> None:
    writer.execute("ALTER TABLE t ALTER COLUMN a SET STORAGE external")
    writer.execute("INSERT INTO t SELECT i, repeat('x', 100000) FROM generate_series(1, 200) i")
    seen: list[bytes] = []
    after = None
    reads = 0
    while True:
        with reader.read_range(T, KeyRange(after), 1000, f"f{reads}", 1_000_000) as rows:
            size = sum(len(row) for _, row in rows.rows)
            assert size <= 1_000_000 + 100_100, "the budget, and the row that reached it"
            seen += [key for key, _ in rows.rows]
            if reads == 0:
                writer.execute("INSERT INTO t VALUES (1000, 'later')")
        reads += 1
        after = rows.last
        if after is None:
            break
    assert reads > 15
    assert len(seen) == len(set(seen)) == 201, "each range has a snapshot of its own"
    fences = [fence.id for _, fence in _fences(read_to_now(source))]
    assert fences == [f"f{number}" for number in range(reads)]


def test_wide_rows_that_are_wanted_by_their_keys_come_in_part(
    source: PostgresSource, reader: PostgresFencedReader, writer: Connection
) -> None:
    writer.execute("ALTER TABLE t ALTER COLUMN a SET STORAGE external")
    writer.execute("INSERT INTO t SELECT i, repeat('x', 100000) FROM generate_series(1, 50) i")
    with reader.read_range(T, KeyRange(), 1000, "all", 1 << 30) as rows:
        keys = [key for key, _ in rows.rows]
    assert len(keys) == 50
    found: list[bytes] = []
    reads = 0
    left: Sequence[bytes] = [*keys, b"\x80\x89\x7a"]
    while left:
        with reader.read_keys(T, left, f"k{reads}", 1_000_000) as rows:
            assert rows.rows or not rows.unread, "a read gets on"
            assert sum(len(row) for _, row in rows.rows) <= 1_000_000 + 100_100
            found += [key for key, _ in rows.rows]
            left = rows.unread
        reads += 1
    assert reads > 3
    assert sorted(found) == sorted(keys)


def test_a_table_is_divided_into_about_equal_parts(
    source: PostgresSource, reader: PostgresFencedReader, writer: Connection
) -> None:
    assert reader.split(T, 4).rows == [], "a small table is not"
    writer.execute(
        "INSERT INTO t SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 40000) i"
    )
    bounds = [key for key, _ in reader.split(T, 4).rows]
    assert len(bounds) == 3
    counts = []
    for after, upto in pairwise([None, *bounds, None]):
        with reader.read_range(T, KeyRange(after, upto), 100_000, "part", 1 << 30) as rows:
            assert rows.last is None
            counts.append(len(rows.rows))
    assert sum(counts) == 40_000
    assert min(counts) > 4_000
