"""Goes on when servers that were away come back: the loop around a source's task."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from cdc.errors import CdcError, Unreachable
from cdc.pipeline.retry import Backoff

log = logging.getLogger(__name__)

_STEADY_SECONDS = 30.0


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
