"""The topics themselves, past every part of the pipeline: what stands on them, and damage done to them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from cdc.avro.decoder import EventDecoder
from cdc.errors import Rejected
from cdc.event import Delivered, Record
from cdc.kafka import codes
from cdc.kafka.client import Cluster
from cdc.kafka.registry import Registry
from cdc.kafka.topics import NewTopicSpec, Topics
from cdc.position import Position
from tests.scenario.pipeline import Pipeline

_QUIET = {"log_level": 0}


@dataclass(frozen=True)
class Stored:
    """A record as it stands on its topic."""

    record: Record
    event: Delivered | None


def admin(kafka: str) -> AdminClient:
    """A client for topics and partitions."""
    return AdminClient({"bootstrap.servers": kafka, **_QUIET})


def topics_of(pipeline: Pipeline) -> list[str]:
    """All topics of the pipeline's source."""
    names = admin(pipeline.kafka).list_topics(timeout=20).topics
    return sorted(name for name in names if name.startswith(f"{pipeline.prefix}."))


def data_topics(pipeline: Pipeline) -> list[str]:
    """Those that carry rows."""
    own = {f"{pipeline.prefix}.{name}" for name in ("transaction", "watermark", "message")}
    return [name for name in topics_of(pipeline) if name not in own]


def bounds(kafka: str, topic: str) -> dict[int, tuple[int, int]]:
    """First and end offset of each partition."""
    with closing(_consumer(kafka)) as consumer:
        partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
        found = {}
        for number in partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=20)
            found[number] = (low, high)
        return found


def records(kafka: str, topic: str) -> Iterator[Record]:
    """Every record of the topic as it is now, partition by partition, in order within each."""
    ends = bounds(kafka, topic)
    with closing(_consumer(kafka)) as consumer:
        for number, (low, end) in ends.items():
            if low == end:
                continue
            consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING)])
            deadline = time.monotonic() + 30
            while True:
                message = consumer.poll(1.0)
                assert time.monotonic() < deadline, f"no end of {topic}[{number}] at {end}"
                if message is None:
                    if consumer.position([TopicPartition(topic, number)])[0].offset >= end:
                        break
                    continue
                if message.error() is not None:
                    raise AssertionError(message.error())
                yield _record(message)
                if _offset(message) + 1 >= end:
                    break


def committed_records(kafka: str, topic: str) -> list[Record]:
    """Every record that a reader of committed ones is shown now, up to what is still open."""
    found: list[Record] = []
    settings = {"isolation.level": "read_committed", "enable.partition.eof": True}
    for number in bounds(kafka, topic):
        with closing(_consumer(kafka, **settings)) as consumer:
            consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING)])
            deadline = time.monotonic() + 60
            while True:
                message = consumer.poll(1.0)
                assert time.monotonic() < deadline, f"no end of {topic}[{number}]"
                if message is None:
                    continue
                error = message.error()
                if error is None:
                    found.append(_record(message))
                elif error.code() == codes.PARTITION_EOF:
                    break
                else:
                    raise AssertionError(error)
    return found


def events(pipeline: Pipeline, topic: str, *, committed: bool = False) -> list[Stored]:
    """The topic's records with what they say; tombstones say nothing."""
    decoder = EventDecoder(prefix=pipeline.prefix, registry=Registry(pipeline.registry_url))
    read = committed_records if committed else records
    raw = list(read(pipeline.kafka, topic))
    stored = []
    for record, event in zip(raw, decoder.data(raw), strict=True):
        assert not isinstance(event, Rejected), event
        stored.append(Stored(record, event))
    return stored


def operations(pipeline: Pipeline, collection: str) -> dict[str, int]:
    """How many events of each kind the table's topic holds."""
    found: dict[str, int] = defaultdict(int)
    for stored in events(pipeline, f"{pipeline.prefix}.{collection}"):
        if stored.event is not None:
            found[stored.event.op] += 1
    return dict(found)


def assert_first_appearances_in_order(pipeline: Pipeline) -> int:
    """In each partition a position never appears for the first time behind a higher one.

    That is what skipping repeats stands on: after a fallback to an earlier position every record up to the highest
    one seen before is the one that stood there already. Returns how many records were repeats.
    """
    repeats = 0
    for topic in data_topics(pipeline):
        seen: dict[int, dict[Position, bytes | None]] = defaultdict(dict)
        highest: dict[int, Position] = {}
        for stored in events(pipeline, topic):
            event = stored.event
            if event is None:
                continue
            number = stored.record.partition
            at = f"{topic}[{number}]@{stored.record.offset}"
            known = seen[number]
            if event.position in known:
                repeats += 1
                assert known[event.position] == event.key, f"{at}: another key at {event.position}"
                continue
            before = highest.get(number)
            assert before is None or before < event.position, (
                f"{at}: {event.position} appears for the first time behind {before}"
            )
            known[event.position] = event.key
            highest[number] = event.position
    return repeats


def produce(kafka: str, batch: Sequence[Record]) -> None:
    """Write these records as they are, in order; a foreign producer would."""
    producer = Producer({"bootstrap.servers": kafka, "acks": "all", **_QUIET})
    failed: list[KafkaError] = []
    for record in batch:
        producer.produce(
            record.topic,
            record.value,
            record.key,
            record.partition,
            on_delivery=lambda error, _: failed.append(error) if error else None,
            headers=list(record.headers),
        )
    assert producer.flush(30) == 0
    assert not failed, failed[0]


def delete_records(kafka: str, at: dict[tuple[str, int], int]) -> None:
    """What retention does: records below these offsets are gone."""
    wanted = [TopicPartition(topic, number, offset) for (topic, number), offset in at.items()]
    client = admin(kafka)  # kept until the answers are in: they end with it
    for answer in client.delete_records(wanted).values():
        answer.result(30)


def delete_topic(kafka: str, topic: str) -> None:
    """The topic is gone on return."""
    client = admin(kafka)
    client.delete_topics([topic], operation_timeout=30)[topic].result(30)
    _until(lambda: topic not in client.list_topics(timeout=20).topics, f"{topic} is gone")


def make_topic(kafka: str, topic: str, partitions: int) -> None:
    """An empty topic of the kind that the product makes."""
    Topics(Cluster(kafka)).create([NewTopicSpec(topic, "data", partitions)])


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def _consumer(kafka: str, **settings: Any) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": kafka,
            "group.id": "raw",
            "enable.auto.commit": False,
            "isolation.level": "read_uncommitted",
            "auto.offset.reset": "error",
            **_QUIET,
            **settings,
        }
    )


def _offset(message: Message) -> int:
    offset = message.offset()
    assert offset is not None
    return offset


def _record(message: Message) -> Record:
    topic, partition = message.topic(), message.partition()
    assert topic is not None
    assert partition is not None
    headers = message.headers() or []
    return Record(
        topic,
        partition,
        message.key(),
        message.value(),
        tuple((str(name), bytes(value or b"")) for name, value in headers),  # type: ignore[str-unpack,arg-type]
        _offset(message),
    )
