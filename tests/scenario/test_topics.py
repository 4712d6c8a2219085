"""Topics that are old, short, damaged or doubled: a sink goes on where it may, and else stops and says what to do."""

from __future__ import annotations

import random
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc.event import Record
from cdc.local.cluster import Cluster
from tests.scenario import bank
from tests.scenario.command import Said, cdc
from tests.scenario.conftest import MakePipeline
from tests.scenario.equality import (
    assert_equal,
    assert_once,
    copied,
    openings,
    start_bank,
    wait_copied_anew,
    watch_effects,
)
from tests.scenario.pipeline import Pipeline, wait_for
from tests.scenario.raw_topics import (
    assert_first_appearances_in_order,
    bounds,
    data_topics,
    delete_records,
    delete_topic,
    make_topic,
    produce,
    records,
)


@pytest.fixture
def second_dsn(cluster: Cluster, prefix: str) -> Iterator[str]:
    """A further empty database on the replica's server."""
    name = f"second_{prefix}"
    with psycopg.connect(cluster.replica.dsn, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield make_conninfo(cluster.replica.dsn, dbname=name)
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def run_sink(pipeline: Pipeline) -> Said:
    """The sink alone, to its end."""
    return cdc("run", pipeline.sink_file, "--patience", 20)


def traffic(pipeline: Pipeline, seed: int, commits: int = 60) -> None:
    with bank.Traffic(pipeline.source_dsn, seed=seed) as writing:
        wait_for("traffic goes on", lambda: writing.commits > commits)


def behind(make_pipeline: MakePipeline, seed: int) -> Pipeline:
    """A pipeline whose sink has stopped, with changes on the topics that it has not read; the source runs on."""
    pipeline = make_pipeline()
    start_bank(pipeline)
    assert pipeline.stop() == 0
    source = make_pipeline()
    source.start(files=[source.source_file])
    traffic(pipeline, seed)
    lsn = pipeline.fence()
    wait_for(
        "the source has written them",
        lambda: (source.task("source").get("position") or 0) >= lsn,
    )
    wait_for("the checkpoint is stored", lambda: copied(source))
    assert source.stop() == 0
    return pipeline


def test_a_second_replica_joins_while_the_topics_are_whole(
    make_pipeline: MakePipeline, second_dsn: str, seed: int
) -> None:
    """Rules 12 and 13: everything from the first record on, under traffic."""
    first = make_pipeline()
    start_bank(first)
    second = make_pipeline(replica_dsn=second_dsn, sink={"name": f"{first.prefix}-second"})
    with bank.Traffic(first.source_dsn, seed=seed) as writing:
        wait_for("traffic goes on", lambda: writing.commits > 50)
        second.start(files=[second.sink_file])
        second.catch_up()
        with bank.Auditor(second_dsn):
            traffic(first, seed + 1)
    second.catch_up()
    first.catch_up()
    assert_equal(first)
    assert_equal(second)


def test_a_second_replica_joins_after_retention(
    make_pipeline: MakePipeline, second_dsn: str, seed: int
) -> None:
    """Rule 13: it stops with the command to run; once that was run it works."""
    first = make_pipeline()
    start_bank(first)
    traffic(first, seed)
    first.catch_up()
    for topic in data_topics(first):
        ends = bounds(first.kafka, topic)
        delete_records(first.kafka, {(topic, number): end for number, (_, end) in ends.items()})
    second = make_pipeline(replica_dsn=second_dsn, sink={"name": f"{first.prefix}-second"})
    said = run_sink(second)
    assert said.status == 4, said
    assert "cdc table backfill FILE --table public." in said.remedy, said
    wanted = [f"--table=public.{name}" for name in bank.TABLES]
    before = openings(first)
    asked = cdc("table", "backfill", first.source_file, *wanted)
    assert asked.status == 0, asked
    wait_copied_anew(first, before, *bank.TABLES)
    with bank.Traffic(first.source_dsn, seed=seed):
        second.start(files=[second.sink_file])
        second.catch_up()
    second.catch_up()
    assert_equal(second)


def test_records_that_retention_took_before_they_were_read_stop_the_sink(
    make_pipeline: MakePipeline, seed: int
) -> None:
    pipeline = behind(make_pipeline, seed)
    topic = f"{pipeline.prefix}.public.accounts"
    ends = bounds(pipeline.kafka, topic)
    delete_records(pipeline.kafka, {(topic, number): end for number, (_, end) in ends.items()})
    said = run_sink(pipeline)
    assert said.status == 4, said
    assert topic in said.what, said
    assert "retention" in said.what, said


def test_a_topic_that_was_deleted_and_made_again_stops_both_sides(
    make_pipeline: MakePipeline, seed: int
) -> None:
    """Rule 17: neither is a resume."""
    pipeline = behind(make_pipeline, seed)
    topic = f"{pipeline.prefix}.public.tellers"
    count = len(bounds(pipeline.kafka, topic))
    delete_topic(pipeline.kafka, topic)
    said = run_sink(pipeline)
    assert (said.status, topic in said.what) == (4, True), said
    said = cdc("run", pipeline.source_file, "--patience", 20)
    assert (said.status, topic in said.what) == (4, True), said
    make_topic(pipeline.kafka, topic, count)
    said = run_sink(pipeline)
    assert (said.status, topic in said.what) == (4, True), said
    assert "made again" in said.what, said


@pytest.mark.parametrize(
    "poison",
    [b"not avro at all", b"\x00\x00\x00\x00\x01", b"\x00\x7f\xff\xff\xff\x02\x02", b""],
    ids=["no frame", "torn", "unknown schema", "empty"],
)
def test_a_poison_record_stops_the_sink_and_is_named(
    make_pipeline: MakePipeline, seed: int, poison: bytes
) -> None:
    pipeline = make_pipeline()
    start_bank(pipeline)
    topic = f"{pipeline.prefix}.public.accounts"
    number = random.Random(seed).randrange(len(bounds(pipeline.kafka, topic)))
    offset = bounds(pipeline.kafka, topic)[number][1]
    produce(pipeline.kafka, [Record(topic, number, b"key", poison)])
    assert pipeline.wait() == 1
    said = pipeline.log.read_text().splitlines()[-2:]
    assert f"{topic}[{number}]@{offset}" in said[0], said
    assert said[1].strip().startswith("do: "), said


def test_a_replica_put_back_from_a_backup_replays_to_equality(
    make_pipeline: MakePipeline, cluster: Cluster, seed: int
) -> None:
    """Its checkpoint goes back with it: what it lacks is on the topics."""
    pipeline = make_pipeline()
    start_bank(pipeline)
    traffic(pipeline, seed)
    pipeline.catch_up()
    assert pipeline.stop() == 0
    name = str(conninfo_to_dict(pipeline.replica_dsn)["dbname"])
    with psycopg.connect(cluster.replica.dsn, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}_backup" TEMPLATE "{name}"')
    pipeline.start()
    traffic(pipeline, seed + 1)
    pipeline.catch_up()
    assert pipeline.stop() == 0
    with psycopg.connect(cluster.replica.dsn, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        connection.execute(f'ALTER DATABASE "{name}_backup" RENAME TO "{name}"')
    watch_effects(pipeline)
    with bank.Auditor(pipeline.replica_dsn):
        pipeline.start()
        pipeline.catch_up()
    assert_equal(pipeline)
    assert assert_once(pipeline) > 20


def test_a_segment_that_stands_there_twice_takes_effect_once(
    make_pipeline: MakePipeline, seed: int
) -> None:
    """What a mirror or a restored broker may do: old records behind newer ones, marks too."""
    pipeline = make_pipeline()
    start_bank(pipeline)
    watch_effects(pipeline)
    traffic(pipeline, seed)
    pipeline.catch_up()
    again = [
        record
        for topic in (*data_topics(pipeline), f"{pipeline.prefix}.transaction")
        for record in records(pipeline.kafka, topic)
    ]
    with bank.Auditor(pipeline.replica_dsn) as auditor:
        produce(pipeline.kafka, again)
        traffic(pipeline, seed + 1)
        pipeline.catch_up()
    assert auditor.audits > 5
    assert_equal(pipeline)
    assert assert_once(pipeline) > 20
    assert assert_first_appearances_in_order(pipeline) > 0
