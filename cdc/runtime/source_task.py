"""A source connector's one task: opens what capture needs, captures, and starts anew when a server was away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace

from cdc.avro.decoder import EventDecoder
from cdc.avro.encoder import EventEncoder
from cdc.avro.names import NameAdjustment
from cdc.config import MOST_MESSAGE_BYTES, ConnectorConfig
from cdc.connector import Connector
from cdc.errors import ConfigError, Unreachable
from cdc.kafka.checkpoints import KafkaCheckpointTopic
from cdc.kafka.client import Cluster
from cdc.kafka.partitioner import Partitions
from cdc.kafka.topics import Topics
from cdc.kafka.transactional_writer import TransactionalCheckpoints, TransactionalTopicWriter
from cdc.kafka.writer import KafkaTopicWriter
from cdc.pipeline.capture import Capture
from cdc.pipeline.heartbeat import Heartbeat
from cdc.pipeline.reading import ReaderProcesses
from cdc.pipeline.resume import Owner, resume
from cdc.runtime.clients import kafka_cluster, schema_registry, waiting_for_brokers
from cdc.runtime.patience import until_stopped
from cdc.runtime.patient_registry import PatientRegistry
from cdc.runtime.pinned_topics import PinnedTopics
from cdc.runtime.topic_creation import TopicCreation
from cdc.runtime.written import written_since

log = logging.getLogger(__name__)

_RESTING_SECONDS = 0.2


def capture_once(
    config: ConnectorConfig,
    plugin: Connector,
    owner: Owner,
    stop: Callable[[], bool],
    on_start: Callable[[Capture, Callable[[], str]], None],
    on_wait: Callable[[str], None],
    on_rest: Callable[[], None] = lambda: None,
) -> None:
    """Capture from the stored checkpoint until ``stop``, or until a server goes away (Unreachable).

    ``on_start`` gets the capture, and what tells whom it waits for; ``on_wait`` before that whom the slot
    waits for. ``on_rest`` is called when all is done that ``snapshot.mode=initial_only`` asks for; then ``stop`` is
    waited for. What this attempt held is released on return, whatever ends it.
    """
    if plugin.open_source is None or plugin.open_reader is None:
        raise ConfigError(f"{plugin.name} cannot be a source")
    with ExitStack() as held:
        registry = schema_registry(config)
        registry.reach()
        cluster = kafka_cluster(config)
        source = plugin.open_source(config)
        held.callback(source.close)
        while_waiting = until_stopped(source.keep_alive, stop)
        limits: dict[str, int] = {}
        writer = _writer(config, cluster, while_waiting, limits)
        held.callback(writer.close)
        # No stream is open while it claims, and saves run in a thread: capture itself keeps the stream alive meanwhile.
        topic = KafkaCheckpointTopic(
            cluster,
            config["offset.storage.topic"],
            fence_writer=writer.fence if isinstance(writer, TransactionalTopicWriter) else None,
        )
        held.callback(topic.close)
        prefix = config["topic.prefix"]

        def waits(whom: str) -> None:
            if stop():
                raise Unreachable("stopped before the slot was made", "the next start makes it")
            if whom:
                on_wait(f"the slot is made once an older transaction has ended: {whom}")

        checkpoint = resume(
            source,
            topic,
            connector=config.name,
            slot=config["slot.name"],
            snapshot_mode=config["snapshot.mode"],
            owner=owner,
            skipped=config["skipped.operations"],
            written_since=lambda stored: written_since(
                cluster, EventDecoder(prefix=prefix, registry=registry), prefix, stored
            ),
            waits=waits,
        )
        if checkpoint.state == "copied":
            _rest(stop, on_rest)
            return
        topics = PinnedTopics(
            Topics(cluster, while_waiting),
            prefix,
            checkpoint.partitions,
            checkpoint.topic_ids,
            TopicCreation.of(config),
            limits,
        )
        patient = PatientRegistry(registry, while_waiting)

        def away() -> str:
            return patient.trouble or waiting_for_brokers(writer.away())

        encoder = EventEncoder(
            prefix=prefix,
            database=checkpoint.identity.database,
            generation=checkpoint.generation,
            registry=patient,
            partition=Partitions(topics),
            partitions=topics.count,
            names=NameAdjustment(
                config["schema.name.adjustment.mode"], config["field.name.adjustment.mode"]
            ),
            tombstones=config["tombstones.on.delete"],
        )
        heartbeat = Heartbeat(
            config["heartbeat.interval.ms"] / 1000,
            source.heartbeat,
            lambda: encoder.heartbeat(_heartbeat_topic(config)),
        )
        checkpoints = (
            TransactionalCheckpoints(topic, writer)
            if isinstance(writer, TransactionalTopicWriter)
            else topic
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
            pinned=topics.pins,
            most_rows=config["snapshot.fetch.size"],
            stale_if_incompatible=config["schema.incompatible"] == "stale",
            commit_seconds=config["transaction.boundary.interval.ms"] / 1000,
            heartbeat=heartbeat.beat,
        )
        only_copies = config["snapshot.mode"] == "initial_only"
        capture.run(
            lambda: stop() or (only_copies and capture.copied),
            lambda: on_start(capture, away),
        )
        if only_copies and capture.copied:
            # First the state, then the slot: without its slot a checkpoint of another state could not go on.
            checkpoints.save(config.name, replace(capture.stored, state="copied"))
            source.drop_slot()
            _rest(stop, on_rest)
        elif config["slot.drop.on.stop"]:
            log.warning("slot.drop.on.stop: the slot is dropped; the next start copies all anew")
            source.drop_slot()


def _rest(stop: Callable[[], bool], on_rest: Callable[[], None]) -> None:
    """Every table is copied, and that was all that was asked for."""
    log.info("every table is copied, and the slot is dropped: nothing is left to do")
    on_rest()
    while not stop():
        time.sleep(_RESTING_SECONDS)


def _writer(
    config: ConnectorConfig,
    cluster: Cluster,
    while_waiting: Callable[[], None],
    limits: Mapping[str, int],
) -> KafkaTopicWriter:
    """The one producer of the source's topics. ``limits`` may still grow."""
    budget = config["memory.mb"] << 20
    overrides = {"message.max.bytes": MOST_MESSAGE_BYTES, **config["producer.override.*"]}
    if config["exactly.once.support"] == "required":
        return TransactionalTopicWriter(
            config.name,
            cluster,
            while_waiting,
            budget_bytes=budget,
            limits=limits,
            overrides=overrides,
        )
    return KafkaTopicWriter(
        cluster, while_waiting, budget_bytes=budget, limits=limits, overrides=overrides
    )


def _heartbeat_topic(config: ConnectorConfig) -> str:
    whole: str | None = config["topic.heartbeat.name"]
    return whole or f"{config['topic.heartbeat.prefix']}.{config['topic.prefix']}"
