"""The producer of a source whose topics hold each record once (``exactly.once.support=required``).

Records and the checkpoint that says that they were sent stand in one Kafka transaction: whoever reads committed records
never sees one twice, because a capture that dies leaves a transaction that is aborted before the next one reads where
to go on. That is a service to foreign readers; our own sinks know repeats by their positions, with or without it.

librdkafka cannot tell a late answer to one commit from the answer to the next (issue 5423): after any outcome that is
not certain the producer is thrown away, and `fence` of the next one brings what was left open to its end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaException

from cdc.checkpoint import SourceCheckpoint
from cdc.errors import CdcError, Failed, Fenced, Unreachable
from cdc.event import Record
from cdc.kafka.checkpoints import KafkaCheckpointTopic, data_transactional_id
from cdc.kafka.client import Cluster
from cdc.kafka.errors import reason, translate
from cdc.kafka.writer import KafkaTopicWriter

_TRANSACTION_MS = 120_000
"""How long readers of committed records wait at most for a capture that died and does not come back."""

_FENCING = 30.0  # seconds
_COMMITTING = 60.0
_ABORTING = 5.0
_SLICE = 0.5


class TransactionalTopicWriter(KafkaTopicWriter):
    """`KafkaTopicWriter` whose records become readable at `commit`, with the checkpoint. To be fenced before it writes."""

    def __init__(
        self,
        connector: str,
        cluster: Cluster,
        keep_alive: Callable[[], None],
        *,
        budget_bytes: int,
        limits: Mapping[str, int],
        overrides: Mapping[str, Any],
    ) -> None:
        timeout = int(overrides.get("transaction.timeout.ms", _TRANSACTION_MS))
        others = {n: value for n, value in overrides.items() if n != "transaction.timeout.ms"}
        super().__init__(
            cluster,
            keep_alive,
            budget_bytes=budget_bytes,
            limits=limits,
            overrides=others,
            fixed={
                "transactional.id": data_transactional_id(connector),
                "transaction.timeout.ms": timeout,
                # A record that expires ends its transaction, and the transaction ends by then in any case.
                "message.timeout.ms": timeout,
            },
        )
        self._connector = connector
        self._seconds = timeout / 1000
        self._open = False
        self._opened_at = 0.0

    def fence(self) -> None:
        """Be the only writer: what an earlier one left open is brought to its end. Comes before the checkpoint is read."""
        self._patiently(self._producer.init_transactions, "claiming the topics", _FENCING)

    def write(self, records: Sequence[Record]) -> None:
        """Send in order, within the transaction under way. See `cdc.protocols.TopicWriter`."""
        if records:
            self._begin()
        super().write(records)

    def commit(self, record: Record) -> None:
        """Everything written since the last commit, and this record, are readable on return; all, or none ever.

        Unreachable when that is not known: the writer is to be closed, and the next one's `fence` decides it.
        """
        self.write([record])
        self._patiently(self._producer.commit_transaction, "committing", _COMMITTING)
        self._open = False

    def close(self) -> None:
        """End what is open at once, so that readers need not wait for its end. Safe to repeat."""
        if self._open and not self._closed:
            with suppress(KafkaException):  # the next writer's fence ends it otherwise
                self._producer.purge()
                self._producer.abort_transaction(_ABORTING)
        self._open = False
        super().close()

    def _begin(self) -> None:
        if self._open:
            return
        try:
            self._producer.begin_transaction()
        except KafkaException as error:
            raise translate(error, f"beginning a transaction of {self._connector}") from error
        self._open = True
        self._opened_at = time.monotonic()

    def _check(self) -> None:
        try:
            super()._check()
        except Fenced as error:
            raise self._outlived(error) from error

    def _outlived(self, error: Fenced) -> CdcError:
        """The brokers end a transaction that lasts too long by fencing its writer: that is nobody else's doing."""
        if not self._open or time.monotonic() - self._opened_at < self._seconds:
            return error
        return Failed(
            f"a transaction of the source took longer to send than transaction.timeout.ms ({self._seconds:.0f} s)",
            "raise producer.override.transaction.timeout.ms, and the brokers' transaction.max.timeout.ms with it; or set"
            " exactly.once.support=requested",
        )

    def _patiently(self, call: Callable[[float], None], doing: str, patience: float) -> None:
        until = time.monotonic() + patience
        while True:
            self._check()
            try:
                call(_SLICE)
            except KafkaException as error:
                self._check()
                if not reason(error).retriable() or time.monotonic() > until:
                    failure = translate(error, f"{doing} (connector {self._connector})")
                    if isinstance(failure, Fenced):
                        failure = self._outlived(failure)
                    raise failure from error
                self._keep_alive()
            else:
                return


class TransactionalCheckpoints:
    """`cdc.protocols.CheckpointTopic` whose saves stand in one transaction with the records that ``writer`` was given.

    ``topic`` has been claimed, and ``writer`` was fenced before it was read.
    """

    atomic = True

    def __init__(self, topic: KafkaCheckpointTopic, writer: TransactionalTopicWriter) -> None:
        self._topic = topic
        self._writer = writer

    def claim(self, connector: str, held: str = "") -> SourceCheckpoint | None:
        return self._topic.claim(connector, held)

    def save(self, connector: str, checkpoint: SourceCheckpoint | None) -> None:
        """Durable on return, with every record that was written before; Unreachable when that is unknown."""
        if checkpoint is None:
            raise Unreachable(
                f"the checkpoint of {connector} is in use", "stop the connector first"
            )
        value = json.dumps({**checkpoint.to_json(), "atomic": True}).encode()
        topic, partition = self._topic.partition
        self._writer.commit(Record(topic, partition, connector.encode(), value))

    def close(self) -> None:
        self._topic.close()
