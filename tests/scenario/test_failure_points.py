"""SIGKILL at named points between two steps of a batch, on either side: nothing is lost, nothing takes effect again."""

from __future__ import annotations

import random

import pytest

from cdc.failure_points import VARIABLE
from tests.scenario import bank
from tests.scenario.conftest import MakePipeline
from tests.scenario.equality import assert_equal, assert_once, start_bank, watch_effects
from tests.scenario.pipeline import Pipeline, wait_for

SINK = (
    "apply.before-begin",
    "apply.before-rows",
    "apply.after-rows",
    "apply.before-commit",
    "apply.after-commit",
)
SOURCE = (
    "capture.after-read",
    "capture.before-write",
    "capture.after-write",
    "capture.before-watermark",
    "capture.before-save",
    "capture.after-save",
    "capture.before-confirm",
    "capture.after-confirm",
)


def die_at(pipeline: Pipeline, role: str, point: str, nth: int) -> None:
    """Run until the point was reached for the nth time, end everything with it, and start again."""
    pipeline.kill()
    pipeline.start(env={VARIABLE: f"{point}:{nth}"})

    def died() -> bool:
        if point == "capture.before-watermark":
            pipeline.fence()  # watermarks are written for fences only
        return int(pipeline.task(role).get("restarts", 0)) > 0

    wait_for(f"the {role} dies at {point}:{nth} ({pipeline.log})", died)
    pipeline.kill()
    pipeline.start()


def survive(pipeline: Pipeline, role: str, points: list[tuple[str, int]], seed: int) -> None:
    start_bank(pipeline)
    watch_effects(pipeline)
    with (
        bank.Traffic(pipeline.source_dsn, seed=seed) as traffic,
        bank.Auditor(pipeline.replica_dsn) as auditor,
    ):
        for point, nth in points:
            die_at(pipeline, role, point, nth)
        pipeline.catch_up()
    pipeline.catch_up()
    assert traffic.commits > 20
    assert auditor.audits > 20
    assert_equal(pipeline)
    assert assert_once(pipeline) > 20


@pytest.mark.parametrize(("role", "points"), [("source", SOURCE), ("sink", SINK)])
def test_death_between_two_steps(
    make_pipeline: MakePipeline, seed: int, role: str, points: tuple[str, ...]
) -> None:
    chooser = random.Random(seed)
    chosen = [(point, chooser.randrange(1, 6)) for point in chooser.sample(points, 2)]
    print(f"points {chosen}")
    survive(make_pipeline(), role, chosen, seed)


@pytest.mark.matrix
@pytest.mark.parametrize("round_", range(2))
@pytest.mark.parametrize("point", [*SOURCE, *SINK])
def test_death_at_each_point(
    make_pipeline: MakePipeline, seed: int, point: str, round_: int
) -> None:
    role = "source" if point in SOURCE else "sink"
    chooser = random.Random(seed + round_)
    survive(make_pipeline(), role, [(point, chooser.randrange(1, 20)) for _ in range(2)], seed)
