"""A replica that is busy, locked or read-only for a while: the sink waits, says so, and goes on; no snapshot is torn."""

from __future__ import annotations

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tests.scenario import bank
from tests.scenario.conftest import MakePipeline
from tests.scenario.equality import assert_equal, assert_once, start_bank, watch_effects
from tests.scenario.pipeline import Pipeline, wait_for

_WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'cdc/%' AND wait_event_type = 'Lock'
"""
_END_SINK = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'cdc/%'
"""


def sink_waits(dsn: str) -> bool:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(_WAITING).fetchone() != (0,)


def locked_by_an_analyst(pipeline: Pipeline) -> None:
    with psycopg.connect(pipeline.replica_dsn) as analyst:
        analyst.execute("LOCK TABLE accounts IN SHARE ROW EXCLUSIVE MODE")
        wait_for("the sink waits", lambda: sink_waits(pipeline.replica_dsn))


def deadlocked(pipeline: Pipeline) -> None:
    """The sink holds accounts by then and waits for tellers: one of the two is ended by the server."""
    with psycopg.connect(pipeline.replica_dsn) as analyst:
        analyst.execute("SET deadlock_timeout = '1min'")  # so that it is the sink that finds it
        analyst.execute("LOCK TABLE tellers IN SHARE ROW EXCLUSIVE MODE")
        wait_for("the sink waits", lambda: sink_waits(pipeline.replica_dsn))
        try:
            analyst.execute("LOCK TABLE accounts IN SHARE ROW EXCLUSIVE MODE")
        except psycopg.errors.DeadlockDetected:
            analyst.rollback()


def read_only(pipeline: Pipeline) -> None:
    name = conninfo_to_dict(pipeline.replica_dsn)["dbname"]
    with psycopg.connect(pipeline.replica_dsn, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'.encode())
        admin.execute(_END_SINK)
        wait_for("the sink says so", lambda: pipeline.task("sink")["state"] == "unreachable")
        admin.execute("SET default_transaction_read_only = off")
        admin.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only'.encode())


def test_the_replica_is_locked_deadlocked_and_read_only(
    make_pipeline: MakePipeline, seed: int
) -> None:
    pipeline = make_pipeline()
    start_bank(pipeline)
    watch_effects(pipeline)
    before = [(task["pid"], task["restarts"]) for task in pipeline.tasks()]
    with (
        bank.Traffic(pipeline.source_dsn, seed=seed),
        bank.Auditor(pipeline.replica_dsn) as auditor,
    ):
        for fault in (locked_by_an_analyst, deadlocked, read_only):
            fault(pipeline)
            pipeline.catch_up()
    pipeline.catch_up()
    assert [(task["pid"], task["restarts"]) for task in pipeline.tasks()] == before
    assert auditor.audits > 20
    assert_equal(pipeline)
    assert assert_once(pipeline) > 20
