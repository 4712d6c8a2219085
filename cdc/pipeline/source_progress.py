"""What of the log is on the topics for good, and the checkpoint that says so.

Steps stand in log order. A step counts once every record before it is acknowledged and, where it is a fence, once its
watermark is acknowledged as well; the checkpoint moves over the steps that count, and never over one that does not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cdc.checkpoint import BackfillProgress, Pin, SourceCheckpoint
from cdc.fence import Signal, Watermark
from cdc.table import TableId


@dataclass(slots=True)
class Step:
    """A place in the log: a commit's end, a fence, a signal, or the server's word that nothing came.

    ``commit_lsn`` is 0 where it is no commit. What a fence or signal changes in the checkpoint takes effect when the
    checkpoint moves over it. ``gone`` are tables that there is nothing to read of any more: no copy of theirs is under
    way and no signal of theirs is open from here on. ``memos`` see `cdc.checkpoint.SourceCheckpoint`. ``settled`` is set when nothing more has to be acknowledged for it.
    """

    lsn: int
    commit_lsn: int = 0
    watermark: Watermark | None = None
    progress: Mapping[TableId, BackfillProgress] = field(default_factory=dict)
    new_signals: tuple[Signal, ...] = ()
    finished: frozenset[str] = frozenset()
    gone: frozenset[TableId] = frozenset()
    settled: bool = False
    memos: Mapping[TableId, str] = field(default_factory=dict)

    @property
    def brought_rows(self) -> bool:
        """Whether rows, or deletes, of a fenced read may have entered the stream here."""
        mark = self.watermark
        return (
            mark is not None
            and mark.kind in ("backfill", "repair")
            and not (mark.void or mark.phase == "open")
        )

    @property
    def bare(self) -> bool:
        """Whether it says nothing but its place in the log."""
        changes = (self.progress, self.new_signals, self.finished, self.gone, self.memos)
        return self.settled and not (self.watermark or any(changes))


class SourceProgress:
    """Collects steps in log order; `checkpoint` is the newest that may be stored."""

    def __init__(self, checkpoint: SourceCheckpoint) -> None:
        self._checkpoint = checkpoint
        self._steps: deque[Step] = deque()

    @property
    def checkpoint(self) -> SourceCheckpoint:
        """Everything that it says is durable on the topics."""
        return self._checkpoint

    def acknowledged(self, step: Step) -> None:
        """Every record before the step is acknowledged; to be called in log order."""
        self._steps.append(step)
        if step.brought_rows and step.lsn not in self._checkpoint.admitted:
            admitted = (*self._checkpoint.admitted, step.lsn)
            self._checkpoint = replace(self._checkpoint, admitted=admitted)

    def advance(self) -> None:
        """Move the checkpoint over the steps that count."""
        lsn = commit_lsn = 0
        while self._steps and self._steps[0].settled:
            step = self._steps.popleft()
            lsn = max(lsn, step.lsn)  # a step that only changes the state says an earlier place
            commit_lsn = step.commit_lsn or commit_lsn
            if not step.bare:
                self._take(step)
        if lsn:
            lsn = max(lsn, self._checkpoint.lsn)
            self._checkpoint = replace(
                self._checkpoint,
                lsn=lsn,
                admitted=tuple(fence for fence in self._checkpoint.admitted if fence > lsn),
                last_commit_lsn=max(commit_lsn, self._checkpoint.last_commit_lsn),
            )

    def pin(self, topics: Mapping[str, Pin]) -> None:
        """These topics came into use."""
        known = self._checkpoint
        self._checkpoint = replace(
            known,
            partitions={**known.partitions, **{n: pin.partitions for n, pin in topics.items()}},
            topic_ids={**known.topic_ids, **{n: pin.topic_id for n, pin in topics.items()}},
        )

    def handed_over(self, written: int, marks: Mapping[str, int]) -> None:
        """How far the producer has been given the log, and which offsets are known to be behind that."""
        self._checkpoint = replace(
            self._checkpoint,
            written=max(written, self._checkpoint.written),
            marks={**self._checkpoint.marks, **marks},
        )

    def saw(self, unseen: tuple[tuple[int, int], ...], floor: int) -> None:
        """What the fence judge must know again after a restart."""
        self._checkpoint = replace(self._checkpoint, unseen=unseen, floor=floor)

    def _take(self, step: Step) -> None:
        signals = {signal.id: signal for signal in self._checkpoint.signals + step.new_signals}
        backfills = {**self._checkpoint.backfills, **step.progress}
        memos = {**self._checkpoint.memos, **step.memos}
        self._checkpoint = replace(
            self._checkpoint,
            backfills={t: b for t, b in backfills.items() if t not in step.gone},
            memos={table: memo for table, memo in memos.items() if table not in step.gone},
            signals=tuple(
                s
                for s in signals.values()
                if s.id not in step.finished and s.table not in step.gone
            ),
        )
