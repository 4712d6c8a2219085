"""The source's primary dies and its standby is promoted: capture goes on there, or says that commits were lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc.local.cluster import Cluster
from tests.scenario import bank
from tests.scenario.command import cdc
from tests.scenario.conftest import MakePipeline, pipelines
from tests.scenario.equality import assert_equal, assert_once, start_bank, watch_effects
from tests.scenario.pipeline import Pipeline, wait_for


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Cluster]:
    """A source with a standby that follows it, a replica, a broker and a registry."""
    with Cluster.up(tmp_path / "pair", postgres=("source", "standby", "replica")) as cluster:
        cluster.follow("standby", "source")
        yield cluster


def of_either(cluster: Cluster, database: str) -> str:
    """The database on whichever server is the primary."""
    source, standby = cluster.source, cluster.postgres("standby")
    return make_conninfo(
        source.dsn,
        dbname=database,
        host="127.0.0.1,127.0.0.1",
        port=f"{source.port},{standby.port}",
        target_session_attrs="read-write",
    )


@pytest.fixture
def pipeline(pair: Cluster, tmp_path: Path, prefix: str) -> Iterator[Pipeline]:
    """A pipeline over a bank that follows whichever server is the primary, by a failover slot."""
    dsn = of_either(pair, "source")
    parts = conninfo_to_dict(dsn)
    source = {
        "database.hostname": parts["host"],
        "database.port": parts["port"],
        "slot.failover": "true",
    }
    with pipelines(
        tmp_path,
        source_dsn=dsn,
        replica_dsn=pair.replica.dsn,
        kafka=pair.bootstrap_servers,
        registry_url=pair.schema_registry_url,
        prefix=prefix,
        source=source,
    ) as make:
        made: MakePipeline = make
        running = made()
        start_bank(running)
        watch_effects(running)
        yield running


def execute(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement)


def synchronise(pair: Cluster, pipeline: Pipeline) -> None:
    """Wait until the standby has a copy of the slot that outlives the primary; it moves when the slot is used."""

    def ready() -> bool:
        execute(pipeline.source_dsn, "SELECT pg_log_standby_snapshot()")
        pipeline.fence()
        with psycopg.connect(pair.postgres("standby").dsn.replace("/standby", "/source")) as there:
            row = there.execute(
                "SELECT synced AND NOT temporary FROM pg_replication_slots WHERE slot_name = %s",
                (pipeline.prefix,),
            ).fetchone()
        return row == (True,)

    wait_for("the slot is synchronised", ready)


def promote(pair: Cluster) -> None:
    dsn = pair.postgres("standby").dsn.replace("/standby", "/source")
    with psycopg.connect(dsn, autocommit=True) as connection:
        assert connection.execute("SELECT pg_promote(true, 60)").fetchone() == (True,)


def test_a_promoted_standby_is_followed_by_a_failover_slot(
    pair: Cluster, pipeline: Pipeline, seed: int
) -> None:
    """Nothing is sent that the standby lacks, so the log goes on: same generation, each change once."""
    execute(pair.source.dsn, "ALTER SYSTEM SET synchronized_standby_slots = 'standby'")
    execute(pair.source.dsn, "SELECT pg_reload_conf()")
    before = pipeline.task("source")["pid"]
    with (
        bank.Traffic(pipeline.source_dsn, seed=seed) as traffic,
        bank.Auditor(pipeline.replica_dsn) as auditor,
    ):
        wait_for("traffic", lambda: traffic.commits > 100)
        synchronise(pair, pipeline)
        pair.kill("source")
        promote(pair)
        commits = traffic.commits
        wait_for("traffic goes on", lambda: traffic.commits > commits + 100)
        pipeline.catch_up()
    pipeline.catch_up()
    assert pipeline.task("source")["pid"] == before, "the task followed by itself"
    assert auditor.audits > 20
    assert_equal(pipeline)
    assert assert_once(pipeline) > 20
    stands = json.loads(cdc("checkpoint", "show", pipeline.source_file, "--json").out)
    assert (stands["generation"], stands["identity"][1]) == (1, 2)


@pytest.mark.matrix
def test_commits_that_were_sent_and_lost_stop_capture_until_a_new_generation(
    pair: Cluster, pipeline: Pipeline, seed: int
) -> None:
    """An asynchronous standby that was behind: the replicas hold what the source has lost, and are brought back."""
    with bank.Traffic(pipeline.source_dsn, seed=seed) as traffic:
        wait_for("traffic", lambda: traffic.commits > 50)
        synchronise(pair, pipeline)
    pipeline.catch_up()
    pair.stop("standby")
    with bank.Traffic(pipeline.source_dsn, seed=seed + 1) as traffic:
        wait_for("commits that the standby lacks", lambda: traffic.commits > 50)
    pipeline.catch_up()
    pair.kill("source")
    pair.start("standby")
    promote(pair)
    assert pipeline.wait(120) == 4
    said = cdc("run", pipeline.source_file, "--patience", 60)
    assert said.status == 4, said
    assert "timeline 2" in said.what, said
    assert "those commits are lost at the source" in said.what, said
    assert "cdc checkpoint rewind" in said.remedy, said
    bring_back(pipeline, seed + 2)


def bring_back(pipeline: Pipeline, seed: int) -> None:
    """What the remedy says, command by command; afterwards the replica is the source again, and proven to be."""
    begun = cdc("checkpoint", "rewind", pipeline.source_file, "--new-generation", "--yes", "--json")
    assert begun.status == 0, begun
    assert json.loads(begun.out)["generation"] == 2
    behind = cdc("run", pipeline.sink_file, "--patience", 60)
    assert behind.status == 4, behind
    if "made again" not in behind.what:  # a topic that is not the one it read stops it first
        assert "generation 2" in behind.what, behind
        assert "--new-generation" in behind.remedy, behind
    followed = cdc("checkpoint", "rewind", pipeline.sink_file, "--new-generation", "--yes")
    assert followed.status == 0, followed
    pipeline.start()
    with bank.Traffic(pipeline.source_dsn, seed=seed) as traffic:
        wait_for("traffic goes on", lambda: traffic.commits > 50)
        pipeline.catch_up()
    pipeline.catch_up()
    verify = ("verify", "run", pipeline.source_file, pipeline.sink_file)
    repaired = cdc(*verify, "--repair")
    assert repaired.status in (0, 16), repaired
    pipeline.catch_up()
    assert cdc(*verify).status == 0
    assert_equal(pipeline)
