"""One task as a member of its group: what it was given, what it reads of that, and what it hands to the replica.

Decoding goes on while the replica works (`ReplicaWriter`). Before the group takes or gives anything, and before the
store is asked for anything else, what was handed over is awaited: the store has one session.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from cdc.checkpoint import PartitionProgress, SinkCheckpoint, TableState
from cdc.errors import CdcError, Failed, Rejected, Unreachable
from cdc.event import Delivered, Record
from cdc.failure_points import reach
from cdc.pipeline.apply import ApplySettings, ApplyStatus
from cdc.pipeline.open_transaction import ROW_OVERHEAD
from cdc.pipeline.partition_start import Beginnings
from cdc.pipeline.partition_track import PartitionTrack
from cdc.pipeline.partition_watermarks import PartitionWatermarks
from cdc.pipeline.replica_writer import ReplicaWriter, Writing
from cdc.pipeline.selection import Selection
from cdc.position import TopicPartition
from cdc.protocols import EventDecoder, GroupReader, PartitionStore

log = logging.getLogger(__name__)

_IDLE_READ = 0.1  # seconds; a reader returns as soon as something is there
_BUSY_READ = 0.01
_MOST_RECORDS = 10_000
_LOOK_AT_BARRIERS = 0.05
_LOOK_AT_FENCES = 0.25
_LOOK_FOR_TOPICS = 2.0
_NOTE_OFFSETS = 1.0


class PartitionMember:
    """`cdc.protocols.GroupMember`: from joining the group to leaving it. Used by one thread."""

    def __init__(
        self,
        sink: str,
        selection: Selection,
        store: PartitionStore,
        decoder: EventDecoder,
        beginnings: Beginnings,
        settings: ApplySettings,
        status: ApplyStatus,
        on_progress: Callable[[ApplyStatus], None],
    ) -> None:
        self._sink = sink
        self._selection = selection
        self._store = store
        self._decoder = decoder
        self._beginnings = beginnings
        self._settings = settings
        self._status = status
        self._on_progress = on_progress
        self._tracks: dict[TopicPartition, PartitionTrack] = {}
        self._watermarks = PartitionWatermarks(selection)
        self._lost = False
        self._events: list[Delivered] = []
        self._held = self._lent = 0
        self._record_cost = 4096
        self._writer = ReplicaWriter(store)
        status.faults.claimed()
        now = time.monotonic()
        self._topics_due = now + _LOOK_FOR_TOPICS
        self._fences_due = self._barriers_due = self._note_due = now

    # --- its life --------------------------------------------------------------------------------------------

    def start(self, reader: GroupReader) -> None:
        """Join the group with every topic that the selection finds now."""
        self._reader = reader
        self._cluster_id = reader.cluster_id()
        reader.subscribe(self._wanted())

    def run(self, stop: Callable[[], bool]) -> None:
        """Apply until ``stop``; what was read is in the replica then."""
        while not stop():
            self._turn()
        self._drain()

    def close(self) -> None:
        """End the writer; what was not committed takes no effect."""
        self._writer.close()

    def _turn(self) -> None:
        self._settle(0.0)
        if self._writer.ready():
            self._hand_over()
        if self._held + self._lent >= self._settings.memory_bytes:
            self._settle(_IDLE_READ)
            return
        records = self._reader.read(_BUSY_READ if self._lent else _IDLE_READ, self._limit())
        if self._lost:
            raise Unreachable("the group gave this task's partitions to others while it was away")
        if records:
            self._take(records)
        now = time.monotonic()
        if now >= self._barriers_due:
            self._barriers_due = now + _LOOK_AT_BARRIERS
            self._look_at_barriers()
        if now >= self._fences_due and self._watermarks:
            self._fences_due = now + _LOOK_AT_FENCES
            self._look_at_fences()
        if now >= self._topics_due:
            self._topics_due = now + _LOOK_FOR_TOPICS
            self._reader.subscribe(self._wanted())
        if now >= self._note_due:
            self._note_due = now + _NOTE_OFFSETS
            self._reader.note({tp: track.next_offset for tp, track in self._tracks.items()})

    def _wanted(self) -> list[str]:
        """The topics to share. Unreachable while there is none, because a group needs one."""
        topics = self._reader.topics()
        found = [name for name in topics if self._selection.collection(name) is not None]
        if self._selection.watermark_topic in topics:
            found.append(self._selection.watermark_topic)
        if not found:
            raise Unreachable(
                f"there is no topic of {self._selection.prefix} yet",
                "start its source, or check topic.prefix and topics",
            )
        return found

    # --- what the group says ---------------------------------------------------------------------------------

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Claim them in the replica; they are read from where that says."""
        self._drain()
        reach("partition.before-claim")
        states = self._store.claim(self._sink, self._selection.prefix, partitions)
        reach("partition.after-claim")
        found = self._beginnings.find(self._reader, states)
        counts = {name: info.partitions for name, info in self._reader.topics().items()}
        for tp, beginning in found.items():
            self._tracks[tp] = PartitionTrack(
                tp, states[tp], beginning, self._cluster_id, counts[tp.topic]
            )
            if tp.topic == self._selection.watermark_topic:
                self._watermarks = PartitionWatermarks(self._selection)
        log.info("was given %s", ", ".join(map(str, partitions)))
        return {tp: beginning.offset for tp, beginning in found.items()}

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Commit what was read, then give them up."""
        self._drain()
        reach("partition.before-release")
        self._store.release(partitions)
        for tp in partitions:
            self._forget(tp)
        log.info("gave up %s", ", ".join(map(str, partitions)))

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """What was read of them is another's to apply."""
        self._lost = True
        for tp in partitions:
            self._forget(tp)

    def _forget(self, tp: TopicPartition) -> None:
        self._tracks.pop(tp, None)
        if tp.topic == self._selection.watermark_topic:
            self._watermarks = PartitionWatermarks(self._selection)

    # --- from the topics to the replica ----------------------------------------------------------------------

    def _take(self, records: Sequence[Record]) -> None:
        data: list[Record] = []
        for record in records:
            if record.topic == self._selection.watermark_topic:
                self._take_watermark(record)
            else:
                data.append(record)
        size = 0
        for record, event in zip(data, self._decoder.data(data), strict=True):
            track = self._tracks.get(TopicPartition(record.topic, record.partition))
            if track is None:
                continue
            if isinstance(event, Rejected):
                if record.offset < track.next_offset or track.barrier is not None:
                    continue
                raise _unreadable(record, event)
            try:
                applied = track.take(record.offset, event)
            except Rejected as error:
                raise _unreadable(record, error) from error
            if applied is not None:
                self._events.append(applied)
                size += applied.size + ROW_OVERHEAD
        self._held += size
        if data:
            self._record_cost = max(size // len(data), self._record_cost // 2, ROW_OVERHEAD)

    def _take_watermark(self, record: Record) -> None:
        track = self._tracks.get(TopicPartition(record.topic, record.partition))
        if track is None or record.offset < track.next_offset:
            return
        try:
            watermark = self._decoder.watermark(record)
        except Rejected as error:
            raise _unreadable(record, error) from error
        track.take(record.offset, None)
        self._watermarks.add(record.offset, watermark)

    def _hand_over(self) -> None:
        progress = self._progress()
        if not (self._events or progress):
            return
        events, size = self._events, self._held
        self._events, self._held = [], 0
        self._lent += size
        self._writer.hand_over(Writing(events, size, 0, self._checkpoint(progress)))

    def _progress(self) -> dict[TopicPartition, PartitionProgress]:
        return {
            tp: track.progress(
                self._watermarks.oldest if tp.topic == self._selection.watermark_topic else None
            )
            for tp, track in self._tracks.items()
            if track.moved
        }

    def _checkpoint(
        self,
        progress: Mapping[TopicPartition, PartitionProgress],
        tables: Mapping[str, TableState] | None = None,
    ) -> SinkCheckpoint:
        source = self._selection.prefix
        return SinkCheckpoint(
            source, None, self._cluster_id, tables=tables or {}, progress=progress
        )

    def _settle(self, timeout: float) -> None:
        """Account for what the writer has finished; raises what the store raised."""
        for writing in self._writer.finished(timeout):
            self._lent -= writing.size
            self._status.events += len(writing.events)
            self._status.commits += 1
            self._status.bytes_held = self._held + self._lent
            self._status.faults.look(self._store)
            if writing.checkpoint is not None:
                self._status.tables.update(writing.checkpoint.tables)
            self._on_progress(self._status)

    def _drain(self) -> None:
        """On return all that was taken is in the replica, and the store is free for other calls."""
        while True:
            if self._writer.ready():
                self._hand_over()
            if self._writer.idle and not self._events:
                return
            self._settle(_IDLE_READ)

    def _limit(self) -> int:
        room = self._settings.memory_bytes - self._held - self._lent
        most = min(room, self._settings.commit_bytes) // self._record_cost
        return max(1, min(_MOST_RECORDS, most))

    # --- what waits ------------------------------------------------------------------------------------------

    def _look_at_barriers(self) -> None:
        """Partitions that stand at a TRUNCATE: they go on once the others are there too."""
        waiting = [track for track in self._tracks.values() if track.barrier is not None]
        if not waiting:
            return
        for track in waiting:
            self._reader.pause(track.partition)
        self._drain()
        for track in waiting:
            assert track.barrier is not None
            reach("partition.before-truncate")
            if self._store.truncate(track.barrier, track.count):
                reach("partition.after-truncate")
                track.pass_barrier()
                self._reader.resume(track.partition, track.next_offset)

    def _look_at_fences(self) -> None:
        self._drain()
        passed = self._watermarks.take(self._store.offsets())
        if not (passed.tables or passed.shapes):
            return
        for tp, track in self._tracks.items():
            if tp.topic == self._selection.watermark_topic:
                progress = {tp: track.progress(self._watermarks.oldest)}
                self._writer.hand_over(
                    Writing([], 0, 0, self._checkpoint(progress, passed.tables), passed.shapes)
                )


def _unreadable(record: Record, error: CdcError) -> Failed:
    return Failed(
        f"{record.topic}[{record.partition}]@{record.offset} cannot be read: {error.what}",
        error.remedy or "see what wrote it, and repair the schema registry or the topic",
    )
