"""The locked, fenced read of the source, and the replica's snapshot with its checkpoint."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from cdc.checkpoint import SinkCheckpoint
from cdc.errors import CdcError, Failed
from cdc.fence import FENCE_PREFIX, Fence
from cdc.position import Position
from cdc.protocols import Bucket, Hashes
from cdc.table import KeyRange, Table
from connectors.postgres import checkpoints
from connectors.postgres.lsn import parse_lsn
from connectors.postgres.reader import PostgresReplicaSide, PostgresSourceSide
from connectors.postgres.settings import Selection, SourceSettings
from connectors.postgres.sink_settings import SinkSettings
from tests.integration.verify_databases import Connection, open_session, table_of

EVERYTHING = KeyRange(None, None)


@pytest.fixture
def source(source_dsn: str) -> Iterator[Connection]:
    with open_session(source_dsn) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
        connection.execute("INSERT INTO t SELECT i, i FROM generate_series(1, 1000) i")
        connection.execute("CREATE PUBLICATION p FOR TABLE t")
        yield connection


@pytest.fixture
def table(source: Connection) -> Table:
    return table_of(source, "t", ("id",))


@pytest.fixture
def side(source: Connection, source_dsn: str) -> Iterator[PostgresSourceSide]:
    settings = SourceSettings(
        connector="test",
        prefix="shop",
        conninfo=source_dsn,
        slot="s",
        failover=False,
        publication="p",
        autocreate="disabled",
        via_root=False,
        selection=Selection(),
        lock_timeout_ms=3000,
        skip_truncates=False,
    )
    opened = PostgresSourceSide(settings)
    yield opened
    opened.close()


def rows_seen(side: PostgresSourceSide, table: Table) -> int:
    with side.read(table, "f", 0) as (reader, _):
        return sum(bucket.row_count for bucket in reader.digest(EVERYTHING, 100, 10_000))


def test_a_rewrite_under_way_is_waited_for_and_hides_no_row(
    side: PostgresSourceSide, source: Connection, source_dsn: str, table: Table
) -> None:
    with psycopg.connect(source_dsn) as altering:
        altering.execute("ALTER TABLE t ALTER COLUMN v TYPE int USING v + 0")
        found: list[int] = []
        reading = threading.Thread(target=lambda: found.append(rows_seen(side, table)))
        reading.start()
        reading.join(0.5)
        assert reading.is_alive(), "the read did not wait for the table's lock"
        altering.commit()
        reading.join(10)
    assert found == [1000]


def test_a_snapshot_taken_before_the_lock_would_see_an_empty_table(
    source_dsn: str, source: Connection
) -> None:
    """Why the lock comes first: the server's own behaviour."""
    with psycopg.connect(source_dsn) as snapshot_first, psycopg.connect(source_dsn) as altering:
        snapshot_first.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        snapshot_first.execute("SELECT pg_current_snapshot()")
        altering.execute("ALTER TABLE t ALTER COLUMN v TYPE int USING v + 0")
        altering.commit()
        snapshot_first.execute("LOCK TABLE t IN ACCESS SHARE MODE")
        assert snapshot_first.execute("SELECT count(*) FROM t").fetchone() == (0,)


@pytest.mark.parametrize(
    "statement", ["ALTER TABLE t ALTER COLUMN v TYPE bigint", "TRUNCATE t", "VACUUM FULL t"]
)
def test_no_rewrite_stands_between_the_snapshot_and_the_fence(
    side: PostgresSourceSide, source: Connection, table: Table, statement: str
) -> None:
    source.execute("SET lock_timeout = '200ms'")
    with side.read(table, "f", 0) as (reader, _):
        assert len(reader.hashes(EVERYTHING).keys) == 1000
        with pytest.raises(psycopg.errors.LockNotAvailable):
            source.execute(statement.encode())
    source.execute(statement.encode())


def test_writers_are_not_held_up(
    side: PostgresSourceSide, source: Connection, table: Table
) -> None:
    source.execute("SET lock_timeout = '200ms'")
    with side.read(table, "f", 0) as (reader, snapshot):
        source.execute("UPDATE t SET v = 0 WHERE id = 1")
        source.execute("DELETE FROM t WHERE id = 2")
        row = source.execute("SELECT pg_current_snapshot()::text").fetchone()
        assert row is not None
        assert len(reader.hashes(EVERYTHING).keys) == 1000
        assert int(row[0].split(":")[1]) == snapshot.xmax + 2


def _messages(source: Connection) -> list[tuple[int, bytes]]:
    """Fence messages that a slot delivers: pgoutput's M, flags, LSN, prefix, length, content."""
    found = []
    for (frame,) in source.execute(
        "SELECT data FROM pg_logical_slot_peek_binary_changes('s', NULL, NULL, 'proto_version', '1',"
        " 'publication_names', 'p', 'messages', 'true')"
    ):
        if frame[:1] == b"M":
            end = frame.index(b"\0", 10)
            assert frame[10:end].decode() == FENCE_PREFIX
            found.append((int.from_bytes(frame[2:10], "big"), frame[end + 5 :]))
    return found


def test_the_fence_carries_the_snapshot_and_stands_behind_all_that_it_shows(
    side: PostgresSourceSide, source: Connection, table: Table
) -> None:
    source.execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
    source.execute("INSERT INTO t VALUES (5000, 1)")
    row = source.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
    assert row is not None
    with side.read(table, "chunk-1", 77) as (_, snapshot):
        pass
    ((lsn, content),) = _messages(source)
    assert Fence.from_message(content) == Fence("chunk-1", "verify", "shop", table.id, snapshot, 77)
    assert lsn >= parse_lsn(row[0])


def test_a_read_that_fails_leaves_no_fence(
    side: PostgresSourceSide, source: Connection, table: Table
) -> None:
    source.execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
    with pytest.raises(ZeroDivisionError), side.read(table, "f", 0):
        raise ZeroDivisionError
    assert _messages(source) == []
    assert rows_seen(side, table) == 1000, "the side goes on after a failure"


def test_a_mark_is_flushed_and_its_lsn_is_known(
    side: PostgresSourceSide, source: Connection
) -> None:
    source.execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
    lsn = side.mark(Fence("m", "mark", "shop", None, side.snapshot()))
    assert [at for at, _ in _messages(source)] == [lsn]


def test_only_published_columns_and_rows_are_compared(
    side: PostgresSourceSide, source: Connection
) -> None:
    source.execute("DROP PUBLICATION p")
    source.execute("CREATE PUBLICATION p FOR TABLE t (id) WHERE (id % 2 = 0)")
    whole = table_of(source, "t", ("id",))
    with pytest.raises(Failed, match="changed its columns"), side.read(whole, "f", 0):
        pass
    assert rows_seen(side, Table(whole.id, whole.columns[:1], whole.key)) == 500


def test_rows_that_a_policy_would_hide_are_an_error(
    source: Connection, source_dsn: str, table: Table
) -> None:
    source.execute("CREATE ROLE looker LOGIN PASSWORD 'x'")
    try:
        source.execute("GRANT SELECT ON t TO looker")
        source.execute("ALTER TABLE t ENABLE ROW LEVEL SECURITY")
        source.execute("CREATE POLICY few ON t USING (id < 10)")
        parts = conninfo_to_dict(source_dsn) | {"user": "looker", "password": "x"}
        dsn = " ".join(f"{name}={value}" for name, value in parts.items())
        settings = SourceSettings(
            "test",
            "shop",
            dsn,
            "s",
            False,
            "p",
            "disabled",
            False,
            Selection(),
            3000,
            False,
        )
        hidden = PostgresSourceSide(settings)
        with pytest.raises(CdcError, match="row-level security"):
            rows_seen(hidden, table)
        hidden.close()
    finally:
        source.execute("DROP OWNED BY looker")
        source.execute("DROP ROLE looker")


# --- the replica ---------------------------------------------------------------------------------------------


@pytest.fixture
def replica(replica_dsn: str) -> Iterator[PostgresReplicaSide]:
    opened = PostgresReplicaSide(
        SinkSettings(
            "test", replica_dsn, True, True, "basic", "${source.schema}.${source.table}", 1000
        )
    )
    yield opened
    opened.close()


def _checkpoint(replica_dsn: str, lsn: int) -> None:
    with open_session(replica_dsn) as session, session.transaction():
        checkpoints.install(session)
        held = checkpoints.claim(session, "sink", "shop")
        checkpoints.save(
            session, held, SinkCheckpoint("shop", Position(1, lsn, 3), tables={"public.t": "live"})
        )


def test_rows_and_checkpoint_are_of_one_snapshot(
    replica: PostgresReplicaSide, replica_dsn: str, table: Table
) -> None:
    _checkpoint(replica_dsn, 100)
    with open_session(replica_dsn) as session:
        session.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
        with replica.read(table, "sink", "shop") as (reader, state):
            _checkpoint(replica_dsn, 200)
            session.execute("INSERT INTO t VALUES (1, 1)")
            assert state.checkpoint.position == Position(1, 100, 3)
            assert state.checkpoint.tables == {"public.t": "live"}
            assert reader.hashes(EVERYTHING).keys == []
    assert replica.state("sink", "shop").checkpoint.position == Position(1, 200, 3)


def test_a_replica_without_checkpoint_says_so_and_a_missing_table_is_an_empty_one(
    replica: PostgresReplicaSide, replica_dsn: str, table: Table
) -> None:
    with pytest.raises(Failed, match="no checkpoint"):
        replica.state("sink", "shop")
    with pytest.raises(Failed, match="no checkpoint"), replica.read(table, "sink", "shop"):
        pass
    _checkpoint(replica_dsn, 1)
    with replica.read(table, "sink", "shop") as (reader, state):
        assert state.checkpoint.position == Position(1, 1, 3)
        assert reader.digest(EVERYTHING, 10, 100) == [Bucket(None, 0, (0, 0))]
        assert reader.hashes(EVERYTHING) == Hashes([], [])
    with open_session(replica_dsn) as session:
        session.execute("CREATE TABLE t (id int PRIMARY KEY)")
    with pytest.raises(Failed, match="lacks v"), replica.read(table, "sink", "shop"):
        pass
