"""A verification run by two connector files: opens both sides and the topics between them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from cdc.avro.decoder import EventDecoder
from cdc.config import ConnectorConfig
from cdc.errors import ConfigError
from cdc.kafka.reader import MEBIBYTE, KafkaTopicReader
from cdc.pipeline.selection import Selection
from cdc.protocols import ReplicaSide, SourceSide
from cdc.runtime.clients import kafka_cluster, schema_registry
from cdc.runtime.plugins import plugins
from cdc.verify.job import verify
from cdc.verify.report import Report
from cdc.verify.settings import OnProgress, VerifySettings


def run_verification(
    source: ConnectorConfig,
    sink: ConnectorConfig,
    on_progress: OnProgress,
    *,
    tables: Sequence[str] = (),
    repair: bool = False,
    mask: bool = False,
    timeout: float = 60.0,
) -> Report:
    """Verify the replica of ``sink`` against ``source``, and repair it if asked to. Both connectors must be running.

    ConfigError where the two files do not belong together, Unreachable when a server is away at the start.
    """
    _roles_in_order(source, sink)
    prefix = source["topic.prefix"]
    if sink["topic.prefix"] != prefix:
        raise ConfigError(
            f"{sink.name} reads the topics of {sink['topic.prefix']}, {source.name} writes those of {prefix}",
            "give the files of one source and of its sink",
        )
    selection = Selection(prefix, sink["topics"], sink["topics.regex"])
    cluster = kafka_cluster(sink)
    settings = VerifySettings(
        source=prefix,
        sink=sink.name,
        tables=tables,
        repair=repair,
        mask=mask,
        timeout=timeout,
        reads=lambda topic: selection.collection(topic) is not None,
    )
    with closing(_source_side(source)) as one, closing(_replica_side(sink)) as other:
        return verify(
            one,
            other,
            lambda: KafkaTopicReader(
                cluster, budget_bytes=16 * MEBIBYTE, overrides=sink["consumer.override.*"]
            ),
            EventDecoder(prefix=prefix, registry=schema_registry(sink)),
            settings,
            on_progress,
        )


def _roles_in_order(source: ConnectorConfig, sink: ConnectorConfig) -> None:
    for config, role, place in ((source, "source", "first"), (sink, "sink", "second")):
        if config.role != role:
            raise ConfigError(
                f"{config.name} is a {config.role}, not a {role}",
                f"give the file of the {role} {place}",
            )


def _source_side(config: ConnectorConfig) -> SourceSide:
    open_side = plugins()[config.plugin].open_source_side
    if open_side is None:
        raise ConfigError(
            f"{config.name}: a {config.plugin} source cannot be verified",
            "see the connector's file",
        )
    return open_side(config)


def _replica_side(config: ConnectorConfig) -> ReplicaSide:
    open_side = plugins()[config.plugin].open_replica_side
    if open_side is None:
        raise ConfigError(
            f"{config.name}: a {config.plugin} sink cannot be verified", "see the connector's file"
        )
    return open_side(config)
