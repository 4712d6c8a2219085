"""From the topics to the assembler: read, decode, and keep out for a while what has no room.

A record that cannot be read stops the task, or is set aside (`cdc.pipeline.unreadable`), by policy.

A partition that is kept out is paused, and read again from the record that found no room as soon as the head needs
it, or half of the budget is free.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import NamedTuple

from cdc.checkpoint import SinkCheckpoint
from cdc.errors import CdcError, Failed, Rejected, Unreachable
from cdc.event import Record
from cdc.pipeline.offsets import Offsets
from cdc.pipeline.open_transaction import ROW_OVERHEAD
from cdc.pipeline.selection import Selection
from cdc.pipeline.subscription import Start, check_policy, partitions
from cdc.pipeline.transactions import Assembler, Reread
from cdc.pipeline.unreadable import Unreadable, UnreadableRecord
from cdc.pipeline.watermarks import Watermarks
from cdc.position import Position, TopicPartition
from cdc.protocols import EventDecoder, TopicInfo, TopicReader

log = logging.getLogger(__name__)

_NEITHER = Rejected("a record with neither key nor value", "see who else writes to this topic")
_FOREIGN = Rejected(
    "a record without a position of our capture's",
    "apply.mode=transaction reads what our source connector wrote; see who else writes to this topic",
)
_MOST_RECORDS = 10_000
_MOST_WATERMARKS = 1_000


class _KeptOut(NamedTuple):
    offset: int
    position: Position


class Intake:
    """Feeds ``assembler`` and ``watermarks`` from ``start`` on. Topics met later are read from their first record."""

    def __init__(
        self,
        reader: TopicReader,
        decoder: EventDecoder,
        selection: Selection,
        checkpoint: SinkCheckpoint,
        start: Start,
        budget: int,
        again: Reread | None = None,
        *,
        tolerant: bool = False,
    ) -> None:
        self._reader = reader
        self._tolerant = tolerant
        self.unreadable = Unreadable()
        self._decoder = decoder
        self._selection = selection
        self._marks = TopicPartition(selection.transaction_topic, 0)
        self._watermark_partition = TopicPartition(selection.watermark_topic, 0)
        self._kept_out: dict[TopicPartition, _KeptOut] = {}
        self._newest: dict[TopicPartition, int] = {}
        self._partitions = {name: info.partitions for name, info in start.topics.items()}
        self._record_cost = 65536
        self.offsets = Offsets(checkpoint.offsets)
        for tp, offset in start.at.items():
            self.offsets.start(tp, offset, start.topics[tp.topic].topic_id)
        marks = again.marks if again else 0
        self.assembler = Assembler(
            checkpoint.position,
            self.offsets,
            budget=budget,
            reads=cache(lambda collection: selection.topic(collection) is not None),
            since={**checkpoint.since, **start.new_since},
            partitions=self._partitions,
            marks=marks if marks > start.at.get(self._marks, 0) else 0,
            passed=again.passed if again else 0,
        )
        self.watermarks = Watermarks(selection, self.offsets.next)
        reader.assign(start.at)

    def read(self, timeout: float) -> bool:
        """Take in what arrives within ``timeout`` seconds; False when nothing did.

        Raises Failed for a record that cannot be read, Refused, Unreachable, and Reread.
        """
        records = self._reader.read(timeout, self._limit())
        data = []
        marks, watermarks = self._marks.topic, self._watermark_partition.topic
        for record in records:
            topic = record.topic
            if topic == marks:
                self._take_mark(record)
            elif topic == watermarks:
                self._take_watermark(record)
            else:
                data.append(record)
        if data:
            self._take_data(data)
        if not records and len(self.watermarks):
            self._pass_ends()
        self.watermarks.marks_read(self.assembler)
        return bool(records)

    def _pass_ends(self) -> None:
        """Offsets behind the last record may hold none: a watermark that lists them must not wait for one."""
        for tp, offset in list(self.offsets.next.items()):
            if tp not in self._kept_out and self._reader.position(tp) > offset:
                self.offsets.consumed(tp, self._reader.position(tp) - 1)

    def readmit(self) -> None:
        """Read kept out partitions again as far as there is room, or the head needs them."""
        assembler = self.assembler
        if assembler.used >= assembler.budget // 2:
            assembler.drop_dead()
        plenty = assembler.used < assembler.budget // 2
        for tp, (offset, position) in list(self._kept_out.items()):
            if tp == self._watermark_partition:
                wanted = len(self.watermarks) < _MOST_WATERMARKS // 2
            elif tp == self._marks:
                wanted = plenty or assembler.needs_mark(position.commit_lsn)
            else:
                wanted = plenty or assembler.needs(position)
            if wanted:
                del self._kept_out[tp]
                self._reader.assign({tp: offset})
                self._reader.resume([tp])

    def account(self) -> None:
        """Tell what unreadable records are, as far as that can be known: rows that the head lacks, or foreign."""
        head = self.assembler.head
        if not self.unreadable or head is None or not self.assembler.generation:
            return
        for collection, lacks in self.assembler.lacking().items():
            found = self.unreadable.candidates(collection, head.lsn)
            topic = self._selection.topic(collection) or ""
            past = self._is_past(collection, head.lsn) or self.watermarks.covers(topic, head.lsn)
            if past and lacks <= len(found):
                self.unreadable.charge(found, self._place(head.lsn))
                self.unreadable.close(found)
                self.assembler.excuse(collection, lacks)

    def presume(self) -> None:
        """A part of the head is about to go: what may be its changes is parked first, whatever it proves to be."""
        if self.unreadable and (head := self.assembler.head) is not None:
            for collection in self.unreadable.collections():
                found = self.unreadable.candidates(collection, head.lsn)
                self.unreadable.charge(found, self._place(head.lsn))

    def look_for_topics(self) -> None:
        """Read the topics of marks and watermarks too once they are there."""
        if len(self._partitions.keys() & {self._marks.topic, self._watermark_partition.topic}) < 2:
            topics = self._reader.topics()
            for name in (self._marks.topic, self._watermark_partition.topic):
                if name in topics and name not in self._partitions:
                    self._start(name, topics[name])

    def stalled(self) -> str:
        """To be called when nothing comes and nothing is being written. What the head lacks for good; empty if not.

        In each partition a position first appears after all lower ones, so rows are missing when every partition of
        their topic is past the transaction, unless a newer END says otherwise.
        """
        self.assembler.overrun_marks()
        self.readmit()
        head = self.assembler.head_lsn
        lacking = [
            c for c in self.assembler.lacking() if head is not None and self._is_past(c, head)
        ]
        if not lacking or self._marks in self._kept_out:
            return ""
        end = self._reader.bounds([self._marks])[self._marks][1]
        return f"{lacking[0]} at {head}" if self._reader.position(self._marks) >= end else ""

    # --- one kind of record each -----------------------------------------------------------------------------

    def _take_data(self, records: list[Record]) -> None:
        add = self.assembler.add
        size = 0
        kept_out, newest = self._kept_out, self._newest
        topic, number = "", -1
        tp = TopicPartition(topic, number)
        skipped = False
        highest = 0
        consumed: dict[TopicPartition, int] = {}
        for record, event in zip(records, self._decoder.data(records), strict=True):
            # Records of a partition come in runs: what is kept for each is looked up where a run begins.
            if record.partition != number or record.topic != topic:
                topic, number = record.topic, record.partition
                tp = TopicPartition(topic, number)
                skipped = tp in kept_out
                highest = newest.get(tp, 0)
            if skipped:
                continue
            if isinstance(event, Rejected) or (event is None and record.key is None):
                self._set_aside(record, event or _NEITHER, tp, highest)
            elif event is not None:
                size += event.size
                generation, lsn, _ = event.position
                if not generation:
                    self._set_aside(record, _FOREIGN, tp, highest)
                    consumed[tp] = record.offset
                    continue
                if self.unreadable:
                    self.unreadable.passed(tp, lsn)
                if highest < lsn:
                    highest = newest[tp] = lsn
                if not add(event):
                    self._keep_out(tp, record.offset, event.position)
                    skipped = True
                    continue
            consumed[tp] = record.offset
        for tp, offset in consumed.items():
            self.offsets.consumed(tp, offset)
        self._record_cost = max(size // len(records), self._record_cost // 2) + ROW_OVERHEAD

    def _set_aside(
        self, record: Record, error: Rejected, partition: TopicPartition, low: int
    ) -> None:
        if not self._tolerant:
            raise _unreadable(record, error)
        log.warning("%s@%d cannot be read: %s", partition, record.offset, error.what)
        one = UnreadableRecord(
            record,
            self._selection.collection(record.topic) or "",
            self._decoder.key(record),
            error,
            low,
        )
        self.unreadable.add(one)
        self.offsets.hold(partition, record.offset, one)
        if self.unreadable.size > self.assembler.budget // 4:
            raise Failed(
                f"{len(self.unreadable)} records of {sorted(self.unreadable.collections())} cannot be read,"
                f" up to {partition}@{record.offset}: {error.what}",
                "errors.tolerance=all sets single records aside; repair the topic or the schema registry",
            )

    def _take_mark(self, record: Record) -> None:
        if self._marks in self._kept_out:
            return
        try:
            mark = self._decoder.transaction(record)
        except Rejected as error:
            raise _unreadable(record, error) from error
        if mark.ended and not self.assembler.holds(mark.commit_lsn):
            for collection, _ in mark.counts:
                self._meet(collection)
        if self.assembler.mark(mark, self._marks):
            self.offsets.consumed(self._marks, record.offset)
        else:
            self._keep_out(self._marks, record.offset, Position(0, mark.commit_lsn, 0))

    def _take_watermark(self, record: Record) -> None:
        tp = self._watermark_partition
        if tp in self._kept_out:
            return
        if len(self.watermarks) >= _MOST_WATERMARKS:
            self._keep_out(tp, record.offset, Position(0, 0, 0))
            return
        try:
            watermark = self._decoder.watermark(record)
        except Rejected as error:
            raise _unreadable(record, error) from error
        for topic, number in watermark.ends:
            collection = self._selection.collection(topic)
            if collection is not None:
                self._meet(collection)
                self._meet_partition(TopicPartition(topic, number))
        self.offsets.hold(tp, record.offset, self.watermarks.add(watermark))
        self.offsets.consumed(tp, record.offset)

    def _keep_out(self, tp: TopicPartition, offset: int, position: Position) -> None:
        self._kept_out[tp] = _KeptOut(offset, position)
        self._reader.pause([tp])

    # --- topics that are met later ---------------------------------------------------------------------------

    def _meet(self, collection: str) -> None:
        topic = self._selection.topic(collection)
        if topic is None or topic in self._partitions:
            return
        topics = self._reader.topics()
        if topic not in topics:
            raise Unreachable(
                f"topic {topic} is not there, but {collection} has rows in a transaction",
                f"make the topic again, or leave {topic} out of topics or topics.regex",
            )
        self._start(topic, topics[topic])

    def _start(self, topic: str, info: TopicInfo) -> None:
        check_policy(topic, info)
        all_of_it = partitions(topic, info)
        if any(low > 0 for low, _ in self._reader.bounds(all_of_it).values()):
            raise Reread(0, 0)  # where to begin then is decided at the start of reading
        self._partitions[topic] = info.partitions
        for tp in all_of_it:
            self.offsets.start(tp, 0, info.topic_id)
        self._reader.assign(dict.fromkeys(all_of_it, 0))

    def _meet_partition(self, tp: TopicPartition) -> None:
        if tp not in self.offsets.next:
            info = self._reader.topics()[tp.topic]
            self._partitions[tp.topic] = info.partitions
            self.offsets.start(tp, 0, info.topic_id)
            self._reader.assign({tp: 0})

    # --- how much, how far -----------------------------------------------------------------------------------

    def _limit(self) -> int:
        return max(1, min(_MOST_RECORDS, self.assembler.room // self._record_cost))

    def _place(self, lsn: int) -> Position:
        return Position(self.assembler.generation, lsn, 0)

    def _is_past(self, collection: str, lsn: int) -> bool:
        topic = self._selection.topic(collection) or ""
        count = self._partitions.get(topic, 0)
        return all(self._newest.get(TopicPartition(topic, n), 0) > lsn for n in range(count))


def _unreadable(record: Record, error: CdcError) -> Failed:
    return Failed(
        f"{record.topic}[{record.partition}]@{record.offset} cannot be read: {error.what}",
        error.remedy or "see what wrote it, and repair the schema registry or the topic",
    )
