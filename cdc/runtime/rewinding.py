"""A source's checkpoint looked at, and set back by a person who decided so: `cdc checkpoint`.

A *new generation* is a new history under the same topics: the source's log no longer continues the one that was
captured. The source's checkpoint is set to begin anew, and a watermark says where on each partition the new generation
begins. A sink is set to that place by a command of its own (`cdc.runtime.rewinding_sinks`). What rows were deleted in the part of the history that was
lost nobody can tell any more: copies bring the rows that are there, verification with repair removes the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from cdc.avro.encoder import EventEncoder
from cdc.checkpoint import SourceCheckpoint
from cdc.config import ConnectorConfig
from cdc.errors import ConfigError, Refused, Unreachable
from cdc.fence import Watermark
from cdc.kafka.checkpoints import KafkaCheckpointTopic, read_checkpoint
from cdc.kafka.partitioner import Partitions
from cdc.kafka.topics import Topics
from cdc.kafka.writer import KafkaTopicWriter
from cdc.position import TopicPartition
from cdc.protocols import Source
from cdc.runtime.clients import kafka_cluster, schema_registry
from cdc.runtime.pinned_topics import PinnedTopics
from cdc.runtime.plugins import plugins
from cdc.runtime.topic_creation import TopicCreation

OPENING = "generation-"
"""What the ids of watermarks begin with that open a generation; its number follows."""

_ACKNOWLEDGING = 30.0


def shown_source(config: ConnectorConfig) -> dict[str, Any]:
    """What stands in a source's checkpoint, keys of rows only counted; empty when there is none."""
    checkpoint = read_checkpoint(kafka_cluster(config), config["offset.storage.topic"], config.name)
    if checkpoint is None:
        return {}
    raw = checkpoint.to_json()
    for entry in raw["backfills"]:
        entry["remaining"] = len(entry["remaining"])
    for signal in raw["signals"]:
        signal["keys"] = len(signal["keys"])
    return raw


def rewind_source(config: ConnectorConfig, lsn: int) -> SourceCheckpoint:
    """Send again what the source committed behind ``lsn``, under the same positions. Refused where its log is gone."""
    with (
        closing(_source(config)) as source,
        closing(_checkpoints(config)) as checkpoints,
    ):
        checkpoint = _claimed(config, source, checkpoints)
        slot = source.slot()
        if checkpoint.state != "streaming" or slot is None or slot.lost:
            raise Refused(
                f"{config.name} has no slot to read from again",
                "cdc checkpoint rewind FILE --new-generation",
            )
        if not slot.confirmed <= lsn <= checkpoint.lsn:
            raise Refused(
                f"the source has its log from {slot.confirmed} on, and the checkpoint stands at {checkpoint.lsn}:"
                f" {lsn} is not between them",
                "name an LSN between them, or cdc table backfill what is missing before",
            )
        back = replace(checkpoint, lsn=lsn, owner="")
        checkpoints.save(config.name, back)
        return back


def begin_generation(config: ConnectorConfig) -> SourceCheckpoint:
    """Let the source begin a new history: its next start makes the slot anew and copies every table.

    On return the topics say where the new generation begins, and a capture that still runs is fenced.
    """
    with (
        closing(_source(config)) as source,
        closing(_checkpoints(config)) as checkpoints,
    ):
        checkpoint = _claimed(config, source, checkpoints)
        generation = checkpoint.generation + 1
        begun = SourceCheckpoint(
            checkpoint.identity,
            "creating",
            generation=generation,
            marks=_announced(config, checkpoint, generation),
        )
        checkpoints.save(config.name, begun)
        return begun


def _announced(
    config: ConnectorConfig, checkpoint: SourceCheckpoint, generation: int
) -> Mapping[str, int]:
    """Say on the watermark topic where the generation begins; the ends of the topics of marks behind that."""
    prefix = config["topic.prefix"]
    cluster = kafka_cluster(config)
    topics = Topics(cluster)
    counts = PinnedTopics(topics, prefix, {}, {}, TopicCreation.of(config))
    there = topics.describe(sorted({*checkpoint.partitions, *counts}))
    partitions = [
        TopicPartition(name, number)
        for name, facts in there.items()
        for number in range(facts.info.partitions)
    ]
    ends = {(at.topic, at.partition): end for at, (_, end) in topics.bounds(partitions).items()}
    mark = Watermark(f"{OPENING}{generation}", "mark", None, generation, 0, ends)
    encoder = EventEncoder(
        prefix=prefix,
        database=checkpoint.identity.database,
        generation=generation,
        registry=schema_registry(config),
        partition=Partitions(counts),
        partitions=counts.count,
    )
    with closing(KafkaTopicWriter(cluster, lambda: None)) as writer:
        writer.write([encoder.watermark(mark)])
        if not writer.flush(_ACKNOWLEDGING):
            raise Unreachable("Kafka did not take the watermark", "run the command again")
    marks = [TopicPartition(name, 0) for name in counts]
    return {at.topic: end for at, (_, end) in topics.bounds(marks).items()}


def _claimed(
    config: ConnectorConfig, source: Source, checkpoints: KafkaCheckpointTopic
) -> SourceCheckpoint:
    """The checkpoint, ours alone from here on. Refused while the connector runs."""
    slot = source.slot()
    if slot is not None and slot.active:
        raise Refused(
            f"{config.name} runs: its slot is in use", "stop it first, then run the command again"
        )
    checkpoint = checkpoints.claim(config.name)
    if checkpoint is None:
        raise Refused(f"{config.name} has no checkpoint", "start it: it begins by itself")
    return checkpoint


def _checkpoints(config: ConnectorConfig) -> KafkaCheckpointTopic:
    return KafkaCheckpointTopic(kafka_cluster(config), config["offset.storage.topic"])


def _source(config: ConnectorConfig) -> Source:
    plugin = plugins()[config.plugin]
    if plugin.open_source is None:
        raise ConfigError(f"{config.name} is not a source connector", "give the source's file")
    return plugin.open_source(config)
