"""The trip of a change from its topic to the replica, partition by partition (``apply.mode=partition``).

Any number of tasks share a sink's partitions through a consumer group. Each goes on from what the replica says of the
partitions it is given, and writes under their epochs: so a task that was replaced cannot write, whatever it believes.
A task that is fenced, or loses a server, drops everything and joins the group again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal, Protocol

from cdc.errors import Fenced, Unreachable
from cdc.pipeline.apply import ApplySettings, ApplyStatus
from cdc.pipeline.partition_member import PartitionMember
from cdc.pipeline.partition_start import Beginnings
from cdc.pipeline.retry import Backoff
from cdc.pipeline.selection import Selection
from cdc.protocols import EventDecoder, GroupMember, GroupReader, PartitionStore, TopicReader

log = logging.getLogger(__name__)


class Topics(Protocol):
    """How one task reads: as a member of its group, or (for a look at watermarks) any partition it names."""

    def join(self, member: GroupMember) -> GroupReader:
        """A reader that takes part in the sink's group."""
        ...

    def open(self) -> TopicReader:
        """A reader outside the group."""
        ...


class PartitionApplier:
    """Applies what the group of ``sink`` gives to this task. `run` blocks; ``status`` is for any thread.

    ``open_store`` is called anew after every outage. ``on_progress`` is called after each commit and each change of
    state, with the one status object that also stands in ``status``.
    """

    def __init__(
        self,
        sink: str,
        selection: Selection,
        topics: Topics,
        open_store: Callable[[], PartitionStore],
        decoder: EventDecoder,
        settings: ApplySettings | None = None,
        on_progress: Callable[[ApplyStatus], None] | None = None,
    ) -> None:
        self._sink = sink
        self._selection = selection
        self._topics = topics
        self._open_store = open_store
        self._decoder = decoder
        self._settings = settings or ApplySettings()
        self._on_progress = on_progress or (lambda _: None)
        self.status = ApplyStatus(dated=False)

    def run(self, stop: Callable[[], bool]) -> None:
        """Apply until ``stop`` says so; then what was read is committed, and the partitions are given up.

        Servers that are away are awaited, for ever. Raises Refused, Failed and ConfigError at once.
        """
        backoff = Backoff(*self._settings.backoff)
        while not stop():
            commits = self.status.commits
            try:
                self._run_until_trouble(stop)
            except Fenced as error:
                # Not the end of this task: the group says whose a partition is, and it may give it some again.
                log.info("joining the group again: %s", error)
                backoff.pause(stop)
            except Unreachable as error:
                if self.status.commits > commits:
                    backoff.reset()
                self._away(error)
                backoff.pause(stop)
        self._report("stopped")

    def _run_until_trouble(self, stop: Callable[[], bool]) -> None:
        store = self._open_store()
        try:
            member = PartitionMember(
                self._sink,
                self._selection,
                store,
                self._decoder,
                Beginnings(self._selection, self._decoder, self._topics.open),
                self._settings,
                self.status,
                self._on_progress,
            )
            reader = self._topics.join(member)
            try:
                member.start(reader)
                self._report("running")
                member.run(stop)
            finally:
                try:
                    reader.close()
                finally:
                    member.close()
        finally:
            store.close()

    def _away(self, error: Unreachable) -> None:
        if self.status.state != "away" or self.status.trouble != error.what:
            log.warning("waiting: %s", error)
        self._report("away", error)

    def _report(
        self,
        state: Literal["starting", "running", "away", "stopped"],
        trouble: Unreachable | None = None,
    ) -> None:
        if state == "running" and self.status.state == "away":
            log.info("going on: what was away is back")
        self.status.state = state
        self.status.trouble = trouble.what if trouble else ""
        self.status.remedy = trouble.remedy if trouble else ""
        self._on_progress(self.status)


__all__ = ["PartitionApplier", "Topics"]
