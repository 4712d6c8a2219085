"""A sink's checkpoint, which stands in its replica, looked at and set back: `cdc checkpoint` for the other side.

Claiming it ends a sink that still runs. What is set takes effect in one transaction of the replica.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from cdc.avro.decoder import EventDecoder
from cdc.checkpoint import Resume, SinkCheckpoint, TableState
from cdc.config import ConnectorConfig
from cdc.errors import ConfigError, Refused
from cdc.kafka.reader import KafkaTopicReader
from cdc.pipeline.selection import Selection
from cdc.pipeline.subscription import newest_watermark
from cdc.position import Position, TopicPartition
from cdc.protocols import Store
from cdc.runtime.clients import kafka_cluster, schema_registry
from cdc.runtime.plugins import plugins
from cdc.runtime.rewinding import OPENING

Offsets = Mapping[TopicPartition, Resume]


def shown_sink(config: ConnectorConfig) -> dict[str, Any]:
    """What the replica holds; empty when it holds nothing."""
    open_side = plugins()[config.plugin].open_replica_side
    if open_side is None:
        raise ConfigError(f"{config.name}: its checkpoint cannot be read", "see its store")
    with closing(open_side(config)) as side:
        held = side.state(config.name, config["topic.prefix"]).checkpoint
    if held.position is None and not held.offsets:
        return {}
    return {
        "source": held.source,
        "generation": held.position.generation if held.position else None,
        "commit_lsn": held.position.commit_lsn if held.position else None,
        "total_order": held.position.total_order if held.position else None,
        "cluster_id": held.cluster_id,
        "offsets": {str(at): resume.offset for at, resume in sorted(held.offsets.items())},
        "tables": dict(held.tables),
    }


def follow_generation(config: ConnectorConfig) -> int:
    """Set a sink to where the newest generation of its source begins: its tables are stale until copied and repaired."""
    prefix = config["topic.prefix"]
    decoder = EventDecoder(prefix=prefix, registry=schema_registry(config))
    with closing(KafkaTopicReader(kafka_cluster(config))) as reader:
        partitions = _partitions(config, reader)
        with _claimed(config, partitions.keys()) as replica:
            generation = replica.generation
            opening = newest_watermark(
                reader,
                decoder,
                Selection(prefix),
                lambda mark: mark.fence.startswith(OPENING) and mark.generation > generation,
            )
            if opening is None:
                raise Refused(
                    f"the topics of {prefix} hold no newer generation than {generation}, which this replica follows",
                    "cdc checkpoint rewind SOURCE_FILE --new-generation comes first",
                )
            ends = {TopicPartition(*at): end for at, end in opening.ends.items()}
            known = {*ends, *replica.offsets}
            offsets = _offsets(reader, {at: i for at, i in partitions.items() if at in known}, ends)
            selection = _selection(config)
            collections = {selection.collection(at.topic) for at in replica.offsets}
            replica.put(
                Position(opening.generation, 0, 0),
                offsets,
                reader.cluster_id(),
                {name: "stale" for name in collections if name},
            )
            return opening.generation


def rewind_sink(config: ConnectorConfig) -> int:
    """Have a sink read its topics again from their first records; what the replica holds already is skipped.

    Returns how many partitions that are.
    """
    with closing(KafkaTopicReader(kafka_cluster(config))) as reader:
        partitions = _partitions(config, reader)
        with _claimed(config, partitions.keys()) as replica:
            if not replica.offsets:
                raise Refused(
                    f"{config.name} holds nothing yet: there is nothing to go back from",
                    "start it: it reads from the first records on",
                )
            known = {at: i for at, i in partitions.items() if at in replica.offsets}
            replica.put(None, _offsets(reader, known, {}), reader.cluster_id(), {})
            return len(known)


@dataclass(frozen=True)
class _Replica:
    """A checkpoint that is claimed: what it holds, and how it is set."""

    store: Store
    held: SinkCheckpoint

    @property
    def generation(self) -> int:
        return self.held.position.generation if self.held.position else 0

    @property
    def offsets(self) -> Offsets:
        return self.held.offsets

    def put(
        self,
        position: Position | None,
        offsets: Offsets,
        cluster_id: str,
        tables: Mapping[str, TableState],
    ) -> None:
        """Durable on return. Without ``position`` the one that it has stays, and with it what counts as a repeat."""
        since = dict.fromkeys(self.held.since, 0) if position else {}
        checkpoint = SinkCheckpoint(
            self.held.source, position or self.held.position, cluster_id, offsets, tables, since
        )
        _save(self.store, checkpoint)


@contextmanager
def _claimed(config: ConnectorConfig, partitions: Collection[TopicPartition]) -> Iterator[_Replica]:
    """The checkpoint, ours alone from here on."""
    plugin, prefix = plugins()[config.plugin], config["topic.prefix"]
    if config["apply.mode"] == "partition" or plugin.open_store is None:
        raise ConfigError(
            f"{config.name} applies partitions apart: their checkpoints cannot be set back",
            "deploy it under another name with a new replica, and cdc table backfill",
        )
    selection = _selection(config)
    with closing(plugin.open_store(config)) as store:
        held = store.claim(config.name, prefix)
        for at in held.offsets:
            if selection.collection(at.topic) and at not in partitions:
                raise Refused(
                    f"topic {at.topic} is not there",
                    "start the source connector first, which makes it again; or leave it out by topics.regex",
                )
        yield _Replica(store, held)


def _save(store: Store, checkpoint: SinkCheckpoint) -> None:
    transaction = store.begin()
    try:
        transaction.save(checkpoint)
        transaction.commit()
    finally:
        transaction.rollback()


def _selection(config: ConnectorConfig) -> Selection:
    return Selection(config["topic.prefix"], config["topics"], config["topics.regex"])


def _partitions(config: ConnectorConfig, reader: KafkaTopicReader) -> Mapping[TopicPartition, str]:
    """Every partition that this sink reads, with its topic's id."""
    selection = _selection(config)
    marks = (selection.transaction_topic, selection.watermark_topic)
    return {
        TopicPartition(name, number): info.topic_id
        for name, info in reader.topics().items()
        if name in marks or selection.collection(name)
        for number in range(info.partitions)
    }


def _offsets(
    reader: KafkaTopicReader,
    partitions: Mapping[TopicPartition, str],
    ends: Mapping[TopicPartition, int],
) -> Offsets:
    """Each partition at its offset in ``ends``, or else at its first record."""
    firsts = reader.bounds(list(partitions))
    return {
        at: Resume(max(firsts[at][0], ends.get(at, 0)), topic_id)
        for at, topic_id in partitions.items()
    }
