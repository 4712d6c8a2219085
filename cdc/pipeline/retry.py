"""Patience with servers that are away: growing pauses with jitter."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

_SLICE = 0.05


class Backoff:
    """Pauses that double from ``first`` to ``most`` seconds, each spread over its upper half."""

    def __init__(self, first: float = 0.1, most: float = 10.0) -> None:
        self._first = first
        self._most = most
        self._next = first

    def pause(self, stop: Callable[[], bool]) -> None:
        """Wait for the next pause, or until ``stop`` says so."""
        deadline = time.monotonic() + self._next * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
        self._next = min(self._most, self._next * 2)
        while not stop() and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(_SLICE, left))

    def reset(self) -> None:
        """Begin with the shortest pause again."""
        self._next = self._first
