"""A task's session with its replica under ``apply.mode=partition``: it holds the partitions that the task was given."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from cdc.checkpoint import PartitionState, SinkCheckpoint
from cdc.errors import Fenced
from cdc.position import TopicPartition
from connectors.postgres import partition_checkpoints
from connectors.postgres.sink_session import ReplicaSession
from connectors.postgres.sink_settings import SinkSettings


class PartitionSession(ReplicaSession):
    """``epochs`` are those of the partitions that were claimed and not given up."""

    def __init__(self, settings: SinkSettings, sink: str, source: str) -> None:
        super().__init__(settings, sink, source, shared=True)
        self._owner = (sink, source)
        self.epochs: dict[TopicPartition, int] = {}
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            with self.translated(f"looking at the checkpoints of {sink} in the replica"):
                partition_checkpoints.install(self.connection)
                partition_checkpoints.check_mode(self.connection, self._owner)
            undo.pop_all()

    @property
    def owner(self) -> partition_checkpoints.Owner:
        """Sink and source."""
        return self._owner

    def claim(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, PartitionState]:
        """Become the owner of these as well."""
        states: dict[TopicPartition, PartitionState] = {}
        with self.translated("claiming partitions in the replica"):
            for partition in partitions:
                self.epochs[partition], states[partition] = partition_checkpoints.claim(
                    self.connection, self._owner, partition
                )
        return states

    def release(self, partitions: Sequence[TopicPartition]) -> None:
        """Give these up."""
        given = {tp: self.epochs.pop(tp) for tp in partitions if tp in self.epochs}
        with self.translated("giving up partitions in the replica"):
            partition_checkpoints.release(self.connection, self._owner, given)

    def save(self, checkpoint: SinkCheckpoint) -> bool:
        """See `partition_checkpoints.save`."""
        return partition_checkpoints.save(self.connection, self._owner, self.epochs, checkpoint)

    def hold(self) -> bool:
        """See `partition_checkpoints.hold`."""
        return partition_checkpoints.hold(self.connection, self._owner, self.epochs)

    def was_replaced(self) -> bool:
        """Ends of sessions are told apart by nobody here: the task joins its group again in both cases."""
        return False

    def fenced(self) -> Fenced:
        """The error of an owner of which a partition was taken."""
        return Fenced(
            f"another task of {self._sink} has claimed a partition of this one in the replica",
            "nothing to do: it joins the group again",
        )


__all__ = ["PartitionSession"]
