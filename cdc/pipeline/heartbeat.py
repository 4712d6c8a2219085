"""Debezium's heartbeat: every so often a statement at the source, and a record that says that capture is there.

The slot moves on over an idle database without it: it is for consumers that watch the topic, and for statements that
an operator wants to be run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from cdc.event import Record


class Heartbeat:
    """``beat`` gives the records that are due: none, or one every ``seconds`` (0: never).

    ``act`` is what is done at the source each time; a failure of it is the caller's.
    """

    def __init__(
        self, seconds: float, act: Callable[[], None], encode: Callable[[], Sequence[Record]]
    ) -> None:
        self._seconds = seconds
        self._act = act
        self._encode = encode
        self._due = time.monotonic() + seconds if seconds else float("inf")

    def beat(self) -> Sequence[Record]:
        """To be called in every turn; it costs a look at the clock."""
        now = time.monotonic()
        if now < self._due:
            return ()
        self._due = now + self._seconds
        self._act()
        return self._encode()
