"""A sink connector's one task: opens what apply needs, and applies."""

from __future__ import annotations

from collections.abc import Callable

from cdc.avro.decoder import EventDecoder
from cdc.config import ConnectorConfig
from cdc.connector import Connector
from cdc.errors import ConfigError
from cdc.kafka.reader import KafkaTopicReader
from cdc.pipeline.apply import Applier, ApplySettings, ApplyStatus
from cdc.pipeline.selection import Selection
from cdc.runtime.clients import kafka_cluster, schema_registry


def apply_events(
    config: ConnectorConfig,
    plugin: Connector,
    stop: Callable[[], bool],
    on_progress: Callable[[ApplyStatus, Callable[[], str]], None],
) -> None:
    """Apply from the replica's checkpoint until ``stop``; servers that are away are awaited.

    ``on_progress`` gets the status, and what tells why no broker can be reached.
    """
    if plugin.open_store is None:
        raise ConfigError(f"{plugin.name} cannot be a sink")
    open_store = plugin.open_store
    cluster = kafka_cluster(config)
    registry = schema_registry(config)
    budget = config["memory.mb"] << 20
    readers: list[KafkaTopicReader] = []

    def open_reader() -> KafkaTopicReader:
        registry.reach()
        reader = KafkaTopicReader(
            cluster, budget_bytes=budget // 2, overrides=config["consumer.override.*"]
        )
        readers[:] = [reader]
        return reader

    def away() -> str:
        return readers[0].away() if readers else ""

    applier = Applier(
        config.name,
        Selection(config["topic.prefix"], config["topics"], config["topics.regex"]),
        open_reader,
        lambda: open_store(config),
        EventDecoder(prefix=config["topic.prefix"], registry=registry),
        ApplySettings(
            memory_bytes=budget,
            commit_bytes=config["max.commit.bytes"],
            errors_tolerance=config["errors.tolerance"],
        ),
        lambda status: on_progress(status, away),
    )
    applier.run(stop)
