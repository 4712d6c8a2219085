"""Tables without rows: they are there in the replica, they can be verified, and they can become empty at any time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import psycopg

from tests.scenario.conftest import MakePipeline
from tests.scenario.pipeline import Pipeline, wait_for

_TABLE = "CREATE TABLE empty (id uuid PRIMARY KEY, price numeric(8,3), at timestamptz, name text NOT NULL)"
_COLUMNS = """
SELECT attname::text, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
WHERE attrelid = 'public.empty'::regclass AND attnum > 0 ORDER BY attnum
"""


def _on_replica(pipeline: Pipeline, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(pipeline.replica_dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def _verified(pipeline: Pipeline) -> tuple[int, dict[str, Any]]:
    """Exit status and what is said of the one table."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "cdc.cli.main", "verify", "run"),
            *(pipeline.source_file, pipeline.sink_file, "--json"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    (table,) = json.loads(done.stdout)["tables"]
    return done.returncode, table


def test_a_table_without_rows_is_copied_and_verified(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline()
    pipeline.on_source(_TABLE)
    pipeline.start()
    pipeline.catch_up()
    assert _on_replica(pipeline, _COLUMNS) == [
        ("id", "uuid", True),
        ("price", "numeric(8,3)", False),
        ("at", "timestamp with time zone", False),
        ("name", "text", True),
    ]
    assert _verified(pipeline)[0] == 0
    _on_replica(pipeline, "DROP TABLE empty")
    status, table = _verified(pipeline)
    assert (status, table["verdict"]) == (0, "OK")
    _on_replica(pipeline, _TABLE)
    _on_replica(pipeline, "INSERT INTO empty VALUES (gen_random_uuid(), 1, now(), 'x')")
    status, table = _verified(pipeline)
    assert (status, table["verdict"]) == (16, "DIFF")
    assert [difference["kind"] for difference in table["differences"]] == ["extra"]


def test_a_truncate_is_the_first_that_a_restarted_sink_hears_of_a_table(
    make_pipeline: MakePipeline,
) -> None:
    pipeline = make_pipeline()
    pipeline.on_source(
        _TABLE,
        "INSERT INTO empty SELECT gen_random_uuid(), 1, now(), 'x' FROM generate_series(1, 5)",
    )
    pipeline.start()
    pipeline.catch_up()
    assert pipeline.stop() == 0
    pipeline.on_source("TRUNCATE empty")
    pipeline.start()
    pipeline.wait_running()
    pipeline.catch_up()
    assert _on_replica(pipeline, "SELECT count(*) FROM empty") == [(0,)]


def test_a_second_ctrl_c_does_not_wait_for_a_task_that_cannot_drain(
    make_pipeline: MakePipeline,
) -> None:
    pipeline = make_pipeline()
    pipeline.on_source(_TABLE)
    pipeline.start()
    pipeline.catch_up()
    pipeline.signal_task("sink", signal.SIGSTOP)
    supervisor = pipeline.pid
    assert supervisor is not None
    os.kill(supervisor, signal.SIGINT)
    wait_for("the tasks are stopping", lambda: pipeline.task("sink")["state"] == "stopping")
    time.sleep(1)
    assert pipeline.alive()
    began = time.monotonic()
    assert pipeline.stop() == 0
    assert time.monotonic() - began < 10
