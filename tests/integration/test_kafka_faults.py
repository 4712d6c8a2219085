"""Brokers that die, stall and come back: nothing is lost, reordered or reported too early."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from cdc.checkpoint import Identity, SourceCheckpoint
from cdc.errors import Unreachable
from cdc.event import Record
from cdc.kafka.checkpoints import KafkaCheckpointTopic
from cdc.kafka.client import Cluster
from cdc.kafka.reader import KafkaTopicReader
from cdc.kafka.topics import NewTopicSpec, Topics
from cdc.kafka.writer import KafkaTopicWriter
from cdc.local.cluster import Cluster as Servers
from cdc.position import TopicPartition

BROKER = "broker-1"
IMPATIENT = {"socket.timeout.ms": 1000, "request.timeout.ms": 1000, "retry.backoff.max.ms": 200}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A broker that these tests may break."""
    with Servers.up(tmp_path_factory.mktemp("broken"), postgres=(), registry=False) as servers:
        yield servers


@pytest.fixture
def brokers(servers: Servers) -> Cluster:
    return Cluster(servers.bootstrap_servers)


@pytest.fixture
def topic(brokers: Cluster) -> str:
    name = f"faults-{time.time_ns()}"
    Topics(brokers).create([NewTopicSpec(name, "data", 2)])
    return name


def read_all(brokers: Cluster, topic: str, wanted: int) -> dict[int, list[bytes | None]]:
    reader = KafkaTopicReader(brokers)
    reader.assign({TopicPartition(topic, number): 0 for number in range(2)})
    found: dict[int, list[bytes | None]] = {0: [], 1: []}
    until = time.monotonic() + 30
    while sum(map(len, found.values())) < wanted and time.monotonic() < until:
        for record in reader.read(0.5):
            found[record.partition].append(record.value)
    assert reader.read(1.0) == [], "more than was written"
    reader.close()
    return found


def test_a_broker_that_is_away_longer_than_every_timeout_costs_neither_order_nor_records(
    servers: Servers, brokers: Cluster, topic: str
) -> None:
    kept_alive = 0

    def keep_alive() -> None:
        nonlocal kept_alive
        kept_alive += 1

    writer = KafkaTopicWriter(brokers, keep_alive, overrides=IMPATIENT)

    def crash() -> None:
        servers.kill(BROKER)
        time.sleep(6)
        servers.start(BROKER)

    killer = threading.Thread(target=crash)
    numbers = range(2_000)
    back: list[object] = []
    for number in numbers:
        if number == 300:
            killer.start()
        writer.write([Record(topic, part, b"k", b"%d" % number) for part in range(2)])
        writer.mark(number)
        back += writer.durable()
        time.sleep(0.001)
    assert len(back) < len(numbers)
    assert not writer.flush(0.2)
    assert writer.flush(60)
    killer.join()
    back += writer.durable()
    writer.close()
    assert back == list(numbers)
    assert kept_alive
    expected: list[bytes | None] = [b"%d" % number for number in numbers]
    assert read_all(brokers, topic, 2 * len(numbers)) == {0: expected, 1: expected}


def test_marks_wait_for_acknowledgements_and_a_full_budget_keeps_the_source_alive(
    servers: Servers, brokers: Cluster, topic: str
) -> None:
    calls: list[float] = []

    def keep_alive() -> None:
        calls.append(time.monotonic())
        if len(calls) == 15:
            servers.resume(BROKER)

    writer = KafkaTopicWriter(brokers, keep_alive, budget_bytes=1 << 20)
    writer.write([Record(topic, 0, b"k", b"first")])
    assert writer.flush(20)
    calls.clear()
    servers.pause(BROKER)
    try:
        writer.write([Record(topic, 1, b"k", b"v")])
        writer.mark("unacknowledged")
        time.sleep(0.5)
        assert list(writer.durable()) == []
        records = [Record(topic, 0, b"k", b"%d" % number + bytes(1000)) for number in range(3_000)]
        writer.write(records)  # three times the budget
        assert len(calls) >= 15
        assert max(later - earlier for earlier, later in pairwise(calls)) < 0.5
    finally:
        servers.resume(BROKER)
    assert writer.flush(30)
    assert list(writer.durable()) == ["unacknowledged"]
    writer.close()
    found = read_all(brokers, topic, 3_002)
    assert found[0] == [b"first", *(record.value for record in records)]


def test_a_reader_goes_on_where_it_was_when_the_broker_is_back(
    servers: Servers, brokers: Cluster, topic: str
) -> None:
    writer = KafkaTopicWriter(brokers, lambda: None)
    reader = KafkaTopicReader(brokers, overrides={"socket.timeout.ms": 1000})
    reader.assign({TopicPartition(topic, 0): 0})
    values: list[bytes | None] = []
    expected: list[bytes | None] = [b"%d" % number for number in range(400)]
    for number in range(400):
        if number == 200:
            assert writer.flush(20)
            servers.kill(BROKER)
            values += [record.value for record in reader.read(2.0)]
            assert reader.read(1.0) == []
            servers.start(BROKER)
        writer.write([Record(topic, 0, b"k", b"%d" % number)])
    assert writer.flush(30)
    until = time.monotonic() + 20
    while len(values) < 400 and time.monotonic() < until:
        values += [record.value for record in reader.read(0.5)]
    assert values == expected
    reader.close()
    writer.close()


def test_a_save_while_the_broker_is_away_is_unknown_and_the_next_claim_tells_what_stands(
    servers: Servers, brokers: Cluster
) -> None:
    topic = f"offsets-{time.time_ns()}"
    identity = Identity("7000", 1, "db")
    checkpoints = KafkaCheckpointTopic(brokers, topic, saving_seconds=2)
    checkpoints.claim("a")
    first, second = (SourceCheckpoint(identity, "streaming", lsn=lsn) for lsn in (1, 2))
    checkpoints.save("a", first)
    servers.kill(BROKER)
    try:
        with pytest.raises(Unreachable):
            checkpoints.save("a", second)
        with pytest.raises(Unreachable, match="not claimed"):
            checkpoints.save("a", second)
    finally:
        servers.start(BROKER)
    assert checkpoints.claim("a") in (first, second)
    checkpoints.save("a", second)
    assert checkpoints.claim("a") == second
    checkpoints.close()


def test_no_broker_at_the_address_is_told_in_seconds_with_the_address() -> None:
    start = time.monotonic()
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1 cannot be reached.*refused"):
        Topics(Cluster("127.0.0.1:1")).cluster()
    assert time.monotonic() - start < 15
