"""Properties that every connector has, whatever its system: how to reach Kafka and the registry, and policy."""

from __future__ import annotations

import re
from typing import Any

from cdc.config import Setting


def _whole(raw: Any) -> int:
    if isinstance(raw, bool) or not re.fullmatch(r"\d+", str(raw).strip()):
        raise ValueError("a whole number is expected")
    return int(str(raw))


def _tasks(raw: Any) -> int:
    if not 1 <= _whole(raw) <= 1000:
        raise ValueError("a number from 1 to 1000 is expected")
    return int(str(raw))


def _boolean(raw: Any) -> bool:
    text = str(raw).strip().lower()
    if text not in ("true", "false"):
        raise ValueError("true or false is expected")
    return text == "true"


def _avro(raw: Any) -> str:
    if "avro" not in str(raw).lower():
        raise ValueError("only the Avro converter is supported")
    return str(raw)


def _list(raw: Any) -> tuple[str, ...]:
    parts = raw if isinstance(raw, list) else str(raw).split(",")
    return tuple(str(part).strip() for part in parts if str(part).strip())


def _pattern(raw: Any) -> re.Pattern[str]:
    try:
        return re.compile(str(raw))
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None


def _only_none(raw: Any) -> str:
    if str(raw) != "none":
        raise ValueError("only none is supported: a bad record stops the task, it is never skipped")
    return "none"


def _support(raw: Any) -> str:
    if str(raw) not in ("requested", "required"):
        raise ValueError("requested (repeats are known by their positions) or required is expected")
    return str(raw)


def _incompatible(raw: Any) -> str:
    if str(raw) not in ("stop", "stale"):
        raise ValueError("stop or stale is expected")
    return str(raw)


def _apply_mode(raw: Any) -> str:
    if str(raw) not in ("transaction", "partition"):
        raise ValueError("transaction or partition is expected")
    return str(raw)


def _tolerance(raw: Any) -> str:
    if str(raw) not in ("none", "all"):
        raise ValueError("none or all is expected")
    return str(raw)


def _flag(raw: Any) -> bool:
    if str(raw).strip().lower() not in ("true", "false"):
        raise ValueError("true or false is expected")
    return str(raw).strip().lower() == "true"


_KAFKA = (
    Setting("name", "The connector's name: its checkpoints are kept under it.", required=True),
    Setting("connector.class", "Which connector this is.", required=True),
    Setting("bootstrap.servers", "Addresses of Kafka brokers: host:port,host:port.", required=True),
    Setting("schema.registry.url", "Address of the schema registry.", required=True),
    Setting("schema.registry.basic.auth.user.info", "user:password for the registry.", secret=True),
    Setting(
        "schema.registry.ssl.ca.location",
        "File with the authorities that the registry's certificate is checked by.",
    ),
    Setting(
        "kafka.*",
        "Client settings by librdkafka's names: kafka.security.protocol, kafka.sasl.username ...",
    ),
    Setting("key.converter", "Accepted when it is the Avro converter.", _avro),
    Setting("value.converter", "Accepted when it is the Avro converter.", _avro),
    Setting(
        "tasks.max",
        "Tasks that share a sink's partitions with apply.mode=partition; everything else has one, which keeps one order.",
        _tasks,
        1,
    ),
    Setting("offset.storage.topic", "Compacted topic of source checkpoints.", str, "cdc.offsets"),
    Setting(
        "metrics.port",
        "Where cdc run serves /metrics and /health for all its tasks; 0: nowhere.",
        _whole,
        0,
    ),
    Setting("memory.mb", "Byte budget of everything that waits in queues, in MiB.", _whole, 64),
)

ALIASES = {
    "key.converter.schema.registry.url": "schema.registry.url",
    "value.converter.schema.registry.url": "schema.registry.url",
    "heartbeat.topics.prefix": "topic.heartbeat.prefix",
    "value.converter.basic.auth.user.info": "schema.registry.basic.auth.user.info",
    "key.converter.basic.auth.user.info": "schema.registry.basic.auth.user.info",
}
"""Kafka Connect's converter properties that mean one of ours, and older names of properties."""

SOURCE_SETTINGS = (
    *_KAFKA,
    Setting("producer.override.*", "Producer settings by librdkafka's names."),
    Setting(
        "topic.creation.default.partitions", "Partitions of a data topic that we make.", _whole, 4
    ),
    Setting(
        "topic.creation.default.replication.factor",
        "Replicas of a topic that we make; 0: 3, or as many as there are brokers.",
        _whole,
        0,
    ),
    Setting(
        "exactly.once.support",
        "required: records and checkpoint in one Kafka transaction, so that readers of committed records see each once.",
        _support,
        "requested",
    ),
    Setting(
        "transaction.boundary.interval.ms",
        "exactly.once.support=required: how long a Kafka transaction gathers whole source transactions.",
        _whole,
        100,
    ),
    Setting(
        "errors.tolerance",
        "Always none: a change that cannot be captured stops the task.",
        _only_none,
        "none",
    ),
    Setting(
        "schema.incompatible",
        "What becomes of a table whose new row schema the registry refuses (compatibility of its subject). stop: the"
        " task stops at that commit. stale: the others go on; cdc table backfill, then verify --repair, bring it back.",
        _incompatible,
        "stop",
    ),
    Setting(
        "topic.creation.*",
        "How data topics are made, as Kafka Connect has it: topic.creation.default.<topic setting>,"
        " topic.creation.groups, topic.creation.<group>.include, .exclude, .partitions, .<topic setting>.",
    ),
    Setting("snapshot.max.threads", "Processes that read tables for backfill.", _whole, 1),
    Setting(
        "tombstones.on.delete",
        "Whether a delete is followed by a tombstone, which lets a compacted topic forget the key.",
        _boolean,
        default=True,
    ),
    Setting(
        "heartbeat.interval.ms",
        "How often a heartbeat is written; 0: never. The slot moves on over an idle database without it.",
        _whole,
        0,
    ),
    Setting(
        "topic.heartbeat.prefix",
        "The heartbeats' topic is <this>.<topic.prefix>.",
        str,
        "__debezium-heartbeat",
    ),
    Setting("topic.heartbeat.name", "Or the whole name of the heartbeats' topic."),
)

SINK_SETTINGS = (
    *_KAFKA,
    Setting("topic.prefix", "The source whose topics are read.", required=True),
    Setting(
        "topics",
        "Topics to read, comma separated; default: all data topics of the source.",
        _list,
        (),
    ),
    Setting(
        "errors.tolerance",
        "What a record does that can never be applied. none: it stops the task and is named. all: it goes to the"
        " dead-letter topic and its key is parked; the replica no longer equals the source for that key.",
        _tolerance,
        "none",
    ),
    Setting(
        "errors.deadletterqueue.topic.name",
        "The dead-letter topic, made where it is missing; default: <topic.prefix>.deadletter.",
    ),
    Setting(
        "errors.deadletterqueue.topic.replication.factor",
        "Its replicas where we make it; 0: 3, or as many as there are brokers.",
        _whole,
        0,
    ),
    Setting(
        "errors.deadletterqueue.context.headers.enable",
        "Whether letters carry Kafka Connect's headers too: what they say stands in every letter.",
        _flag,
        default=False,
    ),
    Setting("topics.regex", "Or a regular expression of them.", _pattern),
    Setting("consumer.override.*", "Consumer settings by librdkafka's names."),
    Setting(
        "apply.mode",
        "transaction: whole source transactions, in commit order. partition: each partition apart, in tasks.max tasks;"
        " only the changes of one key are in order.",
        _apply_mode,
        "transaction",
    ),
    Setting(
        "max.commit.bytes",
        "Bytes of events that one replica transaction groups at most.",
        _whole,
        16 << 20,
    ),
)

UNSUPPORTED = {
    "transforms": "single message transforms are not run here",
    "predicates": "single message transforms are not run here",
    "transaction.boundary": "every source transaction is kept whole",
    "config.action.reload": "restart the connector instead",
    "header.converter": "headers are not converted",
}
"""Kafka Connect's own properties that are not obeyed, and why."""
