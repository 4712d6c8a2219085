"""How long a source's task waits: for servers that are away, without end; once it is asked to stop, not for long."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from cdc.errors import CdcError, Unreachable
from cdc.pipeline.retry import Backoff

log = logging.getLogger(__name__)

_STEADY_SECONDS = 30.0
_STOPPING_SECONDS = 20.0
"""Longer than capture takes to drain, shorter than a supervisor's patience."""


def keep_on(
    attempt: Callable[[], None], stop: Callable[[], bool], on_away: Callable[[CdcError], None]
) -> None:
    """Run ``attempt`` until it returns or ``stop`` says so, again after each Unreachable, with growing pauses.

    ``on_away`` is told each time. The log tells a reason once, not at each attempt. Other errors are raised.
    """
    backoff = Backoff()
    told = ""
    while not stop():
        began = time.monotonic()
        try:
            attempt()
        except Unreachable as error:
            if time.monotonic() - began > _STEADY_SECONDS:
                backoff.reset()
                told = ""
            if error.what != told:
                log.warning("waiting: %s", error)
                told = error.what
            on_away(error)
            backoff.pause(stop)
        else:
            return


def until_stopped(keep_alive: Callable[[], None], stop: Callable[[], bool]) -> Callable[[], None]:
    """``keep_alive`` for waits that may not outlast ``stop`` by more than 20 s: Unreachable then, nothing is lost."""
    asked: list[float] = []

    def wait() -> None:
        keep_alive()
        if not stop():
            return
        if not asked:
            asked.append(time.monotonic())
        if time.monotonic() - asked[0] > _STOPPING_SECONDS:
            raise Unreachable(
                "stopped before Kafka took everything", "it is sent again at the next start"
            )

    return wait
