"""Tables that change while they are captured: the replica follows in order, and in the end both sides are the same."""

from __future__ import annotations

import random
import signal
import time
import urllib.request
from typing import Any

import psycopg
import pytest

from tests.scenario.changing_table import Changes, ChangingTable
from tests.scenario.command import cdc
from tests.scenario.conftest import MakePipeline
from tests.scenario.pipeline import Pipeline, wait_for

_COLUMNS = """
SELECT attname::text, CASE WHEN t.typtype = 'e' THEN 'text' ELSE format_type(atttypid, atttypmod) END
FROM pg_attribute JOIN pg_type t ON t.oid = atttypid
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY 1
"""


def columns(dsn: str, table: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(_COLUMNS, (table,)).fetchall()


def contents(dsn: str, table: str) -> list[tuple[Any, ...]]:
    """Every row as JSON, so that the order of columns does not matter."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(f"SELECT to_jsonb(t)::text FROM {table} t ORDER BY 1").fetchall()


def same(pipeline: Pipeline, table: str) -> bool:
    return columns(pipeline.source_dsn, table) == columns(pipeline.replica_dsn, table) and contents(
        pipeline.source_dsn, table
    ) == contents(pipeline.replica_dsn, table)


def assert_same(pipeline: Pipeline, *tables: str) -> None:
    """After catching up the replica's tables are the source's, and verification says so."""
    pipeline.catch_up()
    for table in tables:
        assert columns(pipeline.source_dsn, table) == columns(pipeline.replica_dsn, table)
        assert contents(pipeline.source_dsn, table) == contents(pipeline.replica_dsn, table)
    assert cdc("verify", "run", pipeline.source_file, pipeline.sink_file).status == 0


def test_a_replica_follows_every_change_of_its_tables(make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(sink={"schema.evolution": "full"})
    pipeline.on_source(
        "CREATE TYPE mood AS ENUM ('sad', 'ok')",
        "CREATE TABLE t (id int PRIMARY KEY, a smallint NOT NULL, b varchar(5), c text, d numeric(6,2), e mood)",
        "INSERT INTO t SELECT n, n, 'b' || n, 'c' || n, n / 4.0, 'ok' FROM generate_series(1, 50) n",
    )
    pipeline.start()
    pipeline.catch_up()
    for change in (
        "ALTER TABLE t ADD f int",
        "ALTER TABLE t ADD g text NOT NULL DEFAULT 'it''s \\ older'",
        "ALTER TABLE t ADD h timestamptz DEFAULT '2020-02-02 02:02:02+00', ADD i int[] DEFAULT '{1,NULL,3}'",
        "ALTER TABLE t ALTER a TYPE bigint, ALTER b TYPE varchar(50), ALTER d TYPE numeric(9,3)",
        "ALTER TABLE t ALTER a DROP NOT NULL",
        "UPDATE t SET a = NULL WHERE id % 5 = 0",
        "ALTER TABLE t RENAME c TO cc",
        "ALTER TABLE t DROP f",
        "ALTER TABLE t ADD f text",
        "ALTER TYPE mood ADD VALUE 'great'",
        "UPDATE t SET e = 'great', f = 'new' WHERE id % 7 = 0",
        "ALTER TABLE t RENAME b TO x; ALTER TABLE t RENAME cc TO b; ALTER TABLE t RENAME x TO cc",
        "ALTER TABLE t ADD j double precision DEFAULT random()",
        "ALTER TABLE t ALTER b TYPE int USING length(b)",
        "ALTER TABLE t REPLICA IDENTITY FULL",
        "DELETE FROM t WHERE id % 11 = 0",
        "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD k bigserial, ADD PRIMARY KEY (k, id)",
        "INSERT INTO t (id, a) VALUES (7, 7), (8, 8)",
        "ALTER TABLE t ALTER a SET DEFAULT 5",
        """
        BEGIN; UPDATE t SET a = 1 WHERE id = 1; ALTER TABLE t ADD l int DEFAULT 9; UPDATE t SET l = 10 WHERE id = 2;
        ALTER TABLE t RENAME l TO m; UPDATE t SET m = 11 WHERE id = 3; COMMIT
        """,
        "BEGIN; ALTER TABLE t DROP m; ROLLBACK",
    ):
        pipeline.on_source(change)
    assert_same(pipeline, "t")
    assert [task["restarts"] for task in pipeline.tasks()] == [0, 0]


@pytest.mark.matrix
def test_partitions_that_come_and_go(make_pipeline: MakePipeline) -> None:
    """Captured through its root, a table gains and loses rows with its partitions, without events."""
    pipeline = make_pipeline(source={"publish.via.partition.root": True})
    pipeline.on_source(
        "CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)",
        "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (100)",
        "CREATE TABLE t2 (LIKE t)",
        "INSERT INTO t SELECT n, 'one' FROM generate_series(1, 50) n",
        "INSERT INTO t2 SELECT n, 'two' FROM generate_series(101, 150) n",
    )
    pipeline.change(pipeline.source_file, {"table.include.list": "public.t"})
    pipeline.start()
    pipeline.catch_up()
    pipeline.on_source("ALTER TABLE t ATTACH PARTITION t2 FOR VALUES FROM (100) TO (200)")
    assert_same(pipeline, "t")
    pipeline.on_source("CREATE TABLE t3 PARTITION OF t FOR VALUES FROM (200) TO (300)")
    pipeline.on_source("ALTER TABLE t DETACH PARTITION t1", "INSERT INTO t VALUES (201, 'three')")
    wait_for("the loss is told", lambda: _state(pipeline, "t") == "stale")
    said = cdc("table", "backfill", pipeline.source_file, "--table", "public.t")
    assert said.status == 0
    wait_for("the copy is whole", lambda: _state(pipeline, "t") == "live")
    cdc("verify", "run", pipeline.source_file, pipeline.sink_file, "--repair")
    assert_same(pipeline, "t")


def _state(pipeline: Pipeline, table: str) -> str | None:
    with psycopg.connect(pipeline.replica_dsn, autocommit=True) as replica:
        row = replica.execute(
            "SELECT state FROM cdc.tables WHERE collection = %s", (f"public.{table}",)
        ).fetchone()
    return row[0] if row else None


def _compatibility(registry_url: str, subject: str, level: str) -> None:
    request = urllib.request.Request(
        f"{registry_url}/config/{subject}",
        f'{{"compatibility": "{level}"}}'.encode(),
        {"Content-Type": "application/json"},
        method="PUT",
    )
    urllib.request.urlopen(request, timeout=10).close()


@pytest.mark.parametrize("policy", ["stop", "stale"])
def test_a_row_schema_that_the_registry_refuses(
    make_pipeline: MakePipeline, registry_url: str, policy: str
) -> None:
    pipeline = make_pipeline(
        source={"schema.incompatible": policy}, sink={"schema.evolution": "full"}
    )
    pipeline.on_source(
        "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL)",
        "CREATE TABLE other (id int PRIMARY KEY)",
        "INSERT INTO t SELECT n, n FROM generate_series(1, 10) n",
    )
    pipeline.start()
    pipeline.catch_up()
    subject = f"{pipeline.prefix}.public.t-value"
    _compatibility(registry_url, subject, "BACKWARD")
    # What older readers' rows lack has a value in the new schema: that is compatible.
    pipeline.on_source("ALTER TABLE t ADD b int NOT NULL DEFAULT 7")
    assert_same(pipeline, "t")
    pipeline.on_source(
        "ALTER TABLE t ALTER a TYPE text USING 'n' || a",
        "INSERT INTO t VALUES (11, 'x')",
        "INSERT INTO other VALUES (1)",
    )
    if policy == "stop":
        assert pipeline.wait() == 4
        assert f"not compatible with what {subject} holds" in pipeline.log.read_text()
        _compatibility(registry_url, subject, "NONE")
        pipeline.start()
        pipeline.wait_running()
        assert_same(pipeline, "t", "other")
        return
    wait_for("the others go on", lambda: same(pipeline, "other"))
    wait_for("the table is stale", lambda: _state(pipeline, "t") == "stale")
    pipeline.on_source("DELETE FROM t WHERE id = 1", "UPDATE t SET b = 8 WHERE id = 2")
    assert pipeline.stop() == 0
    pipeline.start()
    pipeline.wait_running()
    _compatibility(registry_url, subject, "NONE")
    assert cdc("table", "backfill", pipeline.source_file, "--table", "public.t").status == 0
    wait_for("the copy is whole", lambda: _state(pipeline, "t") == "live")
    cdc("verify", "run", pipeline.source_file, pipeline.sink_file, "--repair")
    assert_same(pipeline, "t", "other")


def _changed_at_random(pipeline: Pipeline, seed: int, seconds: float, kills: int) -> None:
    """Two tables change at random while their rows do; tasks are killed in between; both sides end up the same."""
    chooser = random.Random(seed)
    tables = [ChangingTable(name, random.Random(chooser.random())) for name in ("r1", "r2")]
    for table in tables:
        table.create(pipeline.source_dsn)
    pipeline.start()
    pipeline.catch_up()
    changes = [
        Changes(pipeline.source_dsn, table, random.Random(chooser.random())) for table in tables
    ]
    try:
        with changes[0], changes[1]:
            for _ in range(kills):
                time.sleep(seconds / (kills + 1))
                role = chooser.choice(["source", "sink"])
                pipeline.signal_task(role, signal.SIGKILL)
                pipeline.wait_restarted(role)
            time.sleep(seconds / (kills + 1))
        assert all(change.commits > 10 for change in changes)
        assert_same(pipeline, "r1", "r2")
    except BaseException:
        for change in changes:
            print("\n".join(change.said))
        raise


@pytest.mark.matrix
def test_tables_that_change_at_random(make_pipeline: MakePipeline, seed: int) -> None:
    _changed_at_random(make_pipeline(sink={"schema.evolution": "full"}), seed, 6, 2)


@pytest.mark.matrix
@pytest.mark.parametrize("round_", range(12))
def test_tables_that_change_at_random_for_longer(
    make_pipeline: MakePipeline, seed: int, round_: int
) -> None:
    _changed_at_random(make_pipeline(sink={"schema.evolution": "full"}), seed + round_, 15, 4)
