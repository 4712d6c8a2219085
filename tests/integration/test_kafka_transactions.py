"""Records and checkpoint in one transaction on a real broker: both or neither, and one writer at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from cdc.checkpoint import Identity, SourceCheckpoint
from cdc.errors import Failed, Fenced
from cdc.event import Record
from cdc.kafka.checkpoints import KafkaCheckpointTopic, read_checkpoint
from cdc.kafka.client import Cluster
from cdc.kafka.topics import NewTopicSpec, Topics
from cdc.kafka.transactional_writer import TransactionalCheckpoints, TransactionalTopicWriter
from tests.scenario.raw_topics import committed_records

OFFSETS = "cdc.offsets.transactions"


def at(lsn: int) -> SourceCheckpoint:
    return SourceCheckpoint(Identity("7000", 1, "db"), "streaming", lsn=lsn)


class Owner:
    """A capture's hold on its topics: claimed, ready to write."""

    def __init__(self, cluster: Cluster, name: str, **overrides: Any) -> None:
        self.name = name
        self.writer = TransactionalTopicWriter(
            name, cluster, lambda: None, budget_bytes=1 << 24, limits={}, overrides=overrides
        )
        self.topic = KafkaCheckpointTopic(cluster, OFFSETS, fence_writer=self.writer.fence)
        self.found = self.topic.claim(name)
        self.checkpoints = TransactionalCheckpoints(self.topic, self.writer)

    def write(self, topic: str, *values: bytes) -> None:
        self.writer.write([Record(topic, 0, None, value) for value in values])

    def save(self, lsn: int) -> None:
        assert self.writer.flush(20)
        self.checkpoints.save(self.name, at(lsn))

    def close(self) -> None:
        self.writer.close()
        self.topic.close()


@pytest.fixture
def brokers(kafka: str) -> Cluster:
    return Cluster(kafka)


@pytest.fixture
def topic(brokers: Cluster, prefix: str) -> str:
    Topics(brokers).create([NewTopicSpec(f"{prefix}.rows")])
    return f"{prefix}.rows"


@pytest.fixture
def owners(brokers: Cluster, prefix: str) -> Iterator[Any]:
    with ExitStack() as held:

        def own(**overrides: Any) -> Owner:
            owner = Owner(brokers, prefix, **overrides)
            held.callback(owner.close)
            return owner

        yield own


def committed(brokers: Cluster, topic: str) -> list[bytes | None]:
    return [record.value for record in committed_records(brokers.bootstrap, topic)]


def test_records_are_readable_with_the_checkpoint_that_speaks_of_them(
    owners: Any, brokers: Cluster, topic: str, prefix: str
) -> None:
    owner = owners()
    owner.write(topic, b"one", b"two")
    assert owner.writer.flush(20)
    assert committed(brokers, topic) == []
    owner.save(100)
    assert committed(brokers, topic) == [b"one", b"two"]
    assert read_checkpoint(brokers, OFFSETS, prefix) == at(100)


def test_what_was_not_committed_is_gone_with_its_writer_and_so_is_its_checkpoint(
    owners: Any, brokers: Cluster, topic: str
) -> None:
    first = owners()
    first.write(topic, b"one")
    first.save(100)
    first.write(topic, b"lost")
    value = Record(OFFSETS, 0, first.name.encode(), b'{"version": 1, "atomic": true, "lsn": 200}')
    first.writer.write([value])
    assert first.writer.flush(20)
    second = owners()  # a claim ends what the first one left open
    assert second.found == at(100)
    second.write(topic, b"two")
    second.save(150)
    assert committed(brokers, topic) == [b"one", b"two"]
    with pytest.raises(Fenced):
        first.save(200)
    assert committed(brokers, topic) == [b"one", b"two"]


def test_who_writes_without_transactions_again_fences_the_one_who_did(
    owners: Any, brokers: Cluster, topic: str
) -> None:
    first = owners()
    first.write(topic, b"one")
    first.save(100)
    first.write(topic, b"lost")
    assert first.writer.flush(20)
    plain = KafkaCheckpointTopic(brokers, OFFSETS)
    assert plain.claim(first.name) == at(100)
    plain.save(first.name, at(120))
    with pytest.raises(Fenced):
        first.save(200)
    assert plain.claim(first.name) == at(120)
    plain.close()


@pytest.mark.matrix
def test_a_transaction_that_lasts_too_long_is_told_as_that(owners: Any, topic: str) -> None:
    owner = owners(**{"transaction.timeout.ms": 1000, "socket.timeout.ms": 1000})
    owner.write(topic, b"one")
    assert owner.writer.flush(20)
    time.sleep(15)  # brokers look for such transactions every ten seconds
    with pytest.raises(Failed, match=r"transaction\.timeout\.ms"):
        owner.save(100)
