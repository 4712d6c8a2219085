"""Goes on when servers that were away come back: the loop around every task."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

from cdc.errors import CdcError, Unreachable

log = logging.getLogger(__name__)

_FIRST_WAIT = 0.1
_LONGEST_WAIT = 10.0
_STEADY_SECONDS = 30.0


def keep_on(
    attempt: Callable[[], None], stop: Callable[[], bool], on_away: Callable[[CdcError], None]
) -> None:
    """Run ``attempt`` until it returns or ``stop`` says so, again after each Unreachable, with growing waits.

    ``on_away`` is told each time. The log tells a reason once, not at each attempt. Other errors are raised.
    """
    wait = _FIRST_WAIT
    told = ""
    while not stop():
        began = time.monotonic()
        try:
            attempt()
        except Unreachable as error:
            if time.monotonic() - began > _STEADY_SECONDS:
                wait, told = _FIRST_WAIT, ""
            if str(error) != told:
                log.warning("%s; trying again", error)
                told = str(error)
            on_away(error)
        else:
            return
        deadline = time.monotonic() + wait * random.uniform(0.7, 1.3)  # noqa: S311 - spreads load, hides nothing
        while time.monotonic() < deadline and not stop():
            time.sleep(0.05)
        wait = min(wait * 2, _LONGEST_WAIT)
