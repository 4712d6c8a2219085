"""``apply.mode=partition``: tasks that share partitions, come and go, stop and wake up; the replica ends as the source."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import psycopg
import pytest

from tests.scenario import bank, shelf
from tests.scenario.conftest import MakePipeline
from tests.scenario.pipeline import Pipeline, rows, wait_for

_TABLES = (*bank.TABLES, *shelf.TABLES)
_GROUP = {
    "apply.mode": "partition",
    "consumer.override.session.timeout.ms": 6000,
    "consumer.override.heartbeat.interval.ms": 500,
    "consumer.override.max.poll.interval.ms": 6000,
}


def wait_equal(pipeline: Pipeline, tables: Sequence[str] = _TABLES, seconds: float = 90) -> None:
    """Every table becomes the source's."""
    for table in tables:
        there = rows(pipeline.source_dsn, table)
        deadline = time.monotonic() + seconds
        while (here := rows(pipeline.replica_dsn, table)) != there:
            assert pipeline.alive(), pipeline.log.read_text()[-2000:]
            lacking, extra = set(there) - set(here), set(here) - set(there)
            shown = [str(row)[:100] for row in [*sorted(lacking)[:2], *sorted(extra)[:2]]]
            assert time.monotonic() < deadline, (
                f"{table}: {len(lacking)} rows lack, {len(extra)} are too many: {shown} ({pipeline.log})"
            )
            time.sleep(0.1)


def owners(pipeline: Pipeline) -> set[int]:
    """The sessions that hold partitions."""
    with psycopg.connect(pipeline.replica_dsn) as connection:
        found = connection.execute("SELECT to_regclass('cdc.partitions')").fetchone()
        if found == (None,):
            return set()
        return {
            row[0]
            for row in connection.execute(
                "SELECT DISTINCT owner_pid FROM cdc.partitions WHERE owner_pid IS NOT NULL"
            )
        }


def sinks(pipeline: Pipeline) -> list[int]:
    """The processes of the sink's tasks that run."""
    return [
        int(task["pid"])
        for task in pipeline.tasks()
        if task["role"] == "sink" and task["pid"] and task["state"] == "running"
    ]


def start(pipeline: Pipeline) -> None:
    bank.create(pipeline.source_dsn)
    shelf.create(pipeline.source_dsn)
    pipeline.start()
    wait_for("both tables of the shelf are live", lambda: all_live(pipeline))


def all_live(pipeline: Pipeline) -> bool:
    assert pipeline.alive(), pipeline.log.read_text()[-2000:]
    with psycopg.connect(pipeline.replica_dsn) as connection:
        if connection.execute("SELECT to_regclass('cdc.tables')").fetchone() == (None,):
            return False
        states = connection.execute("SELECT state FROM cdc.tables").fetchall()
    return len(states) == len(_TABLES) and set(states) == {("live",)}


def verify(pipeline: Pipeline) -> dict[str, object]:
    files = [str(pipeline.source_file), str(pipeline.sink_file)]
    done = subprocess.run(
        [sys.executable, "-m", "cdc.cli.main", "verify", "run", *files, "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    report: dict[str, object] = json.loads(done.stdout)
    return report


def test_two_tasks_share_the_partitions_and_are_verified_under_traffic(
    make_pipeline: MakePipeline, seed: int
) -> None:
    pipeline = make_pipeline(sink={**_GROUP, "tasks.max": 2})
    start(pipeline)
    with (
        bank.Traffic(pipeline.source_dsn, seed=seed),
        shelf.Traffic(pipeline.source_dsn, seed=seed) as traffic,
    ):
        wait_for("two sessions hold partitions", lambda: len(owners(pipeline)) == 2)
        time.sleep(2)
        report = verify(pipeline)
        assert report["verdict"] == "OK", report
        time.sleep(1)
    assert traffic.truncates
    assert traffic.moves
    wait_equal(pipeline)
    with psycopg.connect(pipeline.replica_dsn) as connection:
        connection.execute("DELETE FROM books WHERE id = (SELECT min(id) FROM books)")
    assert verify(pipeline)["verdict"] == "DIFF"


@pytest.mark.matrix
def test_tasks_are_killed_stopped_and_continued(make_pipeline: MakePipeline, seed: int) -> None:
    """One is killed; one sleeps past every timeout of the group, and can write nothing when it wakes up."""
    pipeline = make_pipeline(sink={**_GROUP, "tasks.max": 2})
    start(pipeline)
    chooser = random.Random(seed)
    with (
        bank.Traffic(pipeline.source_dsn, seed=seed),
        shelf.Traffic(pipeline.source_dsn, seed=seed) as traffic,
    ):
        wait_for("two sessions hold partitions", lambda: len(owners(pipeline)) == 2)
        killed = chooser.choice(sinks(pipeline))
        os.kill(killed, signal.SIGKILL)
        wait_for(
            "another one is in its place",
            lambda: len(sinks(pipeline)) == 2 and killed not in sinks(pipeline),
        )
        wait_for("two sessions hold partitions again", lambda: len(owners(pipeline)) == 2)
        asleep = chooser.choice(sinks(pipeline))
        os.kill(asleep, signal.SIGSTOP)
        try:
            before = owners(pipeline)
            wait_for("the other one owns all", lambda: len(owners(pipeline)) == 1)
            assert owners(pipeline) <= before
            time.sleep(2)
        finally:
            os.kill(asleep, signal.SIGCONT)
        wait_for("both hold partitions in the end", lambda: len(owners(pipeline)) == 2)
        time.sleep(1)
    assert traffic.commits > 100
    wait_equal(pipeline)


@pytest.mark.matrix
@pytest.mark.parametrize("round_", range(3))
def test_rebalances_every_two_seconds(make_pipeline: MakePipeline, seed: int, round_: int) -> None:
    """A third task comes and goes, in every way a process can go."""
    pipeline = make_pipeline(sink={**_GROUP, "tasks.max": 2})
    guest = make_pipeline(prefix=pipeline.prefix, sink={**_GROUP, "tasks.max": 1})
    start(pipeline)
    chooser = random.Random(seed + round_)
    with (
        bank.Traffic(pipeline.source_dsn, seed=seed + round_),
        shelf.Traffic(pipeline.source_dsn, seed=seed + round_) as traffic,
    ):
        for turn in range(12):
            guest.start(files=[guest.sink_file])
            time.sleep(2)
            if turn % 2:
                guest.kill()
            else:
                guest.stop()
            if turn % 4 == 3:
                os.kill(chooser.choice(sinks(pipeline)), signal.SIGKILL)
            time.sleep(2)
    assert traffic.truncates
    wait_equal(pipeline)
    assert verify(pipeline)["verdict"] == "OK"


@pytest.mark.matrix
@pytest.mark.parametrize(
    "point",
    [
        "apply.before-rows",
        "apply.after-rows",
        "apply.before-commit",
        "apply.after-commit",
        "partition.before-claim",
        "partition.after-claim",
        "partition.before-release",
        "partition.before-truncate",
        "partition.after-truncate",
    ],
)
def test_killed_at_a_failure_point(make_pipeline: MakePipeline, seed: int, point: str) -> None:
    pipeline = make_pipeline(sink={**_GROUP, "tasks.max": 1})
    other = make_pipeline(prefix=pipeline.prefix, sink={**_GROUP, "tasks.max": 1})
    start(pipeline)
    with (
        bank.Traffic(pipeline.source_dsn, seed=seed),
        shelf.Traffic(pipeline.source_dsn, seed=seed),
    ):
        for nth in (1, 3):
            other.start(files=[other.sink_file], env={"CDC_FAILURE_POINT": f"{point}:{nth}"})
            time.sleep(4)
            other.kill() if nth == 1 else other.stop()
    wait_equal(pipeline)
