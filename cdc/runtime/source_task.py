"""A source connector's one task: opens what capture needs, captures, and starts anew when a server was away."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from cdc.avro.encoder import EventEncoder
from cdc.config import ConnectorConfig
from cdc.connector import Connector
from cdc.errors import ConfigError
from cdc.kafka.checkpoints import KafkaCheckpointTopic
from cdc.kafka.partitioner import Partitions
from cdc.kafka.topics import Topics
from cdc.kafka.writer import KafkaTopicWriter
from cdc.pipeline.capture import Capture
from cdc.pipeline.reading import ReaderProcesses
from cdc.pipeline.resume import Owner, resume
from cdc.runtime.clients import kafka_cluster, schema_registry
from cdc.runtime.patience import until_stopped
from cdc.runtime.patient_registry import PatientRegistry
from cdc.runtime.pinned_topics import MOST_MESSAGE_BYTES, PinnedTopics


def capture_once(
    config: ConnectorConfig,
    plugin: Connector,
    owner: Owner,
    stop: Callable[[], bool],
    on_start: Callable[[Capture], None],
) -> None:
    """Capture from the stored checkpoint until ``stop``, or until a server goes away (Unreachable).

    What this attempt held is released on return, whatever ends it.
    """
    if plugin.open_source is None or plugin.open_reader is None:
        raise ConfigError(f"{plugin.name} cannot be a source")
    with ExitStack() as held:
        registry = schema_registry(config)
        registry.reach()
        cluster = kafka_cluster(config)
        source = plugin.open_source(config)
        held.callback(source.close)
        # No stream is open while it claims, and saves run in a thread: capture itself keeps the stream alive meanwhile.
        checkpoints = KafkaCheckpointTopic(cluster, config["offset.storage.topic"])
        held.callback(checkpoints.close)
        checkpoint = resume(
            source,
            checkpoints,
            connector=config.name,
            slot=config["slot.name"],
            snapshot_mode=config["snapshot.mode"],
            owner=owner,
        )
        prefix = config["topic.prefix"]
        while_waiting = until_stopped(source.keep_alive, stop)
        topics = PinnedTopics(
            Topics(cluster, while_waiting),
            prefix,
            checkpoint.partitions,
            config["topic.creation.default.partitions"],
            config["topic.creation.default.replication.factor"],
        )
        writer = KafkaTopicWriter(
            cluster,
            while_waiting,
            budget_bytes=config["memory.mb"] << 20,
            limits=topics.limits,
            overrides={"message.max.bytes": MOST_MESSAGE_BYTES, **config["producer.override.*"]},
        )
        held.callback(writer.close)
        encoder = EventEncoder(
            prefix=prefix,
            database=checkpoint.identity.database,
            generation=checkpoint.generation,
            registry=PatientRegistry(registry, while_waiting),
            partition=Partitions(topics),
            partitions=topics.count,
        )
        capture = Capture(
            connector=config.name,
            prefix=prefix,
            source=source,
            encoder=encoder,
            writer=writer,
            checkpoints=checkpoints,
            checkpoint=checkpoint,
            readers=ReaderProcesses(plugin.open_reader, config, config["snapshot.max.threads"]),
            partitions=topics.count,
            pinned=lambda: topics,
            most_rows=config["snapshot.fetch.size"],
        )
        capture.run(stop, lambda: on_start(capture))
