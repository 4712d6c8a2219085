"""A transaction larger than every memory budget streams through, and memory stays bounded."""

from __future__ import annotations

import pytest

from tests.scenario.conftest import MakePipeline
from tests.scenario.equality import assert_equal
from tests.scenario.pipeline import Pipeline, wait_for

_MOST_MB = 300


def largest(pipeline: Pipeline, most: dict[str, float]) -> None:
    for task in pipeline.tasks():
        role = str(task["role"])
        most[role] = max(most.get(role, 0.0), float(task["rss_mb"] or 0))


@pytest.mark.parametrize("rows", [100_000, pytest.param(1_000_000, marks=pytest.mark.matrix)])
def test_a_large_transaction_streams_through(make_pipeline: MakePipeline, rows: int) -> None:
    small = {"memory.mb": 16}
    pipeline = make_pipeline(source=small, sink=small)
    pipeline.on_source(
        "CREATE TABLE lines (id int PRIMARY KEY, a text, b text)", "INSERT INTO lines VALUES (0)"
    )
    pipeline.start()
    pipeline.catch_up()
    pipeline.on_source(
        "INSERT INTO lines SELECT i, md5(i::text), repeat(md5(i::text), 8)"
        f" FROM generate_series(1, {rows}) i"
    )
    lsn = pipeline.fence()
    most: dict[str, float] = {}

    def passed() -> bool:
        largest(pipeline, most)
        return pipeline.passed(lsn)

    wait_for("the replica has it", passed, 60 + rows / 1000)
    print(f"most resident memory, MiB: {most}")
    assert_equal(pipeline, ["lines"])
    assert set(most) == {"source", "sink"}
    assert max(most.values()) < _MOST_MB, most
