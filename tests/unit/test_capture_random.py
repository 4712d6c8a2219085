"""Random traffic, reads, fences, signals, and crashes of capture at any step: nothing is lost, torn or called wrongly."""

from __future__ import annotations

import pytest

from tests.unit.capture_world import World, without_clocks


def run_one(seed: int, *, atomic: bool = False) -> World:
    print(f"seed {seed}")
    with without_clocks():
        world = World(seed, atomic=atomic)
        for _ in range(world.random.randrange(1200)):
            world.step()
        world.finish()
    return world


def test_the_replica_equals_the_source_whenever_capture_crashes() -> None:
    crashed = sum(run_one(seed).crashed for seed in range(40))
    assert crashed, "no capture crashed: the simulation proves nothing of it"


def test_each_position_stands_there_once_where_records_and_checkpoint_are_one() -> None:
    crashed = sum(run_one(seed, atomic=True).crashed for seed in range(20))
    assert crashed, "no capture crashed: the simulation proves nothing of it"


@pytest.mark.matrix
@pytest.mark.parametrize("block", range(10))
def test_the_same_in_transactions_with_many_seeds(block: int) -> None:
    for seed in range(5000 + block * 100, 5100 + block * 100):
        run_one(seed, atomic=True)


@pytest.mark.matrix
@pytest.mark.parametrize("block", range(20))
def test_the_same_with_many_seeds(block: int) -> None:
    for seed in range(1000 + block * 100, 1100 + block * 100):
        run_one(seed)
