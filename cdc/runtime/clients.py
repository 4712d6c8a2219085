"""The clients that a connector's configuration asks for: Kafka and the schema registry."""

from __future__ import annotations

from cdc.config import ConnectorConfig
from cdc.kafka.client import Cluster
from cdc.kafka.registry import Registry

_REGISTRY = "schema.registry."


def kafka_cluster(config: ConnectorConfig) -> Cluster:
    """The Kafka cluster of this connector."""
    return Cluster(config["bootstrap.servers"], config["kafka.*"])


def waiting_for_brokers(outage: str) -> str:
    """What a task says of itself while no broker can be reached; empty without an outage."""
    return outage and f"waiting for brokers: {outage}"


def schema_registry(config: ConnectorConfig) -> Registry:
    """The schema registry of this connector."""
    options = {
        name.removeprefix(_REGISTRY): str(value)
        for name, value in config.values.items()
        if name.startswith(_REGISTRY) and name != "schema.registry.url" and value is not None
    }
    return Registry(config["schema.registry.url"], options)
