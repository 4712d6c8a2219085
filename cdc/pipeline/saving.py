"""Checkpoints stored beside capture's loop, one at a time: the stream goes on, and the walsender is answered."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from cdc.checkpoint import SourceCheckpoint
from cdc.failure_points import reach
from cdc.protocols import CheckpointTopic

_SLICE = 0.1


class CheckpointSaver:
    """Saves in a thread of its own; every method is called by its owner's thread, and raises what a save raised.

    ``stored`` is what is known to stand on the topic: at first what its owner began with.
    """

    def __init__(
        self, checkpoints: CheckpointTopic, connector: str, stored: SourceCheckpoint
    ) -> None:
        self._checkpoints = checkpoints
        self._connector = connector
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cdc-checkpoint")
        self._saving: Future[None] | None = None
        self._next = stored
        self.stored = stored

    @property
    def busy(self) -> bool:
        """Whether a save is under way, or its end was not looked at."""
        return self._saving is not None

    def save(self, checkpoint: SourceCheckpoint) -> None:
        """Begin to store it. Only when not `busy`."""
        self._next = checkpoint
        self._saving = self._thread.submit(self._save, checkpoint)

    def ended(self) -> bool:
        """Whether a save has come to its end since the last call: then ``stored`` is newer."""
        if self._saving is None or not self._saving.done():
            return False
        saving, self._saving = self._saving, None
        saving.result()
        self.stored = self._next
        return True

    def wait(self, keep_alive: Callable[[], None]) -> None:
        """Until the save under way ends, well or with an error, which it does by its own patience."""
        while self._saving is not None and not self._saving.done():
            wait([self._saving], _SLICE)
            keep_alive()

    def close(self) -> None:
        """Wait for the save under way, whatever becomes of it."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _save(self, checkpoint: SourceCheckpoint) -> None:
        reach("capture.before-save")
        self._checkpoints.save(self._connector, checkpoint)
        reach("capture.after-save")


__all__ = ["CheckpointSaver"]
