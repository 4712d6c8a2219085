"""A source's topics: made when they are first needed, their partition counts pinned from then on.

A key's partition follows from the count, and order holds within a partition only: a count that changed unnoticed would
let an old change of a key appear behind a new one.
"""

from __future__ import annotations

from collections.abc import Mapping

from cdc.errors import Refused
from cdc.kafka.topics import NewTopicSpec, Topics

MOST_MESSAGE_BYTES = 64 << 20
"""The largest record that topics of ours take."""


class PinnedTopics(dict[str, int]):
    """Partition counts by topic. Asking for an unknown topic makes it, or pins it as it is.

    The topics of transactions and watermarks are there from the beginning, with one partition.

    ``limits`` has each topic's max.message.bytes.
    """

    def __init__(
        self,
        topics: Topics,
        prefix: str,
        pinned: Mapping[str, int],
        partitions: int,
        replication: int,
    ) -> None:
        super().__init__(pinned)
        self.limits: dict[str, int] = {}
        self._topics = topics
        self._partitions = partitions
        self._replication = replication or -1
        self._endless = {f"{prefix}.transaction", f"{prefix}.watermark"}
        self._check(pinned)
        for topic in self._endless:
            self.count(topic)

    def __missing__(self, topic: str) -> int:
        settings = {"max.message.bytes": str(MOST_MESSAGE_BYTES)}
        endless = topic in self._endless
        spec = NewTopicSpec(
            topic,
            "endless" if endless else "data",
            1 if endless else self._partitions,
            self._replication,
            settings,
        )
        self._topics.create([spec])
        facts = self._topics.describe([topic])[topic]
        self[topic] = facts.info.partitions
        self.limits[topic] = facts.max_message_bytes
        return facts.info.partitions

    def count(self, topic: str) -> int:
        """The topic's pinned count; makes the topic where it is missing."""
        return self[topic]

    def _check(self, pinned: Mapping[str, int]) -> None:
        facts = self._topics.describe(list(pinned)) if pinned else {}
        for topic, count in pinned.items():
            if topic not in facts:
                raise Refused(
                    f"topic {topic}, which this connector wrote to, is gone",
                    "deploy the connector under another name and topic.prefix, with a new replica",
                )
            if facts[topic].info.partitions != count:
                raise Refused(
                    f"topic {topic} has {facts[topic].info.partitions} partitions, it had {count}",
                    "keys have moved between partitions: deploy under another topic.prefix",
                )
            self.limits[topic] = facts[topic].max_message_bytes
