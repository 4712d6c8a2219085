"""Servers that die and come back: tasks reconnect without a restart, nothing is lost, no replica snapshot is torn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from cdc.local.cluster import Cluster
from tests.scenario import bank
from tests.scenario.conftest import MakePipeline, pipelines
from tests.scenario.equality import assert_equal, assert_once, start_bank, watch_effects
from tests.scenario.logs import lines_with
from tests.scenario.pipeline import Pipeline, wait_for

_CLIENT = "cdc.kafka.client:"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Servers that these tests may break."""
    with Cluster.up(tmp_path_factory.mktemp("own") / "cluster") as cluster:
        yield cluster


@contextmanager
def own_pipelines(
    cluster: Cluster, folder: Path, prefix: str, **usual: Any
) -> Iterator[MakePipeline]:
    """Pipelines over fresh databases of a cluster of one's own."""
    dsns = {}
    for side in ("source", "replica"):
        server = cluster.postgres(side)
        name = f"{side[0]}_{prefix}"
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        dsns[f"{side}_dsn"] = make_conninfo(server.dsn, dbname=name)
    with pipelines(
        folder,
        **dsns,
        kafka=cluster.bootstrap_servers,
        registry_url=cluster.schema_registry_url,
        prefix=prefix,
        **usual,
    ) as make:
        yield make
    with psycopg.connect(cluster.source.dsn, autocommit=True) as connection:
        wait_for(
            "the slot is free",
            lambda: (
                connection.execute(
                    "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND active", (prefix,)
                ).fetchone()
                is None
            ),
        )
        connection.execute("SELECT pg_drop_replication_slot(%s)", (prefix,))


@pytest.fixture
def pipeline(own: Cluster, tmp_path: Path, prefix: str) -> Iterator[Pipeline]:
    """A pipeline over a bank, with its first copy done."""
    with own_pipelines(own, tmp_path, prefix) as make:
        made = make()
        start_bank(made)
        watch_effects(made)
        yield made


def pids(pipeline: Pipeline) -> list[tuple[Any, Any]]:
    return [(task["pid"], task["restarts"]) for task in pipeline.tasks()]


@contextmanager
def surviving(pipeline: Pipeline, seed: int) -> Iterator[bank.Traffic]:
    """Traffic while something breaks; afterwards the same processes have brought everything over, once."""
    before = pids(pipeline)
    with (
        bank.Traffic(pipeline.source_dsn, seed=seed) as traffic,
        bank.Auditor(pipeline.replica_dsn) as auditor,
    ):
        moving(traffic)
        yield traffic
        moving(traffic)
        pipeline.catch_up()
    pipeline.catch_up()
    assert pids(pipeline) == before, "a task was started again"
    assert auditor.audits > 20
    assert_equal(pipeline)
    assert assert_once(pipeline) > 20


def moving(traffic: bank.Traffic, commits: int = 50) -> None:
    """Wait for so many further commits."""
    aim = traffic.commits + commits
    wait_for("traffic goes on", lambda: traffic.commits >= aim)


@pytest.mark.parametrize("victim", ["source", "replica", "broker-1"])
def test_a_server_is_killed_and_comes_back(
    own: Cluster, pipeline: Pipeline, seed: int, victim: str
) -> None:
    with surviving(pipeline, seed):
        own.kill(victim)
        wait_for(
            "a task says so",
            lambda: any(task["state"] == "unreachable" for task in pipeline.tasks()),
        )
        time.sleep(0.5)
        own.start(victim)


@pytest.mark.matrix
@pytest.mark.parametrize("round_", range(3))
@pytest.mark.parametrize("victim", ["source", "replica", "broker-1", "registry"])
@pytest.mark.parametrize("fault", ["kill", "stop", "pause"])
def test_a_server_goes_and_comes_back_again_and_again(
    own: Cluster, pipeline: Pipeline, seed: int, victim: str, fault: str, round_: int
) -> None:
    with surviving(pipeline, seed + round_) as traffic:
        for number in range(3):
            if fault == "kill":
                own.kill(victim)
            elif fault == "stop":
                own.stop(victim)
            else:
                own.pause(victim)
            time.sleep((0.2, 2.0, 8.0)[(number + round_) % 3])
            if fault == "pause":
                own.resume(victim)
            else:
                own.start(victim)
            moving(traffic)
            pipeline.catch_up()


def test_a_silent_broker_is_told_and_the_walsender_is_answered_meanwhile(
    own: Cluster, tmp_path: Path, prefix: str, seed: int
) -> None:
    """Records wait for longer than wal_sender_timeout, and the stream stays the same one."""
    with own_pipelines(own, tmp_path, prefix) as make:
        pipeline = make()
        pipeline.on_source(f"ALTER DATABASE s_{prefix} SET wal_sender_timeout = '3s'")
        start_bank(pipeline)
        watch_effects(pipeline)
        with surviving(pipeline, seed) as traffic:
            before = walsender(own, prefix)
            own.pause("broker-1")
            wait_for("the source says so", lambda: unreachable(pipeline), 30)
            told = pipeline.task("source")
            assert "waiting for brokers" in told["error"], told
            assert told["remedy"], told
            assert time.time() - 30 < told["since"] <= time.time(), told
            moving(traffic)
            own.resume(
                "broker-1"
            )  # before a save of the checkpoint is given up, which begins capture anew
            wait_for("the source runs", lambda: not unreachable(pipeline), 30)
            assert walsender(own, prefix) == before


def unreachable(pipeline: Pipeline) -> bool:
    return bool(pipeline.task("source")["state"] == "unreachable")


def walsender(cluster: Cluster, slot: str) -> int | None:
    with psycopg.connect(cluster.source.dsn) as connection:
        row = connection.execute(
            "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", (slot,)
        ).fetchone()
    return row[0] if row else None


def test_the_registry_is_away_when_new_schemas_come(
    own: Cluster, pipeline: Pipeline, seed: int
) -> None:
    with surviving(pipeline, seed) as traffic:
        own.kill("registry")
        moving(traffic)
        pipeline.catch_up()  # schemas that are known need no registry
        pipeline.on_source(
            "ALTER TABLE tellers ADD COLUMN note text",
            "UPDATE tellers SET note = 'new schema' WHERE id = 1",
        )
        wait_for("capture waits", lambda: pipeline.task("source")["state"] == "unreachable")
        assert "registry" in str(pipeline.task("source")["error"])
        own.start("registry")
        pipeline.catch_up()
    with psycopg.connect(pipeline.replica_dsn) as replica:
        assert replica.execute("SELECT note FROM tellers WHERE id = 1").fetchone() == (
            "new schema",
        )


def test_the_broker_stays_away_longer_than_every_timeout(
    own: Cluster, tmp_path: Path, prefix: str, seed: int
) -> None:
    """Nothing that was handed to the client may expire while later records go through (rule 10)."""
    short = {
        "producer.override.request.timeout.ms": 1000,
        "producer.override.retry.backoff.ms": 50,
        "producer.override.retry.backoff.max.ms": 100,
        "kafka.socket.timeout.ms": 2000,
        "kafka.reconnect.backoff.max.ms": 200,
    }
    with own_pipelines(own, tmp_path, prefix, source=short) as make:
        pipeline = make()
        start_bank(pipeline)
        watch_effects(pipeline)
        with surviving(pipeline, seed) as traffic:
            own.kill("broker-1")
            before = len(pipeline.log.read_text())
            began = time.monotonic()
            wait_for("the source goes on writing", lambda: time.monotonic() - began > 10)
            moving(traffic)
            said = lines_with(pipeline.log.read_text()[before:], _CLIENT)
            assert len(said) < 10, said
            own.start("broker-1")


@pytest.mark.matrix
@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_one_broker_of_three_goes(tmp_path: Path, prefix: str, seed: int, fault: str) -> None:
    with (
        Cluster.up(tmp_path / "three", brokers=3) as three,
        own_pipelines(three, tmp_path, prefix) as make,
    ):
        pipeline = make()
        start_bank(pipeline)
        watch_effects(pipeline)
        with surviving(pipeline, seed) as traffic:
            for number in (1, 2, 3):
                name = f"broker-{number}"
                if fault == "kill":
                    three.kill(name)
                else:
                    three.pause(name)
                moving(traffic, 200)
                pipeline.catch_up()
                if fault == "kill":
                    three.start(name)
                else:
                    three.resume(name)
                pipeline.catch_up()
