"""Owners that were stopped and taken over: the new one works within seconds, the old one never writes again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.scenario import bank
from tests.scenario.conftest import MakePipeline
from tests.scenario.equality import assert_equal, assert_once, start_bank, watch_effects
from tests.scenario.pipeline import Pipeline, wait_for
from tests.scenario.raw_topics import assert_first_appearances_in_order, bounds, data_topics

_TAKEN_OVER = 30.0  # seconds; the start of two interpreters and a backoff are in it


@contextmanager
def stopped(pipeline: Pipeline, role: str) -> Iterator[int]:
    """The task is stopped in mid-traffic, its supervisor too, so that nothing acts for it."""
    pid = pipeline.signal_task(role, signal.SIGSTOP)
    assert pipeline.pid is not None
    os.kill(pipeline.pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        for one in (pid, pipeline.pid):
            if one is not None:
                os.kill(one, signal.SIGCONT)


def stop_in_transaction(pipeline: Pipeline) -> None:
    """Stop the sink again and again until it is caught with a transaction open that has written."""
    for _ in range(400):
        pid = pipeline.signal_task("sink", signal.SIGSTOP)
        with psycopg.connect(pipeline.replica_dsn) as connection:
            caught = connection.execute(
                "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'cdc/%%/apply'"
                " AND datname = current_database() AND state = 'idle in transaction'"
                " AND backend_xid IS NOT NULL"
            ).fetchone()
        if caught:
            return
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.01)
    raise AssertionError("the sink was never caught in a transaction")


def epoch(pipeline: Pipeline) -> int:
    with psycopg.connect(pipeline.replica_dsn) as connection:
        row = connection.execute("SELECT max(epoch) FROM cdc.checkpoints").fetchone()
        assert row is not None
        return int(row[0])


def fenced(pipeline: Pipeline, seconds: float = 60) -> None:
    """The old owner's run ends by itself, and says why."""
    status = pipeline.wait(seconds)
    log = pipeline.log.read_text()
    assert status == 1, log[-2000:]
    said = log.splitlines()[-2:]
    assert said[0].startswith("error: "), log[-2000:]
    assert any("another" in line or "one process" in line for line in said), said


@pytest.mark.parametrize(
    "round_", [0, *(pytest.param(n, marks=pytest.mark.matrix) for n in (1, 2, 3))]
)
def test_a_stopped_sink_is_taken_over(make_pipeline: MakePipeline, seed: int, round_: int) -> None:
    source = make_pipeline()
    old = make_pipeline()
    new = make_pipeline()
    bank.create(source.source_dsn)
    source.start(files=[source.source_file])
    old.start(files=[old.sink_file])
    old.catch_up()
    watch_effects(old)
    with (
        bank.Traffic(source.source_dsn, seed=seed + round_, pause=0.0),
        bank.Auditor(source.replica_dsn) as auditor,
    ):
        stop_in_transaction(old)
        before = epoch(old)
        with stopped(old, "sink"):
            began = time.monotonic()
            new.start(files=[new.sink_file])
            lsn = new.fence()
            wait_for("the new owner applies", lambda: new.passed(lsn), _TAKEN_OVER)
            print(f"taken over after {time.monotonic() - began:.1f} s")
        fenced(old)
        assert epoch(new) == before + 1, "the old owner took it back"
    new.catch_up()
    assert auditor.audits > 20
    assert_equal(new)
    assert assert_once(new) > 20


@pytest.mark.parametrize(
    "round_", [0, *(pytest.param(n, marks=pytest.mark.matrix) for n in (1, 2, 3))]
)
def test_a_stopped_capture_is_taken_over(
    make_pipeline: MakePipeline, seed: int, round_: int
) -> None:
    sink = make_pipeline()
    old = make_pipeline()
    new = make_pipeline()
    bank.create(old.source_dsn)
    old.start(files=[old.source_file])
    sink.start(files=[sink.sink_file])
    sink.catch_up()
    with (
        bank.Traffic(old.source_dsn, seed=seed + round_, pause=0.0),
        bank.Auditor(old.replica_dsn) as auditor,
    ):
        time.sleep(0.5)
        with stopped(old, "source"):
            began = time.monotonic()
            new.start(files=[new.source_file])
            lsn = new.fence()
            wait_for("the new owner captures", lambda: sink.passed(lsn), _TAKEN_OVER)
            print(f"taken over after {time.monotonic() - began:.1f} s")
        fenced(old)
    sink.catch_up()
    assert auditor.audits > 20
    assert_equal(sink)
    repeats = assert_first_appearances_in_order(sink)
    print(f"{repeats} records were written again")
    for topic in data_topics(sink):
        assert sum(end - low for low, end in bounds(sink.kafka, topic).values()), topic


def test_two_captures_do_not_take_it_from_each_other_for_ever(
    make_pipeline: MakePipeline,
) -> None:
    """The one that started last stays; the other one ends and says so."""
    old, new = make_pipeline(), make_pipeline()
    start_bank(old)
    new.start(files=[new.source_file])
    fenced(old)
    new.wait_running()
    pid = new.task("source")["pid"]
    new.fence()
    time.sleep(2)
    assert (new.task("source")["pid"], new.task("source")["restarts"]) == (pid, 0)
