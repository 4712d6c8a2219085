"""Where a task begins to read the partitions that its group gave it, and when it must not begin.

A partition goes on from the offset in the replica, under the same refusals as in transaction mode. One that the
replica holds nothing of is read from its first record; if retention has removed that, from the fence that opened the
newest backfill of its table, which brings what is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

from cdc.checkpoint import PartitionState, SinkCheckpoint
from cdc.pipeline.selection import Selection
from cdc.pipeline.subscription import opening, partitions, resumed, same_cluster, same_topics
from cdc.position import TopicPartition
from cdc.protocols import EventDecoder, GroupReader, TopicInfo, TopicReader

log = logging.getLogger(__name__)


class Beginning(NamedTuple):
    """At which ``offset`` a partition is read, of which topic, and below which LSN its events do not count."""

    offset: int
    topic_id: str
    since: int


class Beginnings:
    """Decides for partitions of one source. ``open_reader`` is for looking at watermarks, outside the group."""

    def __init__(
        self, selection: Selection, decoder: EventDecoder, open_reader: Callable[[], TopicReader]
    ) -> None:
        self._selection = selection
        self._decoder = decoder
        self._open_reader = open_reader
        self._told: set[str] = set()

    def find(
        self, reader: GroupReader, states: Mapping[TopicPartition, PartitionState]
    ) -> dict[TopicPartition, Beginning]:
        """One for each of ``states``, which the replica has just told. Refused when going on would lose changes."""
        topics = reader.topics()
        bounds = reader.bounds(list(states))
        found: dict[TopicPartition, Beginning] = {}
        for tp, state in states.items():
            known = SinkCheckpoint(
                self._selection.prefix,
                None,
                state.cluster_id,
                {} if state.resume is None else {tp: state.resume},
            )
            same_cluster(reader, known)
            same_topics(self._selection, known, topics)
            self._look_at_policy(tp.topic, topics[tp.topic])
            offset = resumed(tp, known, bounds[tp], fresh=True)
            since = state.since
            if state.resume is None and self._has_lost_some(reader, tp.topic, topics[tp.topic]):
                since = self._opening(tp.topic, topics)
            found[tp] = Beginning(offset, topics[tp.topic].topic_id, since)
        return found

    def _has_lost_some(self, reader: GroupReader, topic: str, info: TopicInfo) -> bool:
        """Whether any partition of a data topic no longer has its first records.

        Then all of them begin at one fence: or they would wait for each other at a TRUNCATE that some leave to the
        backfill.
        """
        if self._selection.collection(topic) is None:
            return False
        return any(low for low, _ in reader.bounds(partitions(topic, info)).values())

    def _opening(self, topic: str, topics: Mapping[str, TopicInfo]) -> int:
        marks = self._selection.watermark_topic
        if marks not in topics:
            log.warning(
                "%s no longer has its first records, and its writer makes no backfills of ours:"
                " what they said is missing in the replica",
                topic,
            )
            return 0
        reader = self._open_reader()
        try:
            all_of_it = [tp for name in (topic, marks) for tp in partitions(name, topics[name])]
            nothing_held = SinkCheckpoint(self._selection.prefix, None)
            return opening(
                reader,
                self._decoder,
                self._selection,
                nothing_held,
                topic,
                reader.bounds(all_of_it),
            )
        finally:
            reader.close()

    def _look_at_policy(self, topic: str, info: TopicInfo) -> None:
        if "compact" in info.cleanup_policy and topic not in self._told:
            self._told.add(topic)
            log.warning(
                "topic %s is compacted: the last record of a key may lack a column that did not change;"
                " only with REPLICA IDENTITY FULL is it whole",
                topic,
            )


__all__ = ["Beginning", "Beginnings"]
