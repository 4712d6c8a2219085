"""The source on a real server: what is committed comes, in order, numbered, once; what is wrong is said in two lines."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc.errors import CdcError, ConfigError, Unreachable
from cdc.event import Begin, Change, Commit, Message, Progress, Truncate
from cdc.protocols import Source
from connectors.postgres import CONNECTOR
from connectors.postgres.source import PostgresSource, open_source
from tests.integration.postgres_source import changes, read_to_now, read_until, source_config

Connection = psycopg.Connection[Any]


@pytest.fixture
def writer(source_dsn: str) -> Iterator[Connection]:
    with psycopg.connect(source_dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, a text NOT NULL, big text)")
        connection.execute("ALTER TABLE t ALTER big SET STORAGE EXTERNAL")
        yield connection


@pytest.fixture
def source(source_dsn: str, writer: Connection) -> Iterator[PostgresSource]:
    """Prepared, with a slot, streaming from its beginning."""
    opened = open_source(source_config(source_dsn))
    opened.prepare()
    opened.start(opened.create_slot(), {})
    yield opened
    opened.drop_slot()  # waits for the server to let go of it, as a fresh DROP DATABASE would not
    opened.close()


def _ops(found: list[Change]) -> list[tuple[str, int]]:
    return [(change.op, change.total_order) for change in found]


def test_the_plug_in_opens_a_source(source_dsn: str, writer: Connection) -> None:
    assert CONNECTOR.open_source is not None
    opened: Source = CONNECTOR.open_source(source_config(source_dsn))
    assert opened.prepare()
    assert not opened.prepare()
    assert [str(table.id) for table in opened.tables()] == ["public.t"]
    opened.close()


def test_a_transaction_comes_whole_with_numbers_before_filters(
    source: PostgresSource, writer: Connection
) -> None:
    with writer.transaction():
        writer.execute("INSERT INTO t VALUES (1, 'x', NULL), (2, 'y', NULL)")
        writer.execute("UPDATE t SET a = 'z' WHERE id = 1")
        writer.execute("DELETE FROM t WHERE id = 2")
    items = [item for item in read_to_now(source) if not isinstance(item, Progress)]
    assert [type(item) for item in items] == [Begin, Change, Change, Change, Change, Commit]
    assert _ops(changes(items)) == [("c", 1), ("c", 2), ("u", 3), ("d", 5)]
    first, last = items[0], items[-1]
    assert isinstance(first, Begin)
    assert isinstance(last, Commit)
    assert first.commit_lsn == last.commit_lsn < last.end_lsn
    assert abs(first.commit_us / 1e6 - time.time()) < 60


def test_a_changed_key_comes_as_delete_and_create(
    source: PostgresSource, writer: Connection
) -> None:
    writer.execute("INSERT INTO t VALUES (1, 'x', repeat('b', 9000))")
    writer.execute("UPDATE t SET id = 5 WHERE id = 1")
    _, old, new = changes(read_to_now(source))
    assert (old.op, old.key, old.other_key) == ("d", b"\x02", b"\x0a")
    assert (new.op, new.key, new.other_key) == ("c", b"\x0a", b"\x02")
    assert (old.total_order, new.total_order) == (1, 2)
    assert new.unchanged == ("big",)


def test_an_unchanged_toasted_column_is_named(source: PostgresSource, writer: Connection) -> None:
    writer.execute("INSERT INTO t VALUES (1, 'x', repeat('b', 9000))")
    writer.execute("UPDATE t SET a = 'y'")
    created, updated = changes(read_to_now(source))
    assert (created.unchanged, updated.unchanged) == ((), ("big",))


def test_identity_full_gives_both_rows_whole(source: PostgresSource, writer: Connection) -> None:
    writer.execute("ALTER TABLE t REPLICA IDENTITY FULL")
    writer.execute("INSERT INTO t VALUES (1, 'x', repeat('b', 9000))")
    writer.execute("UPDATE t SET a = 'y'")
    created, updated = changes(read_to_now(source))
    assert updated.table.identity == "full"
    assert updated.before == created.after
    assert updated.unchanged == ()
    assert updated.after is not None
    assert b"b" * 9000 in updated.after


def test_what_is_rolled_back_never_comes(source: PostgresSource, writer: Connection) -> None:
    with writer.transaction(force_rollback=True):
        writer.execute("INSERT INTO t VALUES (1, 'x', NULL)")
    with writer.transaction():
        writer.execute("INSERT INTO t VALUES (2, 'x', NULL)")
        with writer.transaction(force_rollback=True):
            writer.execute("INSERT INTO t VALUES (3, 'x', NULL)")
    assert [change.key for change in changes(read_to_now(source))] == [b"\x04"]


def test_a_truncate_of_two_tables_takes_two_numbers(source_dsn: str, writer: Connection) -> None:
    writer.execute("CREATE TABLE u (id int PRIMARY KEY)")
    opened = open_source(source_config(source_dsn))
    opened.prepare()
    opened.start(opened.create_slot(), {})
    writer.execute("TRUNCATE t, u")
    found = [item for item in read_to_now(opened) if isinstance(item, Truncate)]
    assert sorted(str(item.table.id) for item in found) == ["public.t", "public.u"]
    assert [item.total_order for item in found] == [1, 2]
    opened.drop_slot()
    opened.close()


def test_messages_inside_and_outside_transactions(
    source: PostgresSource, writer: Connection
) -> None:
    with writer.transaction():
        writer.execute("INSERT INTO t VALUES (1, 'x', NULL)")
        writer.execute("SELECT pg_logical_emit_message(true, 'app', 'in')")
        writer.execute("SELECT pg_logical_emit_message(false, 'app', 'out')")
    found = [item for item in read_to_now(source) if isinstance(item, Message)]
    # The one outside stands where it was written, before the commit; the stream holds it before the BEGIN.
    assert [(item.content, item.transactional, item.total_order) for item in found] == [
        (b"out", False, 0),
        (b"in", True, 2),
    ]


def test_a_message_with_a_commit_directly_behind_it_can_have_the_commits_lsn(
    source: PostgresSource, writer: Connection
) -> None:
    """Why rows of a fence stand just below it: H itself can be the next commit's LSN."""
    with writer.transaction():
        writer.execute("INSERT INTO t VALUES (1, 'x', NULL)")
        writer.execute("SELECT pg_logical_emit_message(false, 'app', 'fence')")
    items = read_to_now(source)
    (fence,) = (item for item in items if isinstance(item, Message))
    (start,) = (item for item in items if isinstance(item, Begin))
    assert fence.lsn == start.commit_lsn
    assert start.commit_lsn % 8 == 0


def test_emit_gives_the_lsn_at_which_the_message_comes(source: PostgresSource) -> None:
    lsn = source.emit("app", b"hello")
    items = read_until(source, lambda item: isinstance(item, Message))
    assert items[-1] == Message("app", b"hello", lsn, transactional=False)


def test_a_start_after_the_end_lsn_does_not_repeat_and_after_the_commit_lsn_does(
    source: PostgresSource, writer: Connection
) -> None:
    writer.execute("INSERT INTO t VALUES (1, 'x', NULL)")
    (commit,) = (item for item in read_to_now(source) if isinstance(item, Commit))
    source.start(commit.end_lsn, {})
    assert changes(read_to_now(source)) == []
    source.start(commit.commit_lsn, {})
    assert len(changes(read_to_now(source))) == 1


def test_a_start_below_what_was_confirmed_is_forwarded_so_the_slot_tells(
    source: PostgresSource, writer: Connection
) -> None:
    writer.execute("INSERT INTO t VALUES (1, 'x', NULL)")
    (commit,) = (item for item in read_to_now(source) if isinstance(item, Commit))
    source.confirm(commit.end_lsn)
    source.start(0, {})
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        found = source.slot()
        assert found is not None
        if found.confirmed >= commit.end_lsn:
            break
    else:
        raise AssertionError("the slot did not move")
    assert found.lost == ""
    assert changes(read_to_now(source)) == []


def test_confirm_never_moves_back_and_confirms_nothing_by_itself(
    source: PostgresSource, writer: Connection
) -> None:
    before = source.slot()
    writer.execute("INSERT INTO t VALUES (1, 'x', NULL)")
    read_to_now(source)
    source.keep_alive()
    assert before is not None
    source.start(before.confirmed, {})
    after = source.slot()
    assert after is not None
    assert after.confirmed == before.confirmed
    assert len(changes(read_to_now(source))) == 1


def test_a_large_transaction_comes_in_bounded_reads(
    source: PostgresSource, writer: Connection
) -> None:
    writer.execute("INSERT INTO t SELECT g, 'x', repeat('b', 500) FROM generate_series(1, 30000) g")
    found = 0
    deadline = time.monotonic() + 60
    while found < 30_000 and time.monotonic() < deadline:
        items = source.read(0.1)
        assert len(items) <= 2_001
        found += len(changes(list(items)))
    assert found == 30_000


def test_a_null_in_a_column_that_became_not_null_later_comes_through(
    source: PostgresSource, writer: Connection
) -> None:
    writer.execute("INSERT INTO t VALUES (1, 'x', NULL)")
    writer.execute("UPDATE t SET big = ''")
    writer.execute("ALTER TABLE t ALTER big SET NOT NULL")
    created, updated = changes(read_to_now(source))
    assert created.table.columns[2].nullable
    assert updated.after == b"\x02\x02x\x02\x00"


def test_added_and_generated_columns(source: PostgresSource, writer: Connection) -> None:
    writer.execute("INSERT INTO t VALUES (1, 'x', NULL)")
    writer.execute("ALTER TABLE t ADD c int, ADD g int GENERATED ALWAYS AS (id * 2) STORED")
    writer.execute("INSERT INTO t VALUES (2, 'x', NULL, 7)")
    first, second = changes(read_to_now(source))
    assert [column.name for column in first.table.columns] == ["id", "a", "big"]
    assert [column.name for column in second.table.columns] == ["id", "a", "big", "c"]


def test_an_idle_log_makes_progress_only_outside_transactions(
    source: PostgresSource, writer: Connection
) -> None:
    writer.execute("CREATE TABLE elsewhere (id int)")
    (progress,) = {
        type(item) for item in read_until(source, lambda item: isinstance(item, Progress))
    }
    assert progress is Progress


def test_a_first_chunk_can_be_told_whom_it_waits_for(
    source_dsn: str, source: PostgresSource, writer: Connection
) -> None:
    """Correctness rule 3: what ran while a table was added is below the xmax that is noted after it."""
    writer.execute("CREATE TABLE added (id int PRIMARY KEY)")
    with psycopg.connect(source_dsn, application_name="slow report") as slow:
        slow.execute("INSERT INTO added VALUES (1)")
        assert source.prepare()
        noted = source.snapshot().xmax
        told = source.waiting_for(noted)
        assert f"pid {slow.info.backend_pid} (slow report, idle in transaction)" in told
        assert source.snapshot().xmin < noted
    assert source.waiting_for(noted) == ""
    assert source.snapshot().xmin >= noted


def test_the_xmax_noted_after_preparing_is_above_every_running_xid(
    source_dsn: str, source: PostgresSource, writer: Connection
) -> None:
    """A snapshot's xmax is one past the newest *ended* transaction: newer ones can be running."""
    slow = [psycopg.connect(source_dsn) for _ in range(3)]
    xids = []
    for connection in slow:
        row = connection.execute("SELECT pg_current_xact_id()::text::int8").fetchone()
        assert row is not None
        xids.append(row[0])
    source.prepare()
    assert source.snapshot().xmax > max(xids)
    for connection in slow:
        connection.close()


def test_identity_names_the_database(source: PostgresSource, source_dsn: str) -> None:
    found = source.identify()
    assert found.database == conninfo_to_dict(source_dsn)["dbname"]
    assert found.timeline >= 1
    assert int(found.system_id) > 0


def test_a_dropped_slot_is_gone_and_dropping_it_again_is_nothing(source: PostgresSource) -> None:
    assert source.slot() is not None
    source.drop_slot()
    assert source.slot() is None
    source.drop_slot()


def test_a_lingering_session_of_our_own_is_ended(
    source: PostgresSource, source_dsn: str, writer: Connection
) -> None:
    writer.execute("INSERT INTO t VALUES (1, 'x', NULL)")
    successor = open_source(source_config(source_dsn))
    successor.start(0, {})
    assert len(changes(read_to_now(successor))) == 1
    with pytest.raises(Unreachable):
        read_until(source, lambda _: False, seconds=5)
    successor.close()


def test_a_slot_in_use_by_somebody_else_names_the_pid(
    source: PostgresSource, source_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.postgres.slot._PATIENCE", 0.5)
    other = open_source(
        source_config(source_dsn, slot_name=f"slot_{conninfo_to_dict(source_dsn)['dbname']}")
    )
    object.__setattr__(other._settings, "connector", "another")
    with pytest.raises(Unreachable, match=r"is in use by pid \d+ \(cdc/orders/log\)"):
        other.start(0, {})
    other.close()


def test_a_terminated_stream_is_unreachable_not_a_traceback(
    source: PostgresSource, writer: Connection
) -> None:
    threading.Timer(
        0.3,
        lambda: writer.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
            " WHERE active AND database = current_database()"
        ),
    ).start()
    with pytest.raises(Unreachable, match="terminating connection"):
        read_until(source, lambda _: False, seconds=5)


def _refusal(dsn: str, **given: Any) -> CdcError:
    opened = open_source(source_config(dsn, **given))
    try:
        opened.prepare()
    except CdcError as error:
        return error
    finally:
        opened.close()
    raise AssertionError("nothing was refused")


def test_a_wrong_password_reads_well(source_dsn: str) -> None:
    error = _refusal(make_conninfo(source_dsn, password="no"))
    assert isinstance(error, ConfigError)
    assert error.what.startswith('password authentication failed for user "postgres"')
    assert error.remedy == "set the right user and password"


def test_an_unknown_database_reads_well(source_dsn: str) -> None:
    error = _refusal(make_conninfo(source_dsn, dbname="nowhere"))
    assert isinstance(error, ConfigError)
    assert 'database "nowhere" does not exist' in error.what


def test_a_server_that_is_away_is_unreachable(source_dsn: str) -> None:
    error = _refusal(make_conninfo(source_dsn, port=1))
    assert isinstance(error, Unreachable)
    assert "127.0.0.1:1/" in error.what


def test_no_matching_table_reads_well(source_dsn: str, writer: Connection) -> None:
    error = _refusal(source_dsn, table_include_list="public.nothing")
    assert isinstance(error, ConfigError)
    assert error.what == "no table matches public.nothing"


@pytest.mark.parametrize(
    ("ddl", "what"),
    [
        ("CREATE TABLE bad (id int)", "table public.bad has no primary key"),
        ("CREATE UNLOGGED TABLE bad (id int PRIMARY KEY)", "table public.bad is not logged"),
        (
            "CREATE TABLE bad (id int PRIMARY KEY); ALTER TABLE bad REPLICA IDENTITY NOTHING",
            "table public.bad has REPLICA IDENTITY NOTHING",
        ),
        (
            "CREATE TABLE bad (id int PRIMARY KEY DEFERRABLE)",
            "the replica identity of table public.bad carries no key",
        ),
        (
            "CREATE TABLE bad (id int); ALTER TABLE bad REPLICA IDENTITY FULL",
            "table public.bad has no primary key",
        ),
    ],
)
def test_a_table_that_cannot_be_captured_whole_is_refused(
    source_dsn: str, writer: Connection, ddl: str, what: str
) -> None:
    writer.execute(sql.SQL(ddl))
    error = _refusal(source_dsn)
    assert isinstance(error, ConfigError)
    assert error.what == what
    assert error.remedy


def test_a_user_without_the_right_to_replicate_is_refused(
    source_dsn: str, writer: Connection
) -> None:
    role = f"plain_{conninfo_to_dict(source_dsn)['dbname']}"
    writer.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(sql.Identifier(role)))
    try:
        error = _refusal(make_conninfo(source_dsn, user=role, password="x"))
    finally:
        writer.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
    assert isinstance(error, ConfigError)
    assert error.what == f"user {role} has no right to replicate"


def test_a_publication_that_leaves_out_deletes_is_refused(
    source_dsn: str, writer: Connection
) -> None:
    writer.execute("CREATE PUBLICATION cdc_publication FOR TABLE t WITH (publish = 'insert')")
    error = _refusal(source_dsn)
    assert "does not publish update, delete, truncate" in error.what


def test_a_disabled_autocreate_wants_the_publication_and_its_tables(
    source_dsn: str, writer: Connection
) -> None:
    error = _refusal(source_dsn, publication_autocreate_mode="disabled")
    assert error.what == "there is no publication cdc_publication"
    writer.execute("CREATE PUBLICATION cdc_publication")
    error = _refusal(source_dsn, publication_autocreate_mode="disabled")
    assert error.what == "publication cdc_publication does not hold public.t"


def test_a_slot_becomes_a_failover_slot_when_that_is_asked_for(
    source: PostgresSource, source_dsn: str, writer: Connection
) -> None:
    successor = open_source(source_config(source_dsn, slot_failover="true"))
    successor.start(0, {})  # the predecessor's session is in the slot
    row = writer.execute(
        "SELECT failover, active FROM pg_replication_slots WHERE database = current_database()"
    ).fetchone()
    assert row == (True, True)
    successor.close()


def test_a_slot_of_another_kind_is_refused(source_dsn: str, writer: Connection) -> None:
    name = f"slot_{conninfo_to_dict(source_dsn)['dbname']}"
    writer.execute("SELECT pg_create_physical_replication_slot(%s)", (name,))
    opened = open_source(source_config(source_dsn))
    try:
        with pytest.raises(ConfigError, match="is of another kind: physical"):
            opened.slot()
    finally:
        opened.close()
        writer.execute("SELECT pg_drop_replication_slot(%s)", (name,))
