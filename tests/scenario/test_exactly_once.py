"""``exactly.once.support=required``: who reads committed records sees each position once, whatever capture died of."""

from __future__ import annotations

import random
import signal
from collections import Counter

import pytest

from cdc.avro.decoder import EventDecoder
from cdc.failure_points import VARIABLE
from cdc.kafka.registry import Registry
from tests.scenario import bank
from tests.scenario.command import cdc
from tests.scenario.conftest import MakePipeline
from tests.scenario.equality import assert_equal, assert_once, copied, start_bank, watch_effects
from tests.scenario.pipeline import Pipeline, wait_for
from tests.scenario.raw_topics import committed_records, data_topics, events

REQUIRED = {"exactly.once.support": "required"}
POINTS = (
    "capture.after-read",
    "capture.after-write",
    "capture.before-save",
    "capture.after-save",
    "capture.before-confirm",
)


def seen_once(pipeline: Pipeline) -> int:
    """Each position once among what is committed, and as many as the marks of END count; how many events."""
    found: Counter[str] = Counter()
    for topic in data_topics(pipeline):
        positions = Counter(
            stored.event.position
            for stored in events(pipeline, topic, committed=True)
            if stored.event is not None
        )
        twice = [position for position, times in positions.items() if times > 1]
        assert not twice, f"{topic}: {len(twice)} positions stand there twice: {twice[:3]}"
        found[topic.removeprefix(f"{pipeline.prefix}.")] = len(positions)
    decoder = EventDecoder(prefix=pipeline.prefix, registry=Registry(pipeline.registry_url))
    marks = [
        decoder.transaction(record)
        for record in committed_records(pipeline.kafka, f"{pipeline.prefix}.transaction")
    ]
    for ended in (False, True):
        places = Counter(mark.commit_lsn for mark in marks if mark.ended == ended)
        assert not [lsn for lsn, times in places.items() if times > 1]
    counted: Counter[str] = Counter()
    for mark in marks:
        counted.update(dict(mark.counts))
    assert +counted == +found, "rows and counts differ"
    return found.total()


def test_a_reader_of_committed_records_sees_each_position_once(
    make_pipeline: MakePipeline, seed: int
) -> None:
    pipeline = make_pipeline(source=REQUIRED)
    start_bank(pipeline)
    watch_effects(pipeline)
    chooser = random.Random(seed)
    with bank.Traffic(pipeline.source_dsn, seed=seed) as traffic:
        for _ in range(4):
            aim = traffic.commits + chooser.randrange(10, 80)
            wait_for("traffic", lambda aim=aim: traffic.commits >= aim)  # type: ignore[misc]
            pipeline.signal_task("source", signal.SIGKILL)
            pipeline.wait_restarted("source")
        pipeline.catch_up()
    pipeline.catch_up()
    assert_equal(pipeline)
    assert assert_once(pipeline) > 20
    assert seen_once(pipeline) > 500


@pytest.mark.matrix
@pytest.mark.parametrize("point", POINTS)
def test_death_between_two_steps_repeats_nothing(
    make_pipeline: MakePipeline, seed: int, point: str
) -> None:
    pipeline = make_pipeline(source=REQUIRED)
    start_bank(pipeline)
    chooser = random.Random(seed)
    with bank.Traffic(pipeline.source_dsn, seed=seed):
        for _ in range(2):
            pipeline.kill()
            pipeline.start(env={VARIABLE: f"{point}:{chooser.randrange(1, 20)}"})
            wait_for("capture dies", lambda: int(pipeline.task("source").get("restarts", 0)) > 0)
            pipeline.kill()
            pipeline.start()
        pipeline.catch_up()
    pipeline.catch_up()
    assert_equal(pipeline)
    assert seen_once(pipeline) > 100


@pytest.mark.matrix
def test_the_support_can_be_taken_away_and_given_back(
    make_pipeline: MakePipeline, seed: int
) -> None:
    """Each mode goes on where the other one stopped, or died."""
    pipeline = make_pipeline(source=REQUIRED)
    start_bank(pipeline)
    with bank.Traffic(pipeline.source_dsn, seed=seed) as traffic:
        for support in ("requested", "required", "requested"):
            aim = traffic.commits + 30
            wait_for("traffic", lambda aim=aim: traffic.commits >= aim)  # type: ignore[misc]
            pipeline.kill()
            pipeline.change(pipeline.source_file, {"exactly.once.support": support})
            pipeline.start()
            pipeline.catch_up()
    pipeline.catch_up()
    assert_equal(pipeline)


def test_a_late_replica_and_verification_read_topics_that_end_in_marks_of_transactions(
    make_pipeline: MakePipeline, seed: int
) -> None:
    """The last offset of a partition is no record there: whoever waits for it would wait in vain."""
    pipeline = make_pipeline(source=REQUIRED)
    bank.create(pipeline.source_dsn)
    pipeline.start(files=[pipeline.source_file])
    with bank.Traffic(pipeline.source_dsn, seed=seed) as traffic:
        wait_for("traffic", lambda: traffic.commits > 30)
    wait_for("the copy is stored", lambda: copied(pipeline))
    assert pipeline.stop() == 0
    pipeline.start()
    pipeline.catch_up()
    assert cdc("verify", "run", pipeline.source_file, pipeline.sink_file).status == 0
    assert_equal(pipeline)
