"""Tables join and leave while the stream goes on, and what happened between two starts does not pass in silence."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import psycopg
import pytest

from tests.scenario.conftest import MakePipeline
from tests.scenario.equality import copied
from tests.scenario.pipeline import Pipeline, rows, wait_for
from tests.scenario.raw_topics import operations


def _add(pipeline: Pipeline, table: str) -> str:
    command = [sys.executable, "-m", "cdc.cli.main", "table", "add", str(pipeline.source_file)]
    more = ["--table", table, "--sink", str(pipeline.sink_file), "--timeout", "60"]
    done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _traffic(pipeline: Pipeline, stop: threading.Event) -> None:
    """Transactions over both tables; some are long ones that began before anything happened."""
    number = 100_000
    with psycopg.connect(pipeline.source_dsn) as source:
        while not stop.is_set():
            number += 1
            source.execute("INSERT INTO first VALUES (%s, 'f')", (number,))
            source.execute("INSERT INTO second VALUES (%s, 's')", (number,))
            source.execute("UPDATE second SET v = v || 'x' WHERE id = %s", (number % 2000 + 1,))
            source.execute("DELETE FROM second WHERE id = %s", (number - 7,))
            source.commit()


def test_a_table_joins_under_traffic_without_a_restart_and_is_verified(
    make_pipeline: MakePipeline,
) -> None:
    pipeline = make_pipeline(source={"table.include.list": r"public\.first"})
    pipeline.on_source(
        "CREATE TABLE first (id int PRIMARY KEY, v text)",
        "CREATE TABLE second (id int PRIMARY KEY, v text)",
        "INSERT INTO second SELECT i, 'old' FROM generate_series(1, 5000) i",
    )
    pipeline.start()
    pipeline.catch_up()
    stop = threading.Event()
    writer = threading.Thread(target=_traffic, args=(pipeline, stop))
    with psycopg.connect(pipeline.source_dsn) as slow:
        # Its row is written before the publication holds the table, and commits behind that: only a copy brings it.
        slow.execute("INSERT INTO second VALUES (99999, 'before')")
        writer.start()
        try:
            pid = pipeline.task("source")["pid"]
            timer = threading.Timer(3, slow.commit)
            timer.start()
            said = _add(pipeline, "public.second")
            timer.join()
        finally:
            stop.set()
            writer.join()
    assert "public.second joins" in said
    assert "OK" in said
    assert pipeline.task("source")["pid"] == pid
    # A task that reconnects knows of the table still.
    pipeline.on_source(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE application_name = 'cdc/{pipeline.prefix}-source/log'",
        "INSERT INTO second VALUES (-2, 'behind')",
    )
    pipeline.catch_up()
    assert pipeline.task("source")["restarts"] == 0
    for table in ("first", "second"):
        assert rows(pipeline.replica_dsn, table) == rows(pipeline.source_dsn, table)
    # The file says so too: a restart goes on with both, and copies nothing again.
    listed = json.loads(pipeline.source_file.read_text())["table.include.list"]
    assert listed == r"public\.first,public\.second"
    wait_for("the copy is stored", lambda: copied(pipeline))
    before = operations(pipeline, "public.second")["r"]
    assert pipeline.stop() == 0
    pipeline.start()
    pipeline.on_source("INSERT INTO second VALUES (-1, 'after')")
    pipeline.catch_up()
    assert operations(pipeline, "public.second")["r"] == before
    assert rows(pipeline.replica_dsn, "second") == rows(pipeline.source_dsn, "second")


@pytest.mark.matrix
def test_a_table_that_left_the_publication_between_two_starts_is_copied_again(
    make_pipeline: MakePipeline,
) -> None:
    pipeline = make_pipeline()
    name = pipeline.prefix
    pipeline.on_source("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE u (id int PRIMARY KEY)")
    pipeline.start()
    pipeline.catch_up()
    wait_for("the copy is stored", lambda: copied(pipeline))
    assert pipeline.stop() == 0
    pipeline.on_source(
        f"ALTER PUBLICATION {name} DROP TABLE t",
        "INSERT INTO t VALUES (1)",
        "INSERT INTO u VALUES (1)",
        f"ALTER PUBLICATION {name} ADD TABLE ONLY t",
        "INSERT INTO t VALUES (2)",
    )
    pipeline.start()
    pipeline.catch_up()
    wait_for("the missed row is there", lambda: len(rows(pipeline.replica_dsn, "t")) == 2)
    assert "was taken out of the publication" in pipeline.log.read_text()
    assert operations(pipeline, "public.u") == {"c": 1}


def test_a_table_that_is_not_selected_any_more_is_said_to_end(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(source={"table.include.list": r"public\.(t|u)"})
    pipeline.on_source("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE u (id int PRIMARY KEY)")
    pipeline.start()
    pipeline.catch_up()
    wait_for("the copy is stored", lambda: copied(pipeline))
    assert pipeline.stop() == 0
    pipeline.change(pipeline.source_file, {"table.include.list": r"public\.u"})
    pipeline.start()
    pipeline.on_source("INSERT INTO t VALUES (1)", "INSERT INTO u VALUES (1)")
    pipeline.catch_up()
    assert rows(pipeline.replica_dsn, "u") == [("(1)",)]
    assert rows(pipeline.replica_dsn, "t") == []
    assert "public.t is not selected any more" in pipeline.log.read_text()
