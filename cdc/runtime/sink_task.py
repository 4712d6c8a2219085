"""A sink connector's task: opens what apply needs, and applies, in the mode that its configuration asks for."""

from __future__ import annotations

import sys
from collections.abc import Callable

from cdc.avro.decoder import EventDecoder
from cdc.config import ConnectorConfig
from cdc.connector import Connector
from cdc.errors import ConfigError
from cdc.kafka.group_reader import KafkaGroupReader
from cdc.kafka.reader import KafkaTopicReader
from cdc.pipeline.apply import Applier, ApplySettings, ApplyStatus
from cdc.pipeline.partition_apply import PartitionApplier
from cdc.pipeline.selection import Selection
from cdc.protocols import EventDecoder as Decoder
from cdc.protocols import GroupMember
from cdc.runtime.clients import kafka_cluster, schema_registry, waiting_for_brokers
from cdc.runtime.dead_letters import KafkaDeadLetterTopic, topic_of

OnProgress = Callable[[ApplyStatus], None]

_FETCHED, _HELD = 0.25, 0.5
"""Of ``memory.mb``: what the client fetches ahead, and the events that wait for their transaction. What is left is for
what is between the two, and on its way to the replica."""
_SWITCH_SECONDS = 0.0005
"""Reading and writing are two threads; who waited for the replica goes on after this at the latest, not after 5 ms."""


def apply_events(
    config: ConnectorConfig,
    plugin: Connector,
    stop: Callable[[], bool],
    on_progress: Callable[[ApplyStatus, Callable[[], str]], None],
) -> None:
    """Apply from the replica's checkpoint until ``stop``; servers that are away are awaited.

    ``on_progress`` gets the status, and what tells why no broker can be reached.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    topics = _Topics(config)
    selection = Selection(config["topic.prefix"], config["topics"], config["topics.regex"])
    decoder = EventDecoder(prefix=config["topic.prefix"], registry=topics.registry)
    settings = ApplySettings(
        memory_bytes=int(_HELD * (config["memory.mb"] << 20)),
        commit_bytes=config["max.commit.bytes"],
    )
    apply = _by_partition if config["apply.mode"] == "partition" else _by_transaction
    run = apply(
        config,
        plugin,
        topics,
        selection,
        decoder,
        settings,
        lambda status: on_progress(status, topics.away),
    )
    run(stop)


Run = Callable[[Callable[[], bool]], None]


def _by_transaction(
    config: ConnectorConfig,
    plugin: Connector,
    topics: _Topics,
    selection: Selection,
    decoder: Decoder,
    settings: ApplySettings,
    on_progress: OnProgress,
) -> Run:
    open_store = plugin.open_store
    if open_store is None:
        raise ConfigError(
            f"{plugin.name} has no transactions that hold a source's own",
            "set apply.mode=partition",
        )
    return Applier(
        config.name,
        selection,
        topics.open,
        lambda: open_store(config),
        decoder,
        settings,
        on_progress,
        dead_letters=_dead_letters(config, topics),
    ).run


def _by_partition(
    config: ConnectorConfig,
    plugin: Connector,
    topics: _Topics,
    selection: Selection,
    decoder: Decoder,
    settings: ApplySettings,
    on_progress: OnProgress,
) -> Run:
    open_store = plugin.open_partition_store
    if open_store is None:
        raise ConfigError(f"{plugin.name} cannot be a sink with apply.mode=partition")
    if config["errors.tolerance"] != "none":
        raise ConfigError(
            "errors.tolerance=all is not supported with apply.mode=partition",
            "set errors.tolerance=none (a record that cannot be applied stops the task), or apply.mode=transaction",
        )
    return PartitionApplier(
        config.name,
        selection,
        topics,
        lambda: open_store(config, decoder),
        decoder,
        settings,
        on_progress,
    ).run


class _Topics:
    """`cdc.pipeline.partition_apply.Topics`: the readers of one task."""

    def __init__(self, config: ConnectorConfig) -> None:
        self._cluster = kafka_cluster(config)
        self._group = f"connect-{config.name}"
        self._budget = int(_FETCHED * (config["memory.mb"] << 20))
        self._overrides = config["consumer.override.*"]
        self._reader: KafkaTopicReader | KafkaGroupReader | None = None
        self.registry = schema_registry(config)

    def away(self) -> str:
        """Why no broker can be reached now; empty when one can. For any thread."""
        return "" if self._reader is None else waiting_for_brokers(self._reader.away())

    def open(self) -> KafkaTopicReader:
        """A reader of partitions that its caller chooses."""
        self.registry.reach()
        reader = KafkaTopicReader(
            self._cluster, budget_bytes=self._budget, overrides=self._overrides
        )
        if not isinstance(self._reader, KafkaGroupReader):  # beside one it is for a look only
            self._reader = reader
        return reader

    def join(self, member: GroupMember) -> KafkaGroupReader:
        """A reader in the group that Kafka Connect would give this sink, so that graphs of its lag go on."""
        self.registry.reach()
        self._reader = KafkaGroupReader(
            self._cluster,
            self._group,
            member,
            budget_bytes=self._budget,
            overrides=self._overrides,
        )
        return self._reader


def _dead_letters(config: ConnectorConfig, topics: _Topics) -> KafkaDeadLetterTopic | None:
    if config["errors.tolerance"] == "none":
        return None
    return KafkaDeadLetterTopic(
        topic_of(config),
        kafka_cluster(config),
        topics.registry,
        replication=config["errors.deadletterqueue.topic.replication.factor"],
        context=config["errors.deadletterqueue.context.headers.enable"],
    )
