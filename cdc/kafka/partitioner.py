"""Which partition a record goes to: where a Java producer, and librdkafka's ``murmur2_random``, would put its key.

The hash is the client library's own (``(murmur2(key) & 0x7fffffff) % partitions``), so the two cannot drift apart.
A record without a key goes to partition 0: all events of a table without a key stay in one order.
"""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka import murmur2

from cdc.errors import Failed


class Partitions:
    """The pinned partition count of each topic; called with (topic, key) it chooses the partition.

    The mapping is read at each call: a topic that its owner adds later is known at once.
    """

    __slots__ = ("_counts",)

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = counts

    def __call__(self, topic: str, key: bytes | None) -> int:
        """The partition for this key; Failed for a topic whose count is not pinned."""
        try:
            return 0 if key is None else murmur2(key, self._counts[topic])
        except KeyError:
            raise _unknown(topic) from None

    def count(self, topic: str) -> int:
        """The topic's pinned count; Failed for a topic without one."""
        try:
            return self._counts[topic]
        except KeyError:
            raise _unknown(topic) from None


def _unknown(topic: str) -> Failed:
    return Failed(
        f"the partition count of {topic} is not pinned", "make the topic before it is written to"
    )
