"""Where a sink begins to read, and when it must not begin at all.

A sink goes on from the offsets in its replica. They are worth nothing if they belong to another cluster, to a topic
that was made again, or to records that retention has removed: each of these stops the task (correctness rule 17).

A topic that the replica knows nothing of can be read from its first record if nothing was removed from it and
everything on it is behind the replica's position. Otherwise the rows before must come by a backfill: reading counts
from the fence that opened the newest one. The watermark's end offsets may already lie behind events that follow the
fence (they are taken when the acknowledgements are in), so reading begins at the log's start and what is older than
the fence is ignored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cdc.checkpoint import SinkCheckpoint
from cdc.errors import Failed, Refused, Rejected, Unreachable
from cdc.event import Record
from cdc.fence import Watermark
from cdc.pipeline.selection import Selection
from cdc.position import Position, TopicPartition
from cdc.protocols import EventDecoder, TopicInfo, TopicReader

Bounds = Mapping[TopicPartition, tuple[int, int]]
_PATIENCE = 30.0  # seconds without a record that is known to be there


@dataclass(slots=True)
class Start:
    """Where to read each partition, and what was found out on the way. ``new_since`` is not in the replica yet."""

    at: dict[TopicPartition, int] = field(default_factory=dict)
    topics: dict[str, TopicInfo] = field(default_factory=dict)
    new_since: dict[str, int] = field(default_factory=dict)


def find_start(
    reader: TopicReader, decoder: EventDecoder, selection: Selection, checkpoint: SinkCheckpoint
) -> Start:
    """Decide for every topic there is. Refused when going on would lose changes; nothing stays assigned by intent."""
    same_cluster(reader, checkpoint)
    topics = reader.topics()
    _one_source(selection, topics)
    read = {name: topics[name] for name in sorted(topics) if _is_read(selection, name)}
    same_topics(selection, checkpoint, topics)
    for name, info in read.items():
        check_policy(name, info)
    bounds = reader.bounds([tp for name, info in read.items() for tp in partitions(name, info)])
    start = Start(topics=read)
    known = {tp.topic for tp in checkpoint.offsets}
    late = [name for name in read if name not in known and selection.collection(name)]
    for name, info in read.items():
        if name not in late:
            for tp in partitions(name, info):
                start.at[tp] = resumed(tp, checkpoint, bounds[tp], fresh=name not in known)
    for name in late:
        first_kept = all(bounds[tp][0] == 0 for tp in partitions(name, read[name]))
        whole = first_kept and not _marks_lost(selection, checkpoint, bounds)
        if not (
            whole and _all_behind(reader, decoder, checkpoint.position, name, read[name], bounds)
        ):
            opened = opening(reader, decoder, selection, checkpoint, name, bounds)
            start.new_since[name[len(selection.prefix) + 1 :]] = opened
        start.at |= {tp: bounds[tp][0] for tp in partitions(name, read[name])}
    return start


def _one_source(selection: Selection, topics: Mapping[str, TopicInfo]) -> None:
    """An order of commits is one source's: another's topics would be left out, and nobody would know."""
    if others := selection.of_other_sources(topics):
        raise Refused(
            f"topics.regex matches {others[0]}, which is not of the source {selection.prefix}",
            f"narrow topics.regex to {selection.prefix}, and deploy one sink for each source",
        )


def partitions(topic: str, info: TopicInfo) -> list[TopicPartition]:
    """All partitions of a topic."""
    return [TopicPartition(topic, number) for number in range(info.partitions)]


def check_policy(topic: str, info: TopicInfo) -> None:
    """Refused for a compacted topic: transactions on it lose rows."""
    if "compact" in info.cleanup_policy:
        raise Refused(
            f"topic {topic} is compacted: whole transactions cannot be read from it",
            f"set cleanup.policy=delete on {topic}",
        )


def _is_read(selection: Selection, name: str) -> bool:
    own = (selection.transaction_topic, selection.watermark_topic)
    return name in own or selection.collection(name) is not None


class AsksBrokers(Protocol):
    """As much of a reader as tells which cluster this is."""

    def cluster_id(self) -> str:
        """The cluster's identity."""
        ...


def same_cluster(reader: AsksBrokers, checkpoint: SinkCheckpoint) -> None:
    """Refused when the offsets in the replica count another cluster's records."""
    now = reader.cluster_id()
    if checkpoint.cluster_id and now != checkpoint.cluster_id:
        raise Refused(
            f"the replica's checkpoint belongs to Kafka cluster {checkpoint.cluster_id}, this is {now}",
            "point bootstrap.servers at the same cluster, or deploy the sink under another name with a new replica",
        )


def same_topics(
    selection: Selection, checkpoint: SinkCheckpoint, topics: Mapping[str, TopicInfo]
) -> None:
    """Refused when a topic or partition that the replica has read is gone, or another one of its name."""
    for tp, resume in checkpoint.offsets.items():
        if not _is_read(selection, tp.topic):
            continue
        info = topics.get(tp.topic)
        if info is None or tp.partition >= info.partitions:
            raise Refused(
                f"{tp} is gone, the replica holds it up to offset {resume.offset}",
                _again(selection, tp),
            )
        if resume.topic_id and info.topic_id and resume.topic_id != info.topic_id:
            raise Refused(
                f"topic {tp.topic} was deleted and made again since the replica read it",
                _again(selection, tp),
            )


def resumed(
    tp: TopicPartition, checkpoint: SinkCheckpoint, bounds: tuple[int, int], *, fresh: bool
) -> int:
    """Where reading the partition goes on. Refused when what the replica needs next is not there any more."""
    low, end = bounds
    resume = checkpoint.offsets.get(tp)
    if resume is None:
        if low and not fresh:
            raise Refused(
                f"{tp} is new to the replica, and its first records are gone",
                "deploy the sink under another name with a new replica, and backfill",
            )
        return low
    if resume.offset < low:
        raise Refused(
            f"{tp} begins at offset {low}, the replica needs it from {resume.offset}: retention removed the rest",
            "raise retention.ms; deploy the sink under another name with a new replica, and cdc table backfill",
        )
    if resume.offset > end:
        raise Refused(
            f"{tp} ends at offset {end}, the replica holds it up to {resume.offset}: the topic lost its end",
            "verify the replica with --repair after cdc checkpoint rewind",
        )
    return resume.offset


def _marks_lost(selection: Selection, checkpoint: SinkCheckpoint, bounds: Bounds) -> bool:
    """Whether the transaction topic may lack the END of something that still stands on a data topic."""
    low, _ = bounds.get(TopicPartition(selection.transaction_topic, 0), (0, 0))
    return low > 0 and checkpoint.position is None


def _all_behind(
    reader: TopicReader,
    decoder: EventDecoder,
    held: Position | None,
    topic: str,
    info: TopicInfo,
    bounds: Bounds,
) -> bool:
    """Whether all events of the topic are behind what the replica holds: positions grow, so the first ones tell."""
    if held is None:
        return True
    looking = {tp: bounds[tp] for tp in partitions(topic, info) if bounds[tp][1] > bounds[tp][0]}
    seen: set[TopicPartition] = set()
    for record in _records(reader, looking, seen):
        event = decoder.data([record])[0]
        if isinstance(event, Rejected):
            raise Failed(
                f"{record.topic}[{record.partition}]@{record.offset}: {event.what}", event.remedy
            )
        if event is not None:
            if event.position <= held:
                return False
            seen.add(TopicPartition(record.topic, record.partition))
    return True


def opening(
    reader: TopicReader,
    decoder: EventDecoder,
    selection: Selection,
    checkpoint: SinkCheckpoint,
    topic: str,
    bounds: Bounds,
) -> int:
    """The LSN of the newest opening fence of a backfill that is whole on the topics and ahead of the replica."""

    def opens(watermark: Watermark) -> bool:
        return (
            watermark.phase == "open"
            and not watermark.void
            and any(name == topic for name, _ in watermark.ends)
            and all(
                end >= bounds.get(TopicPartition(*where), (0, 0))[0]
                for where, end in watermark.ends.items()
            )
            and not (
                checkpoint.position
                and checkpoint.position.passed(watermark.generation, watermark.lsn)
            )
        )

    newest = newest_watermark(reader, decoder, selection, opens)
    if newest is None:
        table = topic[len(selection.prefix) + 1 :]
        raise Refused(
            f"the replica joins {topic} late: what stood there before is missing, and no backfill brings it",
            f"cdc table backfill FILE --table {table}",
        )
    return newest.lsn


def newest_watermark(
    reader: TopicReader,
    decoder: EventDecoder,
    selection: Selection,
    wanted: Callable[[Watermark], bool],
) -> Watermark | None:
    """The last one on the source's watermark topic that is ``wanted``; None when there is none, or no such topic."""
    tp = TopicPartition(selection.watermark_topic, 0)
    if selection.watermark_topic not in reader.topics():
        return None
    newest: Watermark | None = None
    for record in _records(reader, reader.bounds([tp]), set()):
        watermark = decoder.watermark(record)
        if wanted(watermark):
            newest = watermark
    return newest


def _records(reader: TopicReader, within: Bounds, enough: set[TopicPartition]) -> Iterable[Record]:
    """All records there are now of these partitions; of those in ``enough`` (which may grow) no more."""
    reader.assign({tp: low for tp, (low, _) in within.items()})
    left = {tp for tp, (low, end) in within.items() if end > low}
    deadline = time.monotonic() + _PATIENCE
    while left:
        records: Sequence[Record] = reader.read(0.5)
        for record in records:
            tp = TopicPartition(record.topic, record.partition)
            if tp not in left:
                continue
            yield record
        left = {tp for tp in left - enough if reader.position(tp) < within[tp][1]}
        if records:
            deadline = time.monotonic() + _PATIENCE
        elif time.monotonic() > deadline:
            raise Unreachable(f"no record of {sorted(left)[0]} came for {_PATIENCE:.0f} s")


def _again(selection: Selection, tp: TopicPartition) -> str:
    table = selection.collection(tp.topic)
    backfill = f"cdc table backfill FILE --table {table}" if table else "backfill its tables"
    return f"deploy the sink under another name with a new replica, and {backfill}"
