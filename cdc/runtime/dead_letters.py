"""The dead-letter topic of a sink: made when the first letter is written, and every letter acknowledged."""

from __future__ import annotations

from collections.abc import Sequence

from cdc.avro.dead_letter import DeadLetters
from cdc.config import MOST_MESSAGE_BYTES, ConnectorConfig
from cdc.errors import CdcError, ConfigError, Unreachable
from cdc.event import DeadLetter, Record
from cdc.kafka.client import Cluster
from cdc.kafka.topics import NewTopicSpec, Topics
from cdc.kafka.writer import MEBIBYTE, KafkaTopicWriter
from cdc.pipeline.selection import Selection
from cdc.protocols import SchemaRegistry

_PATIENCE = 30.0  # seconds for acknowledgements
_ROOM = MEBIBYTE  # what a letter is longer than its record

_CONTEXT = "__connect.errors."


def topic_of(config: ConnectorConfig) -> str:
    """The dead-letter topic of a sink's configuration. ConfigError where the sink itself would read it."""
    prefix = config["topic.prefix"]
    topic: str = config["errors.deadletterqueue.topic.name"] or f"{prefix}.deadletter"
    selection = Selection(prefix, config["topics"], config["topics.regex"])
    if selection.collection(topic) is not None or topic in (
        selection.transaction_topic,
        selection.watermark_topic,
    ):
        raise ConfigError(
            f"errors.deadletterqueue.topic.name={topic} is a topic that the sink reads",
            f"leave it out ({prefix}.deadletter), or name one outside {prefix}.<schema>.<table>",
        )
    return topic


class KafkaDeadLetterTopic:
    """`cdc.protocols.DeadLetterTopic`. ``context``: Kafka Connect's headers as well."""

    def __init__(
        self,
        topic: str,
        cluster: Cluster,
        registry: SchemaRegistry,
        *,
        replication: int = 0,
        context: bool = False,
    ) -> None:
        self._cluster = cluster
        self._letters = DeadLetters(topic=topic, registry=registry)
        self._replication = replication or -1
        self._context = context
        self._writer: KafkaTopicWriter | None = None

    def write(self, letters: Sequence[DeadLetter]) -> None:
        """Acknowledged on return; after an error the next call begins with a new producer."""
        try:
            writer = self._writer = self._writer or self._opened()
            writer.write([self._record(letter) for letter in letters])
            if not writer.flush(_PATIENCE):
                raise Unreachable(
                    f"{self._letters.topic} did not acknowledge within {_PATIENCE:.0f} s",
                    "written again until it does: nothing takes effect meanwhile",
                )
        except CdcError:
            self.close()
            raise

    def close(self) -> None:
        """Safe to repeat."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _opened(self) -> KafkaTopicWriter:
        most = MOST_MESSAGE_BYTES + _ROOM
        settings = {"max.message.bytes": str(most)}
        Topics(self._cluster).create(
            [NewTopicSpec(self._letters.topic, "endless", 1, self._replication, settings)]
        )
        return KafkaTopicWriter(
            self._cluster, lambda: None, overrides={"message.max.bytes": most, "linger.ms": 0}
        )

    def _record(self, letter: DeadLetter) -> Record:
        record = self._letters.record(letter)
        return record._replace(headers=_headers(letter)) if self._context else record


def _headers(letter: DeadLetter) -> tuple[tuple[str, bytes], ...]:
    """https://docs.confluent.io/platform/current/connect/index.html#dead-letter-queue, by Kafka Connect's names."""
    record = letter.record
    values = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "connector.name": letter.sink,
        "task.id": 0,
        "exception.class.name": letter.kind,
        "exception.message": letter.message,
    }
    return tuple((f"{_CONTEXT}{name}", str(value).encode()) for name, value in values.items())
