"""Lets one side of a comparison work ahead of the other, in a thread, by a bounded number of steps."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class _End:
    """The producer is done; ``error`` is what ended it early."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class Ahead(Generic[T]):
    """Iterates over ``produce()``, which runs in a thread of its own at most ``steps`` items ahead.

    Errors of the producer are raised where its items are taken. ``close`` (or the end of a ``with`` block) stops the
    producer at its next item and waits for it: then what it used is free again.
    """

    def __init__(self, produce: Callable[[], Iterator[T]], steps: int) -> None:
        self._items: queue.Queue[T | _End] = queue.Queue(maxsize=steps)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(produce,), daemon=True)
        self._thread.start()

    def _run(self, produce: Callable[[], Iterator[T]]) -> None:
        end = _End()
        try:
            for item in produce():
                if not self._put(item):
                    return
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, which raises it
            end = _End(error)
        self._put(end)

    def _put(self, item: T | _End) -> bool:
        while not self._stop.is_set():
            try:
                self._items.put(item, timeout=0.05)
            except queue.Full:
                continue
            return True
        return False

    def __iter__(self) -> Iterator[T]:
        while not isinstance(item := self._items.get(), _End):
            yield item
        if item.error is not None:
            raise item.error

    def __enter__(self) -> Ahead[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Safe to repeat."""
        self._stop.set()
        self._thread.join()
