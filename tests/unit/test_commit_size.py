"""Commits of a size that suits the line and the replica, with the backlog always larger than one commit."""

from __future__ import annotations

import random
import secrets

import pytest

from cdc.pipeline.commit_size import CommitSize

MOST = 16 << 20
SECONDS = 0.25


def settled(each: float, per_byte: float, *, noise: float = 0.0, commits: int = 60) -> list[int]:
    """The sizes that commits come to, when a commit costs so much of itself and for each byte."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    by = random.Random(seed)
    size = CommitSize(MOST, SECONDS)
    taken = []
    for _ in range(commits):
        taken.append(size.bytes)
        size.learn(size.bytes, (each + per_byte * size.bytes) * by.uniform(1 - noise, 1 + noise))
    return taken[commits // 2 :]


def test_on_a_near_replica_a_commit_lasts_as_long_as_wished() -> None:
    for taken in settled(0.003, 1 / 40e6):
        assert taken / 40e6 == pytest.approx(SECONDS, rel=0.2)


def test_a_slow_replica_gets_small_commits() -> None:
    for taken in settled(0.003, 1 / 2e6):
        assert taken / 2e6 <= 1.2 * SECONDS


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_over_a_slow_line_commits_stay_large_and_most_of_the_time_carries_bytes(
    noise: float,
) -> None:
    each, per_byte = 0.8, 1 / 10e6
    taken = settled(each, per_byte, noise=noise, commits=200)
    carrying = sum(taken) * per_byte / sum(each + per_byte * size for size in taken)
    assert carrying > 0.6  # with commits of 16 MB, the most there are, it would be 0.68


def test_small_commits_of_quiet_hours_do_not_hold_up_a_burst() -> None:
    each, per_byte = 0.005, 1 / 40e6
    size = CommitSize(MOST, SECONDS)
    for _ in range(500):
        size.learn(1_000, each + per_byte * 1_000)
    commits = 0
    while size.bytes < 4 << 20:
        size.learn(size.bytes, each + per_byte * size.bytes)
        commits += 1
    assert commits < 10


def test_a_commit_without_events_teaches_nothing_wrong() -> None:
    size = CommitSize(MOST, SECONDS)
    for _ in range(20):
        size.learn(0, 0.01)
    assert size.bytes == MOST
