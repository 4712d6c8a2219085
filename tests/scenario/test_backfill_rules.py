"""Fences between real transactions: what a backfill reads and what the log says meet without loss (rules 1 to 14)."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from cdc.avro.decoder import EventDecoder
from cdc.avro_binary import long_bytes
from cdc.fence import SIGNAL_PREFIX, Signal
from cdc.kafka.registry import Registry
from cdc.local.cluster import Cluster
from cdc.table import TableId
from tests.scenario.command import cdc
from tests.scenario.conftest import MakePipeline
from tests.scenario.equality import assert_equal
from tests.scenario.pipeline import Pipeline, wait_for
from tests.scenario.raw_topics import records

_NOTES = """
CREATE TABLE notes (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, body text);
ALTER TABLE notes ALTER body SET STORAGE EXTERNAL;
"""
_VERIFY = (sys.executable, "-m", "cdc.cli.main", "verify", "run")
_BODY = "repeat(md5({}::text), 90)"  # 2,880 bytes: stored out of line, so that updates leave it unchanged in the log


def fill(pipeline: Pipeline, first: int, last: int) -> None:
    pipeline.on_source(
        f"INSERT INTO notes SELECT i, 0, {_BODY.format('i')} FROM generate_series({first}, {last}) i"
    )


@contextmanager
def meanwhile(
    dsn: str, act: Callable[[psycopg.Connection[tuple[object, ...]], int], None], threads: int = 1
) -> Iterator[list[int]]:
    """``act`` again and again in threads with connections of their own (autocommit); yields the count of calls."""
    stop = threading.Event()
    calls = [0]
    errors: list[Exception] = []

    def work(number: int) -> None:
        try:
            with psycopg.connect(dsn, autocommit=True) as connection:
                while not stop.is_set():
                    act(connection, number)
                    calls[0] += 1
        except Exception as error:  # noqa: BLE001 - raised by the test itself
            errors.append(error)

    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield calls
    finally:
        stop.set()
        for thread in running:
            thread.join()
    assert not errors, errors[0]


def test_a_commit_directly_behind_a_fence_keeps_its_rows(make_pipeline: MakePipeline) -> None:
    """Rule 1: a fence's LSN can be the next commit's. Its rows must not count as that transaction's."""
    pipeline = make_pipeline(source={"topic.creation.default.partitions": 1})
    pipeline.on_source(_NOTES)
    fill(pipeline, 1, 50)
    pipeline.start()
    pipeline.catch_up()

    ids = itertools.count(1000)

    def write(connection: psycopg.Connection[tuple[object, ...]], _: int) -> None:
        # New rows, since a lost update is hidden by the next one. Two steps, so that a fence often stands between a
        # row and its commit.
        with connection.transaction():
            connection.execute("INSERT INTO notes (id) VALUES (%s)", (next(ids),))

    def fences(count: int) -> None:
        with psycopg.connect(pipeline.source_dsn, autocommit=True) as connection:
            for _ in range(count):
                keys = tuple(long_bytes(key) for key in range(10, 20))
                signal = Signal(
                    f"again-{random.random()}",
                    "repair",
                    pipeline.prefix,
                    TableId("public", "notes"),
                    keys,
                )
                connection.execute(
                    "SELECT pg_logical_emit_message(false, %s, %s::bytea)",
                    (SIGNAL_PREFIX, signal.to_message()),
                )

    equal = 0
    for _ in range(6):
        with meanwhile(pipeline.source_dsn, write, threads=4):
            fences(300)
            pipeline.catch_up()
        equal = equal_positions(pipeline)
        if equal:
            break
    print(f"{equal} fences stood at the LSN of the commit behind them")
    assert equal, "no fence stood at the LSN of a commit: nothing was tried"
    pipeline.catch_up()
    assert_equal(pipeline, ["notes"])


def equal_positions(pipeline: Pipeline) -> int:
    """How many fences that brought rows have the LSN of a transaction."""
    decoder = EventDecoder(prefix=pipeline.prefix, registry=Registry(pipeline.registry_url))
    fences = {
        watermark.lsn
        for record in records(pipeline.kafka, f"{pipeline.prefix}.watermark")
        if (watermark := decoder.watermark(record)).rows
    }
    marks = [
        decoder.transaction(record)
        for record in records(pipeline.kafka, f"{pipeline.prefix}.transaction")
    ]
    commits = {mark.commit_lsn for mark in marks if mark.xid}  # 0: a fence's own
    return len(fences & commits)


def test_rewrites_of_the_table_race_with_its_copy(make_pipeline: MakePipeline) -> None:
    """Rule 2: a snapshot from before a rewrite sees an empty table; the copy must not believe it."""
    pipeline = make_pipeline()
    pipeline.on_source(_NOTES)
    fill(pipeline, 1, 12_000)

    def rewrite(connection: psycopg.Connection[tuple[object, ...]], _: int) -> None:
        connection.execute("ALTER TABLE notes ALTER n TYPE int USING n + 0")

    with meanwhile(pipeline.source_dsn, rewrite) as rewrites:
        wait_for("rewrites go on", lambda: rewrites[0] > 1)
        pipeline.start()
        pipeline.wait_running()
        for _ in range(2):
            # Each rewrite may change values without events, so that the copy begins again: the stream goes on.
            before, lsn = rewrites[0], pipeline.fence()
            wait_for("the stream goes on", lambda lsn=lsn: pipeline.passed(lsn))  # type: ignore[misc]
            wait_for("rewrites went on", lambda before=before: rewrites[0] > before)  # type: ignore[misc]
            said = cdc("table", "backfill", pipeline.source_file, "--table", "public.notes")
            assert said.status == 0, said
    pipeline.catch_up()
    assert_equal(pipeline, ["notes"])


def test_a_transaction_older_than_the_slot_and_than_the_tables_membership(
    make_pipeline: MakePipeline,
) -> None:
    """Rule 3: what it inserted before the table joined is never sent by the server; the copy must wait for its end."""
    pipeline = make_pipeline(source={"table.include.list": "public.notes"})
    pipeline.on_source(_NOTES, "CREATE TABLE late (id int PRIMARY KEY)")
    fill(pipeline, 1, 10)
    with psycopg.connect(pipeline.source_dsn) as old:
        old.execute("INSERT INTO notes (id) VALUES (1001)")
        pipeline.start()
        wait_for("the task is there", lambda: pipeline.task("source")["pid"] is not None)
        wait_for("the slot waits", lambda: _exists(pipeline, "pg_replication_slots", "slot_name"))
        old.execute("INSERT INTO notes (id) VALUES (1002)")
    pipeline.catch_up()
    assert_equal(pipeline, ["notes"])
    with psycopg.connect(pipeline.source_dsn) as old:
        old.execute("INSERT INTO late VALUES (1)")
        assert pipeline.stop() == 0
        pipeline.change(pipeline.source_file, {"table.include.list": "public.notes,public.late"})
        pipeline.start()
        wait_for("the table has joined", lambda: _published(pipeline, "late"))
        pipeline.on_source("INSERT INTO late VALUES (2)")
        wait_for("the copy begins", lambda: _state(pipeline, "late") == "backfilling")
        lsn = pipeline.fence()
        wait_for("the stream goes on", lambda: pipeline.passed(lsn))
        assert _state(pipeline, "late") == "backfilling", "copied although rows may never come"
        old.execute("INSERT INTO late VALUES (3)")
    pipeline.catch_up()
    assert_equal(pipeline, ["notes", "late"])


def _state(pipeline: Pipeline, table: str) -> str:
    with psycopg.connect(pipeline.replica_dsn, autocommit=True) as connection:
        row = connection.execute(
            "SELECT state FROM cdc.tables WHERE collection = %s", (f"public.{table}",)
        ).fetchone()
        return str(row[0]) if row else ""


def _exists(pipeline: Pipeline, view: str, column: str) -> bool:
    with psycopg.connect(pipeline.source_dsn, autocommit=True) as connection:
        return bool(
            connection.execute(
                f"SELECT 1 FROM {view} WHERE {column} = %s", (pipeline.prefix,)
            ).fetchone()
        )


def _published(pipeline: Pipeline, table: str) -> bool:
    with psycopg.connect(pipeline.source_dsn, autocommit=True) as connection:
        return bool(
            connection.execute(
                "SELECT 1 FROM pg_publication_tables WHERE pubname = %s AND tablename = %s",
                (pipeline.prefix, table),
            ).fetchone()
        )


@pytest.fixture
def limbo(cluster: Cluster) -> Iterator[Callable[[], None]]:
    """A source whose synchronous standby is away: who asks for it (nobody does by default) waits. Ends at a call."""

    def set_to(connection: psycopg.Connection[tuple[object, ...]], standby: str) -> None:
        connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{standby}'")
        connection.execute("SELECT pg_reload_conf()")

    with psycopg.connect(cluster.source.dsn, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_commit = 'local'")
        set_to(connection, "nosuch")
        wait_for(
            "the server waits for its standby",
            lambda: connection.execute("SHOW synchronous_standby_names").fetchone() == ("nosuch",),
        )
        yield lambda: set_to(connection, "")
        connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
        connection.execute("ALTER SYSTEM RESET synchronous_commit")
        connection.execute("SELECT pg_reload_conf()")


def test_a_commit_in_limbo_is_neither_lost_nor_undone(
    make_pipeline: MakePipeline, limbo: Callable[[], None]
) -> None:
    """Rule 5: it is in the log and on the replica, and no snapshot of the source shows it."""
    pipeline = make_pipeline()
    pipeline.on_source(_NOTES)
    fill(pipeline, 1, 100)
    pipeline.start()
    pipeline.catch_up()

    def commit(_: object = None) -> None:
        with psycopg.connect(pipeline.source_dsn) as connection:
            connection.execute("SET synchronous_commit = on")
            connection.execute("UPDATE notes SET n = 1 WHERE id <= 10")
            connection.execute("INSERT INTO notes VALUES (1001, 1, 'limbo')")
            connection.execute("DELETE FROM notes WHERE id = 100")

    waiting = threading.Thread(target=commit)
    waiting.start()
    try:
        wait_for("it has come over", lambda: _count(pipeline.replica_dsn, "n = 1") == 11)
        assert _count(pipeline.source_dsn, "n = 1") == 0
        said = cdc("table", "backfill", pipeline.source_file, "--table", "public.notes")
        assert said.status == 0, said
        wait_for("the copy begins", lambda: not pipeline.live())
        verified = cdc_verify(pipeline)
        assert not verified & 16, "a difference was told that is none"
        assert not pipeline.live(), "the copy believed a snapshot that misses a decoded commit"
        assert _count(pipeline.replica_dsn, "n = 1") == 11
    finally:
        limbo()
        waiting.join(30)
    assert not waiting.is_alive()
    pipeline.catch_up()
    assert_equal(pipeline, ["notes"])
    assert cdc_verify(pipeline) == 0


def cdc_verify(pipeline: Pipeline) -> int:
    """The exit status of a verification; its bits are verdicts."""
    done = subprocess.run(
        [*_VERIFY, str(pipeline.source_file), str(pipeline.sink_file)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 0 or done.returncode >= 16, done.stderr + done.stdout
    return done.returncode


def _count(dsn: str, condition: str) -> int:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(f"SELECT count(*) FROM notes WHERE {condition}").fetchone()
        assert row is not None
        return int(row[0])


def test_updates_and_deletes_during_the_copy(make_pipeline: MakePipeline, seed: int) -> None:
    """Rule 6: streamed changes meet rows that are not copied yet, some without their unchanged column."""
    pipeline = make_pipeline()
    pipeline.on_source(_NOTES)
    fill(pipeline, 1, 12_000)

    def write(connection: psycopg.Connection[tuple[object, ...]], number: int) -> None:
        chooser = random.Random(random.random())
        for _ in range(20):
            key = chooser.randrange(1, 12_000)
            match chooser.randrange(5):
                case 0:
                    connection.execute("DELETE FROM notes WHERE id = %s", (key,))
                case 1:
                    connection.execute(
                        f"INSERT INTO notes VALUES (%s, 1, {_BODY.format('random()')})"
                        " ON CONFLICT (id) DO UPDATE SET body = EXCLUDED.body",
                        (key,),
                    )
                case 2:
                    connection.execute(
                        "UPDATE notes SET id = %s WHERE id = %s"
                        " AND NOT EXISTS (SELECT FROM notes WHERE id = %s)",
                        (key + 50_000 * (number + 1), key, key + 50_000 * (number + 1)),
                    )
                case _:
                    connection.execute("UPDATE notes SET n = n + 1 WHERE id = %s", (key,))

    with meanwhile(pipeline.source_dsn, write, threads=3) as writes:
        pipeline.start()
        pipeline.catch_up()
        assert writes[0] > 10
    pipeline.catch_up()
    assert_equal(pipeline, ["notes"])


def test_an_idle_source_can_be_verified_and_waited_for(make_pipeline: MakePipeline) -> None:
    """Rule 7: no transaction follows, and still everything ends."""
    pipeline = make_pipeline()
    pipeline.on_source(_NOTES)
    fill(pipeline, 1, 10)
    pipeline.start()
    pipeline.catch_up()
    for _ in range(2):
        pipeline.catch_up(20)
        assert cdc_verify(pipeline) == 0


def test_keys_that_change_with_their_unchanged_columns(make_pipeline: MakePipeline) -> None:
    """Rule 14: the new image lacks the column, the old one has only the key."""
    pipeline = make_pipeline()
    pipeline.on_source(_NOTES)
    fill(pipeline, 1, 20)
    pipeline.start()
    pipeline.catch_up()
    pipeline.on_source(
        "UPDATE notes SET id = id + 1000 WHERE id <= 5",
        "UPDATE notes SET id = -1 WHERE id = 6; UPDATE notes SET id = 6 WHERE id = 7;"
        " UPDATE notes SET id = 7 WHERE id = -1",
        "UPDATE notes SET id = 2000 WHERE id = 8; UPDATE notes SET id = 2001 WHERE id = 2000;"
        " UPDATE notes SET n = 5 WHERE id = 2001; DELETE FROM notes WHERE id = 9;"
        " UPDATE notes SET id = 9 WHERE id = 2001",
        "UPDATE notes SET id = 3000 WHERE id = 10; DELETE FROM notes WHERE id = 3000;"
        " INSERT INTO notes VALUES (10, 1, 'new')",
    )
    pipeline.catch_up()
    assert_equal(pipeline, ["notes"])
    assert cdc_verify(pipeline) == 0
