"""Waits end soon after a stop, and not before."""

from __future__ import annotations

import pytest

from cdc.errors import Unreachable
from cdc.runtime import patience


def test_a_wait_ends_some_time_after_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("cdc.runtime.patience.time.monotonic", lambda: clock[0])
    stopped = [False]
    kept_alive = []
    wait = patience.until_stopped(lambda: kept_alive.append(clock[0]), lambda: stopped[0])
    wait()
    clock[0] += 3600
    wait()
    stopped[0] = True
    wait()
    clock[0] += 19
    wait()
    clock[0] += 2
    with pytest.raises(Unreachable, match="stopped"):
        wait()
    assert len(kept_alive) == 5
