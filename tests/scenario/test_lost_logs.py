"""The source's log is lost in every way it can be: capture stops and says what to do, and doing it works."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from cdc.local.cluster import Cluster
from tests.scenario import bank
from tests.scenario.command import cdc
from tests.scenario.conftest import MakePipeline
from tests.scenario.equality import assert_equal, start_bank
from tests.scenario.pipeline import Pipeline, wait_for
from tests.scenario.raw_topics import bounds, delete_topic, make_topic
from tests.scenario.test_failover import bring_back


def stopped(pipeline: Pipeline, seed: int) -> None:
    start_bank(pipeline)
    with bank.Traffic(pipeline.source_dsn, seed=seed) as traffic:
        wait_for("traffic", lambda: traffic.commits > 50)
    pipeline.catch_up()
    assert pipeline.stop() == 0


def drop_slot(pipeline: Pipeline) -> None:
    pipeline.on_source(f"SELECT pg_drop_replication_slot('{pipeline.prefix}')")


def dropped(pipeline: Pipeline) -> str:
    drop_slot(pipeline)
    return "is gone"


def made_again(pipeline: Pipeline) -> str:
    drop_slot(pipeline)
    pipeline.on_source(
        "UPDATE tellers SET balance = balance + 1 WHERE id = 1",
        f"SELECT pg_create_logical_replication_slot('{pipeline.prefix}', 'pgoutput')",
        "UPDATE tellers SET balance = balance - 1 WHERE id = 1",
    )
    return "ahead of the checkpoint"


def moved_on(pipeline: Pipeline) -> str:
    pipeline.on_source(
        "DELETE FROM history WHERE id % 2 = 0",
        f"SELECT pg_replication_slot_advance('{pipeline.prefix}', pg_current_wal_lsn())",
    )
    return "ahead of the checkpoint"


def topic_made_again(pipeline: Pipeline) -> str:
    topic = f"{pipeline.prefix}.public.tellers"
    count = len(bounds(pipeline.kafka, topic))
    delete_topic(pipeline.kafka, topic)
    make_topic(pipeline.kafka, topic, count)
    return "was deleted and made again"


@pytest.mark.parametrize(
    "lose",
    [
        moved_on,
        pytest.param(dropped, marks=pytest.mark.matrix),
        pytest.param(made_again, marks=pytest.mark.matrix),
        pytest.param(topic_made_again, marks=pytest.mark.matrix),
    ],
)
def test_a_lost_log_stops_capture_and_a_new_generation_brings_the_replica_back(
    make_pipeline: MakePipeline, seed: int, lose: Callable[[Pipeline], str]
) -> None:
    pipeline = make_pipeline()
    stopped(pipeline, seed)
    what = lose(pipeline)
    said = cdc("run", pipeline.source_file, "--patience", 20)
    assert (said.status, what in said.what) == (4, True), said
    assert "cdc checkpoint rewind FILE --new-generation" in said.remedy, said
    bring_back(pipeline, seed + 1)


@pytest.mark.matrix
def test_a_slot_that_is_dropped_while_capture_runs(make_pipeline: MakePipeline, seed: int) -> None:
    pipeline = make_pipeline()
    start_bank(pipeline)
    with psycopg.connect(pipeline.source_dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s",
            (pipeline.prefix,),
        )

        def gone() -> bool:
            try:
                connection.execute("SELECT pg_drop_replication_slot(%s)", (pipeline.prefix,))
            except psycopg.errors.ObjectInUse:
                connection.execute(
                    "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
                    " WHERE slot_name = %s",
                    (pipeline.prefix,),
                )
                return False
            return True

        wait_for("the slot is dropped", gone)
    assert pipeline.wait(60) == 4
    assert "is gone" in pipeline.log.read_text()


def test_log_of_a_busy_neighbour_does_not_pile_up_behind_an_idle_database(
    make_pipeline: MakePipeline, cluster: Cluster
) -> None:
    pipeline = make_pipeline()
    start_bank(pipeline)
    with psycopg.connect(cluster.source.dsn, autocommit=True) as neighbour:
        for _ in range(40):
            neighbour.execute("SELECT pg_logical_emit_message(false, 'busy', repeat('x', 1000000))")

        def kept() -> int:
            row = neighbour.execute(
                "SELECT pg_current_wal_lsn() - confirmed_flush_lsn FROM pg_replication_slots"
                " WHERE slot_name = %s",
                (pipeline.prefix,),
            ).fetchone()
            return int(row[0]) if row else 1 << 40

        wait_for("the slot follows", lambda: kept() < 1 << 20, 30)


def test_a_first_start_names_the_prepared_transaction_that_it_waits_for(
    make_pipeline: MakePipeline,
) -> None:
    """The slot cannot be made before it ends; then what it held is there, whole."""
    pipeline = make_pipeline()
    bank.create(pipeline.source_dsn)
    with psycopg.connect(pipeline.source_dsn, autocommit=True) as connection:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO history (account, delta) VALUES (1, 0)")
        connection.execute(f"PREPARE TRANSACTION '{pipeline.prefix}'")
        pipeline.start()
        gid = f"prepared transaction {pipeline.prefix}"
        wait_for("it is named", lambda: gid in str(pipeline.task("source").get("waiting")))
        assert pipeline.stop() == 0, "it can be stopped while it waits"
        pipeline.start()
        wait_for("it is named again", lambda: gid in str(pipeline.task("source").get("waiting")))
        connection.execute(f"COMMIT PREPARED '{pipeline.prefix}'")
    pipeline.catch_up()
    assert_equal(pipeline)


@pytest.mark.matrix
def test_a_prepared_transaction_is_open_over_a_restart(
    make_pipeline: MakePipeline, seed: int
) -> None:
    pipeline = make_pipeline()
    start_bank(pipeline)
    with psycopg.connect(pipeline.source_dsn, autocommit=True) as connection:
        connection.execute("BEGIN")
        connection.execute("UPDATE accounts SET filler = 'prepared' WHERE id < 10")
        connection.execute(f"PREPARE TRANSACTION '{pipeline.prefix}'")
        pipeline.on_source("UPDATE tellers SET balance = balance + 0")
        pipeline.catch_up()
        pipeline.kill()
        pipeline.start()
        # A copy that begins now finds the transaction open, and takes its rows from the log when it commits.
        pipeline.catch_up()
        asked = cdc("table", "backfill", pipeline.source_file, "--table=public.accounts")
        assert asked.status == 0, asked
        connection.execute(f"COMMIT PREPARED '{pipeline.prefix}'")
    pipeline.catch_up()
    assert_equal(pipeline)


@pytest.mark.matrix
def test_a_source_can_send_again_and_a_sink_read_again(
    make_pipeline: MakePipeline, seed: int
) -> None:
    """Both under the positions that they had: nothing takes effect twice."""
    pipeline = make_pipeline()
    stopped(pipeline, seed)
    refused = cdc("checkpoint", "rewind", pipeline.source_file, "--to", "0/1", "--yes")
    assert (refused.status, "is not between them" in refused.what) == (4, True), refused
    again = cdc("checkpoint", "rewind", pipeline.sink_file, "--yes")
    assert again.status == 0, again
    pipeline.start()
    pipeline.catch_up()
    running = cdc("checkpoint", "rewind", pipeline.source_file, "--new-generation", "--yes")
    assert (running.status, "runs" in running.what) == (4, True), running
    with bank.Traffic(pipeline.source_dsn, seed=seed) as traffic:
        wait_for("traffic", lambda: traffic.commits > 20)
    pipeline.catch_up()
    assert cdc("verify", "run", pipeline.source_file, pipeline.sink_file).status == 0
