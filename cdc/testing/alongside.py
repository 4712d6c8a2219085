"""Work in threads of its own for the length of a ``with`` block: load, probes and auditors beside what is tried."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Alongside:
    """Runs each piece of ``work`` from the block's beginning to its end.

    Work ends soon after ``stopping`` is set; the block's end sets it and waits. An error ends the piece it came from
    and is kept in ``errors``; the block's end raises the first one, unless the block itself failed. Subclasses bind
    their methods as work and say in `check` what an error means to them.
    """

    def __init__(self, *work: Callable[[], None]) -> None:
        self.stopping = threading.Event()
        self.errors: list[Exception] = []
        self._threads = [threading.Thread(target=self._guarded, args=(piece,)) for piece in work]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join()
        if error is None:
            self.check()

    def check(self) -> None:
        """Raise what a piece of work failed of."""
        if self.errors:
            raise self.errors[0]

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - it ends in this thread: `check` raises it in the block's
            self.errors.append(error)
