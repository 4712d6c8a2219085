"""The schema registry stalls while tables change: nothing is lost, and no other link is given up over it."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from cdc.local.proxy import Proxy
from tests.scenario.conftest import MakePipeline
from tests.scenario.pipeline import Pipeline, rows


def _walsender(pipeline: Pipeline) -> int | None:
    with psycopg.connect(pipeline.source_dsn, autocommit=True) as connection:
        found = connection.execute(
            "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", (pipeline.prefix,)
        ).fetchone()
    return found[0] if found else None


def test_a_registry_that_stalls_does_not_cost_the_stream(
    make_pipeline: MakePipeline, source_dsn: str, registry_url: str
) -> None:
    address = urlsplit(registry_url)
    with (
        Proxy(address.port or 0) as registry,
        psycopg.connect(source_dsn, autocommit=True) as source,
    ):
        name = conninfo_to_dict(source_dsn)["dbname"]
        source.execute(f"ALTER DATABASE \"{name}\" SET wal_sender_timeout = '2s'")
        pipeline = make_pipeline(registry_url=f"http://127.0.0.1:{registry.port}{address.path}")
        pipeline.on_source("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
        pipeline.start()
        pipeline.catch_up()
        walsender = _walsender(pipeline)
        registry.stall()
        pipeline.on_source("ALTER TABLE t ADD v text", "INSERT INTO t VALUES (2, 'x')")
        time.sleep(6)
        assert _walsender(pipeline) == walsender
        assert pipeline.task("source")["state"] == "running"
        registry.heal()
        pipeline.catch_up()
        assert rows(pipeline.source_dsn, "t") == rows(pipeline.replica_dsn, "t")
        assert _walsender(pipeline) == walsender
        assert [task["restarts"] for task in pipeline.tasks()] == [0, 0]
