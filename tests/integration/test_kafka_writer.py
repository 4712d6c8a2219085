"""What is written stands on the topics: in order, in the right partition, or the writer says that it does not."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Message, Producer

from cdc.errors import ConfigError, Refused, Unreachable
from cdc.event import Record
from cdc.kafka.client import Cluster
from cdc.kafka.partitioner import Partitions
from cdc.kafka.reader import KafkaTopicReader
from cdc.kafka.topics import NewTopicSpec, Topics
from cdc.kafka.writer import KafkaTopicWriter
from cdc.position import TopicPartition


def nothing() -> None:
    pass


@pytest.fixture
def brokers(kafka: str) -> Cluster:
    return Cluster(kafka)


@pytest.fixture
def topic(brokers: Cluster) -> str:
    return made(brokers, 4)


@pytest.fixture
def writer(brokers: Cluster) -> Iterator[KafkaTopicWriter]:
    writer = KafkaTopicWriter(brokers, nothing)
    yield writer
    writer.close()


def made(brokers: Cluster, partitions: int, **settings: str) -> str:
    name = f"writer-{time.time_ns()}"
    named = {key.replace("_", "."): value for key, value in settings.items()}
    Topics(brokers).create([NewTopicSpec(name, "data", partitions, settings=named)])
    return name


def await_failure(call: Callable[[], object]) -> None:
    """Call until it raises, which it has to do in time; what it returns meanwhile has to be false."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        assert not call()
        time.sleep(0.02)


def contents(brokers: Cluster, topic: str, partitions: int) -> list[list[Record]]:
    """Everything that stands on the topic, by partition."""
    reader = KafkaTopicReader(brokers)
    bounds = reader.bounds([TopicPartition(topic, number) for number in range(partitions)])
    reader.assign(dict.fromkeys(bounds, 0))
    found: list[list[Record]] = [[] for _ in range(partitions)]
    wanted = sum(end for _, end in bounds.values())
    until = time.monotonic() + 30
    while wanted and time.monotonic() < until:
        for record in reader.read(1.0):
            found[record.partition].append(record)
            wanted -= 1
    reader.close()
    assert wanted == 0
    return found


def test_records_stand_in_order_with_tombstones_headers_and_null_keys(
    brokers: Cluster, topic: str, writer: KafkaTopicWriter
) -> None:
    sent = [
        Record(topic, 1, b"k", b"v", (("cdc.unchanged", b"a"), ("b", b""))),
        Record(topic, 1, b"k", None),
        Record(topic, 1, None, b""),
        *(Record(topic, 1, b"%d" % number, b"x" * number) for number in range(500)),
    ]
    writer.write(sent)
    assert writer.flush(20)
    assert [record._replace(offset=-1) for record in contents(brokers, topic, 2)[1]] == sent


def test_our_partitions_are_those_of_librdkafkas_murmur2_random(
    brokers: Cluster, topic: str
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    source = random.Random(seed)
    keys = [source.randbytes(source.randrange(0, 40)) for _ in range(2_000)]
    chosen: dict[bytes, int] = {}

    def landed(message: Message) -> None:
        chosen[message.key() or b""] = message.partition() or 0

    producer = Producer({"bootstrap.servers": brokers.bootstrap, "partitioner": "murmur2_random"})
    for key in keys:
        producer.produce(
            topic,
            b"",
            key,
            on_delivery=lambda _, message: landed(message),
        )
    assert producer.flush(20) == 0
    ours = Partitions({topic: 4})
    # A message without a key and one with an empty key read alike in the callback, so the empty key is left out.
    assert {key: ours(topic, key) for key in keys if key} == {
        key: partition for key, partition in chosen.items() if key
    }


def test_marks_come_back_once_and_in_order_also_those_behind_nothing(
    topic: str, writer: KafkaTopicWriter
) -> None:
    writer.mark("nothing before")
    for number in range(50):
        writer.write([Record(topic, number % 4, b"k", b"v")])
        writer.mark(number)
        writer.mark(f"behind {number}")
    assert writer.flush(20)
    expected: list[object] = ["nothing before"]
    for number in range(50):
        expected += [number, f"behind {number}"]
    assert list(writer.durable()) == expected
    assert list(writer.durable()) == []


def test_after_a_record_that_the_broker_refuses_nothing_later_stands_in_its_partition(
    brokers: Cluster,
) -> None:
    topic = made(brokers, 1, max_message_bytes="20000")
    writer = KafkaTopicWriter(brokers, nothing, overrides={"batch.num.messages": 1})
    small = [Record(topic, 0, b"k", b"%d" % number) for number in range(30)]
    wide = Record(topic, 0, b"wide", os.urandom(50_000))
    writer.write(small[:10])
    writer.mark("first")
    writer.write([wide, *small[10:]])
    writer.mark("second")
    time.sleep(2)  # the client has time to go on by itself before its report is heard
    with pytest.raises(Refused, match=rf"{topic}\[0\].*4 bytes"):
        await_failure(lambda: "second" in writer.durable())
    with pytest.raises(Refused):
        writer.write(small)
    with pytest.raises(Refused):
        writer.mark("third")
    with pytest.raises(Refused):
        writer.flush(1)
    time.sleep(1)
    standing = [record.value for record in contents(brokers, topic, 1)[0]]
    assert standing == [record.value for record in small[: len(standing)]]
    assert len(standing) <= 10
    writer.close()


def test_a_record_over_a_known_limit_is_refused_before_it_is_sent(brokers: Cluster) -> None:
    topic = made(brokers, 1, max_message_bytes="20000")
    writer = KafkaTopicWriter(brokers, nothing, limits={topic: 20_000})
    writer.write([Record(topic, 0, b"k", b"x" * 19_000)])
    with pytest.raises(Refused, match=rf"{topic}\[0\] has 20513 bytes \(its key 1\)"):
        writer.write([Record(topic, 0, b"k", b"x" * 20_000)])
    with pytest.raises(Refused):
        writer.durable()
    writer.close()


def test_the_end_offset_is_known_from_acknowledgements_and_asked_for_otherwise(
    brokers: Cluster, topic: str, writer: KafkaTopicWriter
) -> None:
    assert writer.end_offset(TopicPartition(topic, 0)) == 0
    writer.write([Record(topic, 0, b"k", b"v")] * 7)
    assert writer.flush(20)
    assert writer.end_offset(TopicPartition(topic, 0)) == 7
    second = KafkaTopicWriter(brokers, nothing)
    assert second.end_offset(TopicPartition(topic, 0)) == 7
    second.close()


def test_a_vanished_topic_is_refused_not_made_anew(brokers: Cluster) -> None:
    # The client believes that a topic is gone only after its propagation time, which is shortened here.
    writer = KafkaTopicWriter(
        Cluster(brokers.bootstrap, {"topic.metadata.propagation.max.ms": 500}), nothing
    )
    name = f"never-{time.time_ns()}"
    with pytest.raises(Refused, match=name):
        await_failure(lambda: writer.write([Record(name, 0, b"k", b"v")]))
    assert name not in Topics(brokers).describe()


def test_a_closed_writer_takes_nothing_and_closes_again(
    topic: str, writer: KafkaTopicWriter
) -> None:
    writer.close()
    writer.close()
    with pytest.raises(Unreachable, match="closed"):
        writer.write([Record(topic, 0, b"k", b"v")])


def test_acks_cannot_be_weakened(brokers: Cluster) -> None:
    with pytest.raises(ConfigError, match=r"producer\.override\.acks"):
        KafkaTopicWriter(brokers, nothing, overrides={"acks": "1"})
    with pytest.raises(ConfigError, match="the producer's settings"):
        KafkaTopicWriter(brokers, nothing, overrides={"no.such.setting": "1"})
