"""Source checkpoints in memory: what is saved outlives its owners, and a newer owner fences the older ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from cdc.checkpoint import SourceCheckpoint
from cdc.errors import Fenced, Unreachable


@dataclass
class MemoryCheckpoints:
    """The topic. Checkpoints are kept in their stored form. ``away`` makes every call raise Unreachable.

    ``lose`` makes saves raise Unreachable ``before`` or ``after`` they took effect, for as long as it is set.
    """

    stored: dict[str, dict[str, Any]] = field(default_factory=dict)
    epochs: Counter[str] = field(default_factory=Counter)
    saves: int = 0
    away: bool = False
    lose: str = ""

    def checkpoint(self, connector: str) -> SourceCheckpoint | None:
        """What stands there for this connector."""
        raw = self.stored.get(connector)
        return None if raw is None else SourceCheckpoint.from_json(raw)


class MemoryCheckpointTopic:
    """`cdc.protocols.CheckpointTopic` on `MemoryCheckpoints`: one owner's view."""

    atomic = False

    def __init__(self, checkpoints: MemoryCheckpoints) -> None:
        self._all = checkpoints
        self._epochs: dict[str, int] = {}

    def claim(self, connector: str, held: str = "") -> SourceCheckpoint | None:
        self._reach()
        found = self._all.checkpoint(connector)
        if held and found is not None and found.owner != held:
            raise Fenced(f"another process has claimed the checkpoint of {connector}")
        self._all.epochs[connector] += 1
        self._epochs[connector] = self._all.epochs[connector]
        return found

    def save(self, connector: str, checkpoint: SourceCheckpoint | None) -> None:
        self._reach()
        if self._epochs.get(connector) != self._all.epochs[connector]:
            raise Fenced(f"another process runs connector {connector} now")
        if self._all.lose == "before":
            raise Unreachable("the save was lost")
        self._all.saves += 1
        if checkpoint is None:
            self._all.stored.pop(connector, None)
        else:
            self._all.stored[connector] = checkpoint.to_json()
        if self._all.lose == "after":
            raise Unreachable("the answer to the save was lost")

    def close(self) -> None:
        self._epochs.clear()

    def _reach(self) -> None:
        if self._all.away:
            raise Unreachable("the checkpoints in memory are away")
