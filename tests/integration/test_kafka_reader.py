"""A reader delivers each record of what it was given, from where it was told, once."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient

from cdc.errors import Refused
from cdc.event import Record
from cdc.kafka.client import Cluster
from cdc.kafka.reader import KafkaTopicReader
from cdc.kafka.topics import NewTopicSpec, Topics
from cdc.kafka.writer import KafkaTopicWriter
from cdc.position import TopicPartition

PARTITIONS = 3
RECORDS = 60_000


@pytest.fixture(scope="module")
def brokers(kafka: str) -> Cluster:
    return Cluster(kafka)


@pytest.fixture(scope="module")
def topic(brokers: Cluster) -> str:
    """A topic with ``RECORDS`` records, whose values are their offsets."""
    name = f"reader-{time.time_ns()}"
    Topics(brokers).create([NewTopicSpec(name, "data", PARTITIONS)])
    writer = KafkaTopicWriter(brokers, lambda: None)
    for number in range(RECORDS // PARTITIONS):
        writer.write(
            [Record(name, part, b"k", b"%d" % number + bytes(200)) for part in range(PARTITIONS)]
        )
    assert writer.flush(60)
    writer.close()
    return name


@pytest.fixture
def reader(brokers: Cluster) -> Iterator[KafkaTopicReader]:
    reader = KafkaTopicReader(brokers)
    yield reader
    reader.close()


def read_some(reader: KafkaTopicReader, wanted: int) -> list[Record]:
    found: list[Record] = []
    until = time.monotonic() + 20
    while len(found) < wanted and time.monotonic() < until:
        found += reader.read(0.5, wanted - len(found))
    return found


def test_pausing_and_resuming_loses_and_repeats_nothing(
    reader: KafkaTopicReader, topic: str
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    choose = random.Random(seed)
    following = {TopicPartition(topic, number): 0 for number in range(PARTITIONS)}
    reader.assign(following)
    paused: set[TopicPartition] = set()
    until = time.monotonic() + 60
    while sum(following.values()) < RECORDS:
        assert time.monotonic() < until, f"stuck at {following}, paused {paused}"
        for record in reader.read(0.05, choose.choice([1, 50, 400, 2_000])):
            partition = TopicPartition(record.topic, record.partition)
            assert partition not in paused
            assert record.offset == following[partition]
            assert (record.value or b"").startswith(b"%d\0" % record.offset)
            following[partition] += 1
        partition = choose.choice(list(following))
        match choose.random():
            case chance if chance < 0.3 and len(paused) < PARTITIONS - 1:
                reader.pause([partition])
                paused.add(partition)
            case chance if chance < 0.8:
                reader.resume([partition])
                paused.discard(partition)


def test_assigning_again_moves_there_and_a_paused_partition_stays_paused(
    reader: KafkaTopicReader, topic: str
) -> None:
    partition = TopicPartition(topic, 0)
    reader.assign({partition: 100})
    assert [record.offset for record in read_some(reader, 50)] == list(range(100, 150))
    reader.assign({partition: 7})
    assert [record.offset for record in read_some(reader, 50)] == list(range(7, 57))
    reader.pause([partition])
    reader.assign({partition: 30})
    assert reader.read(0.5) == []
    reader.resume([partition])
    assert read_some(reader, 5)[0].offset == 30


def test_moving_back_and_forth_never_delivers_what_was_fetched_before(
    reader: KafkaTopicReader, topic: str
) -> None:
    partition = TopicPartition(topic, 1)
    for start in [0, 9_000, 10, 9_010, 11, 15_000, 0] * 5:
        reader.assign({partition: start})
        assert [record.offset for record in read_some(reader, 3)] == [start, start + 1, start + 2]


@pytest.mark.parametrize("offset", [10_000_000, RECORDS // PARTITIONS + 1])
def test_an_offset_that_is_not_there_is_refused_by_name(
    reader: KafkaTopicReader, topic: str, offset: int
) -> None:
    reader.assign({TopicPartition(topic, 2): offset})
    with pytest.raises(Refused, match=rf"{topic}\[2\] at offset {offset}"):
        read_some(reader, 1)
    with pytest.raises(Refused):
        reader.read(0)


def test_a_record_is_delivered_as_soon_as_it_arrives(
    brokers: Cluster, reader: KafkaTopicReader, topic: str
) -> None:
    partition = TopicPartition(topic, 0)
    end = reader.bounds([partition])[partition][1]
    reader.assign({partition: end})
    assert reader.read(1.0) == []
    name = f"prompt-{time.time_ns()}"
    Topics(brokers).create([NewTopicSpec(name)])
    reader.assign({TopicPartition(name, 0): 0})
    reader.read(1.0)
    writer = KafkaTopicWriter(brokers, lambda: None)
    writer.write([Record(name, 0, b"k", b"warm")])
    assert read_some(reader, 1)
    waits = []
    for _ in range(20):
        start = time.monotonic()
        writer.write([Record(name, 0, b"k", b"v")])
        assert len(reader.read(5.0)) == 1
        waits.append(time.monotonic() - start)
    writer.close()
    assert sorted(waits)[10] < 0.1, waits


def test_bounds_and_topics_are_asked_of_the_brokers(
    brokers: Cluster, reader: KafkaTopicReader, topic: str
) -> None:
    partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    assert set(reader.bounds(partitions).values()) == {(0, RECORDS // PARTITIONS)}
    found = reader.topics()[topic]
    assert (found.partitions, found.cleanup_policy) == (PARTITIONS, "delete")
    assert reader.cluster_id() == Topics(brokers).cluster()[0]
    assert not [name for name in reader.topics() if name.startswith("__")]
    with pytest.raises(Refused, match="there is no"):
        reader.bounds([TopicPartition("no-such-topic", 0)])


def test_a_topic_made_anew_has_another_id(brokers: Cluster, reader: KafkaTopicReader) -> None:
    name = f"anew-{time.time_ns()}"
    topics = Topics(brokers)
    topics.create([NewTopicSpec(name)])
    before = reader.topics()[name].topic_id
    admin = AdminClient({"bootstrap.servers": brokers.bootstrap})
    admin.delete_topics([name])[name].result(10)
    while name in topics.describe([name]):
        time.sleep(0.1)
    topics.create([NewTopicSpec(name)])
    assert reader.topics()[name].topic_id not in ("", before)
