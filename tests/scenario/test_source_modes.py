"""Snapshot modes, heartbeats, tombstones, topics as they are asked for, and copies by a SELECT of one's own."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import psycopg
import pytest

from tests.scenario.conftest import MakePipeline
from tests.scenario.equality import copied
from tests.scenario.pipeline import rows, wait_for
from tests.scenario.raw_topics import admin, operations, records


def test_always_copies_at_each_start_and_when_needed_makes_a_lost_slot_anew(
    make_pipeline: MakePipeline,
) -> None:
    pipeline = make_pipeline(source={"snapshot.mode": "always"})
    pipeline.on_source(
        "CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'a')"
    )
    pipeline.start()
    pipeline.catch_up()
    wait_for("the copy is stored", lambda: copied(pipeline))
    assert pipeline.stop() == 0
    pipeline.start()
    wait_for("the table is copied again", lambda: operations(pipeline, "public.t") == {"r": 2})
    pipeline.catch_up()
    wait_for("the copy is stored", lambda: copied(pipeline))
    assert pipeline.stop() == 0
    pipeline.on_source(
        f"SELECT pg_drop_replication_slot('{pipeline.prefix}')",
        "INSERT INTO t VALUES (2, 'missed')",
        "UPDATE t SET v = 'missed' WHERE id = 1",
    )
    pipeline.change(pipeline.source_file, {"snapshot.mode": "initial"})
    pipeline.start()
    assert pipeline.wait() == 4
    pipeline.change(pipeline.source_file, {"snapshot.mode": "when_needed"})
    pipeline.start()
    pipeline.catch_up()
    pipeline.on_source("INSERT INTO t VALUES (3, 'c')")
    pipeline.catch_up()
    assert rows(pipeline.replica_dsn, "t") == rows(pipeline.source_dsn, "t")
    assert len(rows(pipeline.replica_dsn, "t")) == 3
    assert "verify run --repair" in pipeline.log.read_text()
    pipeline.change(pipeline.source_file, {"slot.drop.on.stop": True})
    wait_for("the copy is stored", lambda: copied(pipeline))
    assert pipeline.stop() == 0
    pipeline.start()
    pipeline.catch_up()
    assert pipeline.stop() == 0
    assert _slots(pipeline.source_dsn, pipeline.prefix) == 0


@pytest.mark.matrix
def test_initial_only_copies_drops_its_slot_and_rests(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(source={"snapshot.mode": "initial_only"})
    pipeline.on_source("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    for _ in range(2):
        pipeline.start()
        wait_for("the rows are there", lambda: _count(pipeline.replica_dsn) == 2)
        wait_for("the slot is dropped", lambda: not _slots(pipeline.source_dsn, pipeline.prefix))
        wait_for("the task runs", lambda: pipeline.task("source").get("state") == "running")
        assert pipeline.stop() == 0
    assert operations(pipeline, "public.t") == {"r": 2}
    pipeline.change(pipeline.source_file, {"snapshot.mode": "initial"})
    pipeline.start()
    assert pipeline.wait() == 4
    assert "initial_only" in pipeline.log.read_text()


def test_heartbeats_tombstones_and_topics_are_as_they_are_asked_for(
    make_pipeline: MakePipeline,
) -> None:
    pipeline = make_pipeline(
        source={
            "heartbeat.interval.ms": 100,
            "heartbeat.action.query": "UPDATE beats SET n = n + 1",
            "tombstones.on.delete": "false",
            "topic.creation.groups": "wide",
            "topic.creation.wide.include": r".*\.public\.t",
            "topic.creation.wide.partitions": 7,
            "topic.creation.wide.retention.ms": 123456789,
            "slot.stream.params": "origin=none",
        }
    )
    pipeline.on_source(
        "CREATE TABLE t (id int PRIMARY KEY)",
        "CREATE TABLE beats (id int PRIMARY KEY, n int)",
        "INSERT INTO beats VALUES (1, 0)",
    )
    pipeline.start()
    pipeline.catch_up()
    pipeline.on_source("INSERT INTO t VALUES (1), (2)", "DELETE FROM t WHERE id = 1")
    pipeline.catch_up()
    topic = f"__debezium-heartbeat.{pipeline.prefix}"
    wait_for("heartbeats come", lambda: len(list(records(pipeline.kafka, topic))) >= 3)
    beat = next(iter(records(pipeline.kafka, topic)))
    assert beat.key is not None
    assert pipeline.prefix.encode() in beat.key
    assert not any(
        record.value is None for record in records(pipeline.kafka, f"{pipeline.prefix}.public.t")
    )
    made = admin(pipeline.kafka).list_topics(timeout=20).topics[f"{pipeline.prefix}.public.t"]
    assert len(made.partitions) == 7

    def beaten() -> bool:
        with psycopg.connect(pipeline.replica_dsn) as replica:
            row = replica.execute("SELECT n FROM beats").fetchone()
        return row is not None and row[0] > 2

    wait_for("what the heartbeat did arrives", beaten)
    assert rows(pipeline.replica_dsn, "t") == [("(2)",)]


@pytest.mark.matrix
def test_a_table_is_copied_by_a_select_of_its_own_and_not_verified(
    make_pipeline: MakePipeline,
) -> None:
    pipeline = make_pipeline(
        source={
            "snapshot.select.statement.overrides": "public.t",
            "snapshot.select.statement.overrides.public.t": "SELECT * FROM public.t WHERE NOT gone",
        }
    )
    pipeline.on_source(
        "CREATE TABLE t (id int PRIMARY KEY, gone bool)",
        "INSERT INTO t SELECT i, i % 2 = 0 FROM generate_series(1, 3000) i",
    )
    pipeline.start()
    pipeline.catch_up()
    assert _count(pipeline.replica_dsn) == 1500
    pipeline.on_source("UPDATE t SET gone = true WHERE id = 4", "INSERT INTO t VALUES (5000, true)")
    pipeline.catch_up()
    assert _count(pipeline.replica_dsn) == 1502
    command = [sys.executable, "-m", "cdc.cli.main", "verify", "run"]
    files = [str(pipeline.source_file), str(pipeline.sink_file)]
    done = subprocess.run([*command, *files, "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 64
    (table,) = json.loads(done.stdout)["tables"]
    assert "snapshot.select.statement.overrides" in table["reason"]


def _count(dsn: str) -> int:
    time.sleep(0.05)
    with psycopg.connect(dsn, autocommit=True) as connection:
        found = connection.execute("SELECT to_regclass('public.t') IS NOT NULL").fetchone()
        if found is None or not found[0]:
            return 0
        row = connection.execute("SELECT count(*) FROM t").fetchone()
    return int(row[0]) if row else 0


def _slots(dsn: str, name: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", (name,)
        ).fetchone()
    return int(row[0]) if row else 0
