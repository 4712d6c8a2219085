"""A verification run by two connector files: opens both sides and the topics between them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from cdc.avro.decoder import EventDecoder
from cdc.config import ConnectorConfig
from cdc.kafka.reader import MEBIBYTE, KafkaTopicReader
from cdc.pipeline.selection import Selection
from cdc.runtime.clients import kafka_cluster, schema_registry
from cdc.runtime.sides import open_sides
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
    source_side, replica_side = open_sides(source, sink)
    prefix = source["topic.prefix"]
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
    with closing(source_side) as one, closing(replica_side) as other:
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
