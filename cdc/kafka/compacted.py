"""Reads a partition of a compacted topic as what it is: a table of the last value of each key."""

from __future__ import annotations

import time
from collections.abc import Callable

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from cdc.errors import Unreachable
from cdc.kafka import codes
from cdc.kafka.client import ClientWatch, Cluster
from cdc.kafka.errors import translate
from cdc.kafka.topics import Topics
from cdc.position import TopicPartition

_SLICE = 0.1


def read_table(
    cluster: Cluster,
    topics: Topics,
    partition: TopicPartition,
    patience: float,
    keep_alive: Callable[[], None],
    *,
    committed: bool = False,
) -> dict[bytes, bytes]:
    """The last value of each key, as of some moment after the call began; deleted keys are left out.

    Records of open and aborted transactions count too. Whoever reads only committed ones can be blind for ever to all
    that follows: a broker that restarts right after a commit may forget to write its marker, because it does not know
    the partition's leader yet, and then the transaction stays open (KIP-664 calls it hanging).
    With ``committed`` they do not count, and an open one of another writer is waited for.
    Unreachable when the end is not reached in ``patience`` seconds.
    """
    first, end = topics.bounds([partition])[partition]
    watch = ClientWatch(f"reading {partition}")
    consumer = Consumer(
        cluster.settings(
            watch,
            {
                "group.id": "cdc-reader",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed" if committed else "read_uncommitted",
                "check.crcs": True,
                "fetch.wait.max.ms": 50,
                "allow.auto.create.topics": False,
            },
        )
    )
    table: dict[bytes, bytes] = {}
    until = time.monotonic() + patience
    try:
        consumer.assign([KafkaPartition(*partition, first)])
        reached = first
        while reached < end:
            for message in consumer.consume(1000, 0) or consumer.consume(1, _SLICE):
                error = message.error()
                if error is not None and error.code() != codes.PARTITION_EOF:
                    raise translate(error, f"reading {partition}")
                offset = message.offset() or 0
                reached = max(reached, offset if error is not None else offset + 1)
                if error is None:
                    _put(table, message.key(), message.value())
            watch.check()
            keep_alive()
            if reached < end and time.monotonic() > until:
                raise Unreachable(
                    f"{partition} cannot be read to its end ({reached} of {end})",
                    "its broker is away, or a transaction on it hangs (kafka-transactions.sh find-hanging);"
                    " it is tried again",
                )
    except KafkaException as error:
        raise translate(error, f"reading {partition}") from error
    finally:
        consumer.close()
    return table


def _put(table: dict[bytes, bytes], key: bytes | None, value: bytes | None) -> None:
    if key is None:
        return
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value
