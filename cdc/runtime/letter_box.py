"""The letters of a sink, read from its dead-letter topic: listed beside what the replica keeps parked, and replayed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Self

from cdc.avro.dead_letter import DeadLetters
from cdc.avro.decoder import EventDecoder
from cdc.checkpoint import ParkedKey
from cdc.config import ConnectorConfig
from cdc.errors import CdcError, ConfigError, Rejected, Unreachable
from cdc.event import DeadLetter
from cdc.kafka.reader import MEBIBYTE, KafkaTopicReader
from cdc.pipeline.replay import Place, Replayed, belongs, place_of, replay
from cdc.position import TopicPartition
from cdc.runtime.clients import kafka_cluster, schema_registry
from cdc.runtime.dead_letters import topic_of
from cdc.runtime.plugins import plugins
from cdc.runtime.sides import open_replica_side

_QUIET_READS = 100
_READ_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Listed:
    """A letter, whether the replica keeps its change out now, and its values where they were asked for."""

    letter: DeadLetter
    table: str
    parked: bool
    key: Mapping[str, object] | None
    values: Mapping[str, object] | None

    def to_json(self) -> dict[str, Any]:
        """Stable keys."""
        letter, record = self.letter, self.letter.record
        shown = {} if self.key is None else {"key": _plain(self.key), "values": _plain(self.values)}
        return {
            "table": self.table,
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "position": None if letter.position is None else str(letter.position),
            "kind": letter.kind,
            "message": letter.message,
            "remedy": letter.remedy,
            "at_ms": letter.at_ms,
            "parked": self.parked,
            **shown,
        }


class LetterBox:
    """One sink's dead letters. ConfigError for a file that is no sink's."""

    def __init__(self, sink: ConnectorConfig) -> None:
        if sink.role != "sink":
            raise ConfigError(f"{sink.name} is not a sink", "give the sink's file")
        self._sink = sink
        self._topic = topic_of(sink)
        self._prefix: str = sink["topic.prefix"]
        registry = schema_registry(sink)
        self._codec = DeadLetters(topic=self._topic, registry=registry)
        self._decoder = EventDecoder(prefix=self._prefix, registry=registry)
        self._reader = KafkaTopicReader(
            kafka_cluster(sink),
            budget_bytes=16 * MEBIBYTE,
            overrides=sink["consumer.override.*"],
        )
        self._next = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def letters(self, *, values: bool = False) -> list[Listed]:
        """All of this sink's, once each, in the order in which they were first written."""
        found: dict[Place, DeadLetter] = {}
        for letter in self._more():
            if letter.sink == self._sink.name:
                found.setdefault(place_of(letter.record), letter)
        with closing(open_replica_side(self._sink)) as side:
            parked = side.state(self._sink.name, self._prefix).checkpoint.parked
        return [self._listed(letter, parked, values=values) for letter in found.values()]

    def replay(self, tables: Collection[str], skip: Collection[Place]) -> Replayed:
        """Apply the letters of parked keys (of these tables; none named: of all), and release the keys."""
        opened = plugins()[self._sink.plugin].open_store
        if opened is None:
            raise ConfigError(f"{self._sink.plugin} cannot be a sink")
        with closing(opened(self._sink)) as store:
            return replay(
                store,
                self._sink.name,
                self._prefix,
                self._decoder,
                self._more,
                lambda parked: not tables or parked.collection in tables,
                skip,
            )

    def _more(self) -> Iterator[DeadLetter]:
        """What stands on the topic and was not read before."""
        if self._topic not in self._reader.topics():
            return
        partition = TopicPartition(self._topic, 0)
        low, end = self._reader.bounds([partition])[partition]
        if self._next < low:
            self._next = low
        if self._next >= end:
            return
        self._reader.assign({partition: self._next})
        silent = 0
        while self._next < end:
            records = self._reader.read(_READ_SECONDS)
            silent = 0 if records else silent + 1
            if silent > _QUIET_READS:
                raise Unreachable(f"{partition} delivers nothing behind {self._next}")
            for record in records:
                self._next = record.offset + 1
                yield self._codec.letter(record)

    def _listed(self, letter: DeadLetter, parked: Sequence[ParkedKey], *, values: bool) -> Listed:
        kept = any(belongs(letter, one, self._decoder) for one in parked)
        table = letter.record.topic.removeprefix(f"{self._prefix}.")
        if not values:
            return Listed(letter, table, kept, None, None)
        event = self._decoder.data([letter.record])[0]
        if event is None or isinstance(event, Rejected):
            return Listed(letter, table, kept, {}, None)
        try:
            key = {} if event.key is None else self._decoder.key_values(event.table, event.key)
            row = None if event.after is None else self._decoder.values(event.table, event.after)
        except CdcError:
            return Listed(letter, table, kept, {}, None)
        return Listed(letter, table, kept, key, row)


def _plain(values: Mapping[str, object] | None) -> dict[str, object] | None:
    if values is None:
        return None
    return {
        name: value if value is None or isinstance(value, str | int | float | bool) else str(value)
        for name, value in values.items()
    }
