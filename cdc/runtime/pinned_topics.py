"""A source's topics: made when they are first needed, their partition counts pinned from then on.

A key's partition follows from the count, and order holds within a partition only: a count that changed unnoticed would
let an old change of a key appear behind a new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cdc.checkpoint import Pin
from cdc.config import MOST_MESSAGE_BYTES
from cdc.errors import Refused
from cdc.kafka.topics import NewTopicSpec, Topics
from cdc.pipeline.resume import ANEW
from cdc.runtime.topic_creation import TopicCreation


class PinnedTopics(dict[str, int]):
    """Partition counts by topic. Asking for an unknown topic makes it, or pins it as it is.

    The topics of transactions and watermarks are there from the beginning, with one partition.

    ``ids`` are those that the topics had when they came into use; empty for a topic whose id was not kept.
    ``limits`` has each topic's max.message.bytes.
    """

    def __init__(
        self,
        topics: Topics,
        prefix: str,
        pinned: Mapping[str, int],
        ids: Mapping[str, str],
        creation: TopicCreation,
        limits: dict[str, int] | None = None,
    ) -> None:
        super().__init__(pinned)
        self.ids: dict[str, str] = dict(ids)
        self.limits: dict[str, int] = {} if limits is None else limits
        self._topics = topics
        self._creation = creation
        self._endless = {f"{prefix}.transaction", f"{prefix}.watermark"}
        self._check(pinned)
        for topic in self._endless:
            self.count(topic)

    def __missing__(self, topic: str) -> int:
        self._topics.create([self._spec(topic)])
        facts = self._topics.describe([topic])[topic]
        self[topic] = facts.info.partitions
        self.ids[topic] = facts.info.topic_id
        self.limits[topic] = facts.max_message_bytes
        return facts.info.partitions

    def _spec(self, topic: str) -> NewTopicSpec:
        size = {"max.message.bytes": str(MOST_MESSAGE_BYTES)}
        if topic in self._endless:
            return NewTopicSpec(topic, "endless", 1, self._creation.default.replication, size)
        spec = self._creation.spec(topic)
        return replace(spec, settings={**size, **spec.settings})

    def count(self, topic: str) -> int:
        """The topic's pinned count; makes the topic where it is missing."""
        return self[topic]

    def pins(self) -> Mapping[str, Pin]:
        """Every topic that is in use."""
        return {topic: Pin(count, self.ids[topic]) for topic, count in self.items()}

    def _check(self, pinned: Mapping[str, int]) -> None:
        facts = self._topics.describe(list(pinned)) if pinned else {}
        for topic, count in pinned.items():
            if topic not in facts:
                raise Refused(
                    f"topic {topic}, which this connector wrote to, is gone",
                    f"{ANEW} (it makes the topic again)",
                )
            if facts[topic].info.partitions != count:
                raise Refused(
                    f"topic {topic} has {facts[topic].info.partitions} partitions, it had {count}:"
                    " keys have moved between partitions",
                    ANEW,
                )
            if self.ids.setdefault(topic, facts[topic].info.topic_id) != facts[topic].info.topic_id:
                raise Refused(
                    f"topic {topic} was deleted and made again: what this connector wrote there is gone",
                    ANEW,
                )
            self.limits[topic] = facts[topic].max_message_bytes
