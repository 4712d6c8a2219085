"""What ``cdc check`` finds of a source's topics, as they are and as they would be made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cdc.config import MOST_MESSAGE_BYTES, ConnectorConfig
from cdc.findings import Finding, fail, ok, warn
from cdc.kafka.topics import TopicFacts, Topics
from cdc.pipeline.selection import Selection
from cdc.runtime.topic_creation import TopicCreation

_ENDLESS = -1
_DAY_MS = 86_400_000


def source_topics(topics: Topics, brokers: int, config: ConnectorConfig) -> Iterator[Finding]:
    """How topics would be made, and what is wrong with those that are there."""
    creation = TopicCreation.of(config)
    for group in (creation.default, *creation.groups):
        if group.replication > brokers:
            yield fail(
                f"topic.creation.{group.name}",
                f"{group.replication} replicas are asked for, and there are {brokers} brokers",
                f"set topic.creation.{group.name}.replication.factor to {brokers} or less",
            )
    prefix = config["topic.prefix"]
    facts = _of_source(topics, prefix)
    if not facts:
        yield ok("topics", f"none of {prefix} is there yet; they will be made")
    for topic, found in sorted(facts.items()):
        yield from _durability(topic, found, brokers)
        if found.max_message_bytes < MOST_MESSAGE_BYTES:
            yield warn(
                topic,
                f"takes records of at most {found.max_message_bytes:,} bytes: a larger row stops capture",
                f"set max.message.bytes={MOST_MESSAGE_BYTES} on it",
            )
    marks = {f"{prefix}.transaction", f"{prefix}.watermark"}
    data = {topic: found for topic, found in facts.items() if topic not in marks}
    yield from _retention(data, {topic: facts[topic] for topic in sorted(marks & facts.keys())})
    for topic, found in sorted(data.items()):
        if "compact" in found.info.cleanup_policy and not config["tombstones.on.delete"]:
            yield warn(
                topic,
                "is compacted, and deletes are not followed by tombstones: deleted keys stay for ever",
                "set tombstones.on.delete=true",
            )
    if facts:
        yield ok("topics", f"{len(facts)} of {prefix}")


def sink_topics(topics: Topics, config: ConnectorConfig) -> Iterator[Finding]:
    """That what the sink reads is there whole."""
    prefix = config["topic.prefix"]
    selection = Selection(prefix, config["topics"], config["topics.regex"])
    facts = {
        topic: found
        for topic, found in _of_source(topics, prefix).items()
        if selection.collection(topic) is not None
    }
    if not facts:
        yield warn(
            "topics",
            f"no topic of {prefix} is there that this sink reads",
            "start the source, or correct topic.prefix, topics or topics.regex",
        )
    for topic, found in sorted(facts.items()):
        if "compact" not in found.info.cleanup_policy:
            continue
        if config["apply.mode"] == "transaction":
            yield fail(
                topic,
                "is compacted: whole transactions cannot be told from what compaction left",
                "set cleanup.policy=delete on it, or apply.mode=partition",
            )
        else:
            yield warn(
                topic,
                "is compacted: the last record of a key may lack columns that its update left unchanged",
                "ALTER TABLE ... REPLICA IDENTITY FULL at the source",
            )
    if facts:
        yield ok("topics", f"{len(facts)} data topics of {prefix} are read")


def _of_source(topics: Topics, prefix: str) -> dict[str, TopicFacts]:
    found: Mapping[str, TopicFacts] = topics.describe(None)
    return {topic: facts for topic, facts in found.items() if topic.startswith(f"{prefix}.")}


def _durability(topic: str, found: TopicFacts, brokers: int) -> Iterator[Finding]:
    if found.min_insync_replicas > found.replication:
        yield fail(
            topic,
            f"has {found.replication} replicas, and min.insync.replicas={found.min_insync_replicas}: it takes no record",
            f"set min.insync.replicas to {found.replication} or less",
        )
    elif found.replication >= 3 and found.min_insync_replicas < 2:
        yield warn(
            topic,
            "acknowledges records that one broker alone holds",
            "set min.insync.replicas=2 on it",
        )
    if found.replication < min(3, brokers):
        yield warn(
            topic,
            f"has {found.replication} replicas of {brokers} brokers",
            "give it 3: kafka-reassign-partitions",
        )
    if found.unclean_election:
        yield warn(
            topic,
            "lets a broker lead that lacks acknowledged records",
            "set unclean.leader.election.enable=false on it",
        )


def _retention(
    data: Mapping[str, TopicFacts], marks: Mapping[str, TopicFacts]
) -> Iterator[Finding]:
    """Marks live as long as the longest data: without them, data cannot be put together."""
    times = [found.retention_ms for found in data.values()]
    longest = _ENDLESS if _ENDLESS in times else max(times, default=0)
    for topic, found in marks.items():
        if "compact" in found.info.cleanup_policy:
            yield fail(topic, "is compacted: its marks are lost", "set cleanup.policy=delete on it")
        shorter = found.retention_ms != _ENDLESS and (
            longest == _ENDLESS or found.retention_ms < longest
        )
        if shorter or found.retention_bytes != _ENDLESS:
            kept = "by size" if not shorter else f"for {found.retention_ms / _DAY_MS:.1f} days"
            yield fail(
                topic,
                f"is kept {kept}, and data of it for longer: a sink that starts there would stop",
                "set retention.ms=-1 and retention.bytes=-1 on it",
            )
