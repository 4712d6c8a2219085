"""One partition on its way into the replica: what of its records takes effect, and how far that is. No I/O, no clock.

A record below the offset that the replica holds, or an event at or below its position, is a repeat. A row whose key
changed, and which the log did not carry whole, is withheld: it is not made of pieces, and what follows for its key
waits with it, until the row that capture reads again under a fence comes, or something else says all of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from cdc.checkpoint import PartitionProgress, PartitionState, Resume
from cdc.errors import Refused, Rejected
from cdc.event import Delivered
from cdc.pipeline.partition_start import Beginning
from cdc.position import Position, TopicPartition


class PartitionTrack:
    """``next_offset`` is what comes next; ``barrier`` a TRUNCATE at which the partition waits for the others."""

    def __init__(
        self,
        partition: TopicPartition,
        state: PartitionState,
        beginning: Beginning,
        cluster_id: str,
        count: int,
    ) -> None:
        self.partition = partition
        self.count = count
        self.next_offset = beginning.offset
        self.barrier: Delivered | None = None
        self._position: Position | None = state.position
        self._topic_id = beginning.topic_id
        self._since = beginning.since
        self._cluster_id = cluster_id
        self._withheld: dict[bytes, int] = dict(state.withheld)
        self._added: dict[bytes, int] = {}
        self._settled: set[bytes] = set()
        self._told = state.resume.offset if state.resume else -1

    def take(self, offset: int, event: Delivered | None) -> Delivered | None:
        """The next record: what of it is to be applied, if anything. ``None`` for a tombstone.

        A TRUNCATE becomes the ``barrier`` and is not consumed. Refused for an event of a newer generation, Rejected
        for one that can never take effect.
        """
        if offset < self.next_offset or self.barrier is not None:
            return None
        applied = None if event is None or self._is_repeat(event.position) else event
        if applied is not None and applied.op == "t":
            self._meet_truncate(applied)
            return None
        if applied is not None:
            applied = self._whole(applied)
        self.next_offset = offset + 1
        if event is not None:
            self._passed(event.position)
        return applied

    def pass_barrier(self) -> None:
        """The TRUNCATE has taken effect: the partition goes on behind it."""
        barrier, self.barrier = self.barrier, None
        assert barrier is not None
        self._settled.update(self._withheld)
        self._withheld.clear()
        self._added.clear()
        self.next_offset = barrier.offset + 1
        self._passed(barrier.position)

    @property
    def moved(self) -> bool:
        """Whether `progress` has something to tell."""
        return self._told != self.next_offset

    def progress(self, resume_at: int | None = None) -> PartitionProgress:
        """How far it is, to be saved with all that `take` has returned; each change is told once.

        ``resume_at``: a lower offset from which a restart has to read again.
        """
        offset = self.next_offset if resume_at is None else resume_at
        told = PartitionProgress(
            Resume(offset, self._topic_id),
            self._position,
            self._cluster_id,
            self._since,
            self._added,
            frozenset(self._settled),
        )
        self._told, self._added, self._settled = self.next_offset, {}, set()
        return told

    @property
    def withheld(self) -> Mapping[bytes, int]:
        """Keys whose row waits to be carried whole, each with the offset of the event that began it."""
        return self._withheld

    # --- inside ----------------------------------------------------------------------------------------------

    def _is_repeat(self, position: Position) -> bool:
        if not position.generation:
            return False  # its writer gives no positions: applying it again does no harm
        held = self._position
        if held is not None:
            if position.generation > held.generation > 0:
                raise Refused(
                    f"the source's log began anew (generation {position.generation}, the replica follows "
                    f"{held.generation}): rows deleted in the part that was lost may still be in the replica",
                    "deploy the sink under another name with a new replica, and cdc table backfill",
                )
            if position <= held:
                return True
        return position.commit_lsn < self._since

    def _passed(self, position: Position) -> None:
        if position.generation and (self._position is None or position > self._position):
            self._position = position

    def _meet_truncate(self, event: Delivered) -> None:
        if not event.position.generation and self.count > 1:
            raise Rejected(
                f"a TRUNCATE of {event.collection} stands in one of {self.count} partitions: nothing tells which"
                " rows of the others came before it",
                "set truncate.enabled=false, or give the topic one partition",
            )
        self.barrier = event

    def _whole(self, event: Delivered) -> Delivered | None:
        key = event.key
        if event.op == "c" and event.unchanged and event.other_key is not None and key is not None:
            if not event.position.generation:
                raise Rejected(
                    f"a row of {event.collection} got another key, and its record lacks "
                    f"{', '.join(event.unchanged)}: its writer never sends the whole row",
                    "set REPLICA IDENTITY FULL on the table, or capture it with cdc.postgres.Source",
                )
            self._withheld[key] = self._added[key] = event.offset
            self._settled.discard(key)
            return None
        if not self._withheld or key not in self._withheld or key is None:
            return event
        if event.unchanged:
            return None
        del self._withheld[key]
        if self._added.pop(key, None) is None:
            self._settled.add(key)
        # That its row is not there is known, and no reason to count it as missing: as with a fence's rows.
        return event._replace(xid=0)
