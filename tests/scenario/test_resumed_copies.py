"""Copies that are interrupted go on where they were; tables are copied anew, and join, while the stream goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psycopg
import pytest

from cdc.avro_binary import long_at
from cdc.kafka.checkpoints import read_checkpoint
from cdc.kafka.client import Cluster
from cdc.table import TableId
from tests.scenario import bank
from tests.scenario.command import cdc
from tests.scenario.conftest import MakePipeline
from tests.scenario.equality import assert_equal, openings, start_bank, wait_copied_anew
from tests.scenario.pipeline import Pipeline, wait_for
from tests.scenario.raw_topics import events

ROWS = 60_000


def fill(pipeline: Pipeline) -> None:
    pipeline.on_source(
        "CREATE TABLE big (id int PRIMARY KEY, a text)",
        f"INSERT INTO big SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, {ROWS}) i",
    )


def copied_up_to(pipeline: Pipeline) -> int:
    """The key up to which the stored checkpoint says that rows are on the topics; 0 before the first."""
    stored = read_checkpoint(Cluster(pipeline.kafka), "cdc.offsets", f"{pipeline.prefix}-source")
    progress = stored.backfills.get(TableId("public", "big")) if stored else None
    if progress is None or not progress.remaining or progress.remaining[0].after is None:
        return 0
    return long_at(progress.remaining[0].after, 0)[0]


def reader_of(pid: int) -> int:
    """The process that reads for this capture."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in map(int, children):
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
            return child
    raise AssertionError(f"{pid} has no reader process")


@pytest.mark.parametrize(
    "victim",
    ["source", *(pytest.param(v, marks=pytest.mark.matrix) for v in ("reader", "everything"))],
)
def test_a_copy_goes_on_from_its_last_range(make_pipeline: MakePipeline, victim: str) -> None:
    pipeline = make_pipeline()
    fill(pipeline)
    pipeline.start()
    wait_for("a part of the copy is stored", lambda: copied_up_to(pipeline) > 0)
    pid = int(pipeline.task("source")["pid"])
    if victim == "reader":
        os.kill(reader_of(pid), signal.SIGKILL)
    elif victim == "source":
        pipeline.signal_task("source", signal.SIGKILL)
    stored = copied_up_to(pipeline)
    if victim == "everything":
        pipeline.kill()
        pipeline.start()
    pipeline.catch_up()
    assert_equal(pipeline, ["big"])
    assert 0 < stored < ROWS, f"killed when the copy stood at {stored}"
    if victim == "reader":
        assert pipeline.task("source")["pid"] == pid
    times = dict.fromkeys(range(1, ROWS + 1), 0)
    for one in events(pipeline, f"{pipeline.prefix}.public.big"):
        if one.event is not None and one.event.op == "r":
            assert one.event.key is not None
            times[long_at(one.event.key, 0)[0]] += 1
    assert min(times.values()) == 1
    again = [key for key, count in times.items() if count > 1]
    print(f"killed behind {stored} of {ROWS} rows, {len(again)} were read again")
    assert not [key for key in again if key <= stored], "read again although it was stored"


def test_a_live_table_is_copied_anew_under_traffic(make_pipeline: MakePipeline, seed: int) -> None:
    """What was lost or changed in the replica comes back; nobody waits for it."""
    pipeline = make_pipeline()
    start_bank(pipeline)
    with psycopg.connect(pipeline.replica_dsn) as replica:
        replica.execute("DELETE FROM accounts WHERE id % 10 = 0")
        replica.execute("UPDATE accounts SET filler = 'damaged' WHERE id % 10 = 1")
    before = openings(pipeline)
    with bank.Traffic(pipeline.source_dsn, seed=seed):
        said = cdc("table", "backfill", pipeline.source_file, "--table", "public.accounts")
        assert said.status == 0, said
        wait_copied_anew(pipeline, before, "accounts")
        listed = cdc("table", "list", pipeline.source_file)
        assert listed.status == 0, listed
    pipeline.catch_up()
    assert_equal(pipeline)


@pytest.mark.matrix
def test_a_table_joins_by_the_include_list(make_pipeline: MakePipeline, seed: int) -> None:
    pipeline = make_pipeline(source={"table.include.list": "public.(accounts|tellers|branches)"})
    start_bank(pipeline)
    with bank.Traffic(pipeline.source_dsn, seed=seed):
        assert pipeline.stop() == 0
        pipeline.change(pipeline.source_file, {"table.include.list": r"public\..*"})
        pipeline.start()
        pipeline.catch_up()
    pipeline.catch_up()
    assert_equal(pipeline)
