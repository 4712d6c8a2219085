"""SIGKILL for a task in mid-traffic, and the wait until its successor has made up for it."""

from __future__ import annotations

import os
import signal
import time
from typing import NamedTuple

from deploy.flights.latency import Probe
from deploy.flights.pipeline import Pipeline

_RECOVERY_SECONDS = 90
_ON_ITS_WAY = 0.5
"""Seconds that a commit may need to pass the other task, which lives: what it brings later is the successor's."""


class Kill(NamedTuple):
    """``began`` and ``ended`` by the monotonic clock: from the signal until a later commit was visible."""

    what: str
    pid: int
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        """From the signal until the replica moved again."""
        return self.ended - self.began


def kill(pipeline: Pipeline, probe: Probe, role: str, what: str) -> Kill:
    """Kill the role's process; returns when the replica shows a commit that was made after the signal.

    Raises Failed when it does not within 90 seconds.
    """
    pipeline.wait(
        f"{what} runs", lambda: pipeline.task(role).get("state") == "running", _RECOVERY_SECONDS
    )
    pid = int(pipeline.task(role)["pid"])
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)

    def recovered() -> bool:
        probe.check()
        task = pipeline.task(role)
        anew = task.get("state") == "running" and task.get("pid") not in (None, pid)
        return anew and probe.seen_since(began + _ON_ITS_WAY) is not None

    pipeline.wait(f"{what} recovers after SIGKILL", recovered, _RECOVERY_SECONDS)
    seen = probe.seen_since(began + _ON_ITS_WAY)
    assert seen is not None
    return Kill(what, pid, began, seen)
