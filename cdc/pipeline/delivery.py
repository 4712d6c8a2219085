"""What capture hands to the producer, until it is acknowledged, told by watermarks, stored and confirmed to the source.

Steps in the log are marked behind the records that they brought. Once everything before a step is acknowledged it counts
(`cdc.pipeline.source_progress`); a fence's step counts once its watermark is acknowledged as well. The checkpoint is
stored beside the loop, and what a stored checkpoint covers the source may forget.

Where checkpoints are *atomic* (`cdc.protocols.CheckpointTopic`) both are one: at the end of a source transaction
everything that was sent is awaited, and becomes readable with the checkpoint that speaks of it.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from cdc.checkpoint import Pin, SourceCheckpoint
from cdc.event import Record
from cdc.failure_points import reach
from cdc.fence import Watermark
from cdc.pipeline.fences import FenceJudge
from cdc.pipeline.saving import CheckpointSaver
from cdc.pipeline.source_progress import SourceProgress, Step
from cdc.position import TopicPartition
from cdc.protocols import CheckpointTopic, EventEncoder, Source, TopicWriter

log = logging.getLogger(__name__)

_SAVE_SECONDS = 1.0
_SAVE_SECONDS_WHEN_AWAITED = 0.1
_DRAIN_SECONDS = 15.0


class Delivery:
    """One capture's deliveries, from ``checkpoint`` on; called by its one thread.

    ``partitions`` gives a topic's partition count, ``pinned`` all topics in use. ``judge`` knows what a restart has to
    know of fences. ``commit_seconds``: how long an atomic transaction gathers source transactions.
    """

    def __init__(
        self,
        *,
        connector: str,
        source: Source,
        encoder: EventEncoder,
        writer: TopicWriter,
        checkpoints: CheckpointTopic,
        checkpoint: SourceCheckpoint,
        partitions: Callable[[str], int],
        pinned: Callable[[], Mapping[str, Pin]],
        judge: FenceJudge,
        watermark_topic: str,
        commit_seconds: float,
    ) -> None:
        self._source = source
        self._encoder = encoder
        self._writer = writer
        self._partitions = partitions
        self._pinned = pinned
        self._judge = judge
        self._progress = SourceProgress(checkpoint)
        self._at = 0
        self._written = checkpoint.written
        self._marks = (encoder.transaction_topic, watermark_topic)
        self._last: Step | None = None
        self._unpublished: deque[Step] = deque()
        self._saver = CheckpointSaver(checkpoints, connector, checkpoint)
        self._atomic = checkpoints.atomic
        self._commit_seconds = commit_seconds
        self._inside = self._uncommitted = False
        self._saved_at = self._save_due = 0.0
        self.outstanding = 0

    @property
    def stored(self) -> SourceCheckpoint:
        """What is known to stand on the topic of checkpoints."""
        return self._saver.stored

    @property
    def lsn(self) -> int:
        """Up to where in the log everything is on the topics for good."""
        return self._progress.checkpoint.lsn

    @property
    def busy(self) -> bool:
        """Whether anything that was sent waits for its acknowledgement, or for its watermark."""
        return bool(self.outstanding or self._unpublished)

    def begin(self, commit_lsn: int) -> None:
        """What is written from here on belongs to this source transaction."""
        self._at = commit_lsn
        self._inside = True

    def end(self) -> None:
        """The source transaction is written and marked, whole."""
        self._inside = False

    def between(self) -> None:
        """Between two source transactions, with all that the first one brought marked: commit, where that is due."""
        if self._atomic:
            self._commit()

    def at(self, lsn: int) -> None:
        """What is written from here on stands at this place in the log, outside any transaction."""
        self._at = lsn

    def settle(self) -> None:
        """Take acknowledgements in, publish the watermarks that they allow, store and confirm where that is due."""
        self._acknowledge()
        self._save()

    def close(self) -> None:
        """Wait for a save under way, whatever becomes of it."""
        self._saver.close()

    def write(self, records: Sequence[Record]) -> None:
        """Hand records over, in order."""
        if records:
            self._written = max(self._written, self._at)
            reach("capture.before-write")
            self._writer.write(records)
            self._last = None
            self._uncommitted = True

    def mark(self, step: Step) -> None:
        """The step stands behind everything written so far.

        Nothing was written since the last one, and both say only how far the log has come: they are one.
        """
        if step.bare and self._last is not None:
            self._last.lsn = max(step.lsn, self._last.lsn)
            self._last.commit_lsn = max(step.commit_lsn, self._last.commit_lsn)
            return
        self._writer.mark(step)
        self.outstanding += 1
        self._last = step if step.bare else None

    def _acknowledge(self) -> None:
        for mark in self._writer.durable():
            self.outstanding -= 1
            if isinstance(mark, Step):
                if mark is self._last:
                    self._last = None
                self._progress.acknowledged(mark)
                if mark.watermark is not None:
                    self._unpublished.append(mark)
            elif isinstance(mark, _Published):
                mark.step.settled = True
        self._progress.advance()
        self._publish_watermarks()

    def _publish_watermarks(self) -> None:
        """In log order. Of rows that a fence brought, only once it is stored that they are complete.

        A capture that meets such a fence after a restart must know whether to withdraw what was sent there.
        """
        while self._unpublished:
            step = self._unpublished[0]
            known = self._progress.checkpoint if self._atomic else self._saver.stored
            if step.brought_rows and step.lsn not in known.admitted:
                self._save_due = min(self._save_due, self._saved_at + _SAVE_SECONDS_WHEN_AWAITED)
                return
            self._unpublished.popleft()
            assert step.watermark is not None
            self._publish(step, step.watermark)

    def _publish(self, step: Step, watermark: Watermark) -> None:
        """Everything before the fence is acknowledged: say up to where a consumer must read to have passed it."""
        topics = [self._encoder.transaction_topic]
        if watermark.table is not None:
            topics.append(self._encoder.topic(watermark.table))
        ends = {
            (topic, number): self._writer.end_offset(TopicPartition(topic, number))
            for topic in topics
            for number in range(self._partitions(topic))
        }
        reach("capture.before-watermark")
        self._written = max(self._written, watermark.lsn - 1)
        self._writer.write([self._encoder.watermark(replace(watermark, ends=ends))])
        self._last = None
        self._writer.mark(_Published(step))
        self.outstanding += 1

    def _save(self) -> None:
        """Store the checkpoint beside the loop; let the source forget what a stored checkpoint covers."""
        if self._atomic:
            self._commit()
            return
        if self._saver.ended():
            reach("capture.before-confirm")
            self._source.confirm(self._saver.stored.lsn)
            reach("capture.after-confirm")
            self._publish_watermarks()
        now = time.monotonic()
        if self._saver.busy or now < self._save_due:
            return
        self._saved_at, self._save_due = now, now + _SAVE_SECONDS
        if self._newest() != self._saver.stored:
            self._saver.save(self._progress.checkpoint)

    def _commit(self) -> None:
        """Make all that was sent readable, and with it the checkpoint that says so; not amid a source transaction."""
        now = time.monotonic()
        wrote = self.busy or self._uncommitted
        if self._inside or now < self._saved_at + (
            self._commit_seconds if wrote else _SAVE_SECONDS
        ):
            return
        while self.busy:
            self._writer.flush(1.0)
            self._source.keep_alive()
            self._acknowledge()
        self._saved_at = time.monotonic()
        self._uncommitted = False
        if self._newest() != self._saver.stored:
            self._saver.save(self._progress.checkpoint)
            self._saver.wait(self._source.keep_alive)
            if self._saver.ended():
                reach("capture.before-confirm")
                self._source.confirm(self._saver.stored.lsn)
                reach("capture.after-confirm")

    def _newest(self) -> SourceCheckpoint:
        """The checkpoint as it may be stored now."""
        self._progress.pin(self._pinned())
        self._progress.handed_over(self._written, self._marks_behind())
        self._progress.saw(self._judge.unseen(self._progress.checkpoint.lsn), self._judge.floor)
        return self._progress.checkpoint

    def _marks_behind(self) -> Mapping[str, int]:
        """Offsets of marks and watermarks that were acknowledged: nothing below them was handed over later than now."""
        ends = {topic: self._writer.acknowledged(TopicPartition(topic, 0)) for topic in self._marks}
        return {topic: end for topic, end in ends.items() if end is not None}

    def drain(self) -> None:
        """What was sent is acknowledged, watermarks too; then the checkpoint is stored and confirmed.

        Where both are one transaction and a source transaction has come in part, nothing of it is: it is sent again.
        """
        if self._atomic:
            self._saved_at = -math.inf
            self._commit()
            return
        deadline = time.monotonic() + _DRAIN_SECONDS
        while self.busy and time.monotonic() < deadline:
            self._writer.flush(1.0)
            self._source.keep_alive()
            self._acknowledge()
            self._save_now()
        if self.busy:
            log.warning(
                "stopped before Kafka acknowledged everything: it is sent again at the next start"
            )
        self._save_now()
        self._source.keep_alive()

    def _save_now(self) -> None:
        """What is acknowledged by now is stored and confirmed on return."""
        for _ in range(2):  # a save under way may be older
            self._save_due = 0.0
            self._save()
            self._saver.wait(self._source.keep_alive)
        self._save()


@dataclass(frozen=True, slots=True)
class _Published:
    """The watermark of this step stands before this mark."""

    step: Step
