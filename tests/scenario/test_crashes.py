"""Processes that die or stall in mid-traffic: nothing is lost, nothing repeats in effect, no replica snapshot is torn."""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.scenario import bank
from tests.scenario.conftest import MakePipeline
from tests.scenario.equality import assert_equal, assert_once, start_bank, watch_effects


def test_first_copy_and_traffic(make_pipeline: MakePipeline, seed: int) -> None:
    pipeline = make_pipeline()
    bank.create(pipeline.source_dsn)
    with bank.Traffic(pipeline.source_dsn, seed=seed) as traffic:
        pipeline.start()
        pipeline.catch_up()
        with bank.Auditor(pipeline.replica_dsn) as auditor:
            time.sleep(3)
            pipeline.catch_up()
    pipeline.catch_up()
    assert traffic.commits > 50
    assert auditor.audits > 20
    assert_equal(pipeline)


def test_ctrl_c_drains_and_the_next_start_resumes(make_pipeline: MakePipeline, seed: int) -> None:
    pipeline = make_pipeline()
    start_bank(pipeline)
    with bank.Traffic(pipeline.source_dsn, seed=seed), bank.Auditor(pipeline.replica_dsn):
        for _ in range(2):
            time.sleep(1)
            assert pipeline.stop() == 0
            pipeline.start()
            pipeline.wait_running()
        time.sleep(1)
    pipeline.catch_up()
    assert_equal(pipeline)


@pytest.mark.parametrize("victim", ["source", "sink"])
def test_sigkill_in_mid_traffic(make_pipeline: MakePipeline, seed: int, victim: str) -> None:
    pipeline = make_pipeline()
    start_bank(pipeline)
    watch_effects(pipeline)
    chooser = random.Random(seed)
    with (
        bank.Traffic(pipeline.source_dsn, seed=seed),
        bank.Auditor(pipeline.replica_dsn) as auditor,
    ):
        for _ in range(3):
            time.sleep(chooser.uniform(0.2, 1.5))
            pipeline.signal_task(victim, signal.SIGKILL)
            pipeline.wait_restarted(victim)
        time.sleep(1)
    pipeline.catch_up()
    assert auditor.audits > 20
    assert_equal(pipeline)
    assert assert_once(pipeline) > 50


def test_sigkill_of_everything_at_once(make_pipeline: MakePipeline, seed: int) -> None:
    pipeline = make_pipeline()
    start_bank(pipeline)
    watch_effects(pipeline)
    with bank.Traffic(pipeline.source_dsn, seed=seed), bank.Auditor(pipeline.replica_dsn):
        for _ in range(2):
            time.sleep(1)
            pipeline.kill()
            pipeline.start()
        time.sleep(1)
    pipeline.catch_up()
    assert_equal(pipeline)
    assert assert_once(pipeline) > 50
