"""Debezium's PostgreSQL properties that have one meaning here, or none: known, so that each says why.

A property stands here with the value that may be set (then nothing changes), or with the reason why it is refused.
https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-connector-properties
"""

from __future__ import annotations

from cdc.config import Setting
from cdc.setting_values import only

_FENCED = "the first copy runs in chunks beside the stream, without a lock"
_TYPES = "every type is captured, the rest as text"

_ONLY: tuple[tuple[str, str, str], ...] = (
    ("provide.transaction.metadata", "true", "replicas apply whole transactions by it"),
    ("topic.delimiter", ".", "sinks find tables by topic names"),
    ("include.unknown.datatypes", "true", _TYPES),
    ("lsn.flush.mode", "connector", "the slot is confirmed only behind acknowledged records"),
    ("flush.lsn.source", "true", "the slot is confirmed only behind acknowledged records"),
    ("schema.refresh.mode", "columns_diff", "the log tells the shape of each row"),
    ("replica.identity.autoset.values", "", "identities are the database owner's to set"),
    ("snapshot.isolation.mode", "serializable", _FENCED),
    ("snapshot.locking.mode", "none", _FENCED),
    ("read.only", "false", "a fence is a message in the log, from a primary"),
    ("event.processing.failure.handling.mode", "fail", "nothing is skipped in silence"),
    ("event.converting.failure.handling.mode", "fail", "nothing is skipped in silence"),
    ("sanitize.field.names", "true", "names have to be valid in Avro"),
    ("tcpKeepAlive", "true", "a peer that vanished has to be noticed"),
    ("database.tcpKeepAlive", "true", "a peer that vanished has to be noticed"),
    ("status.update.interval.ms", "10000", "it follows the server's wal_sender_timeout"),
    ("skip.messages.without.change", "false", "every change is delivered"),
    (
        "include.schema.changes",
        "false",
        "the log carries no statements; shapes travel with the rows",
    ),
    ("include.schema.comments", "false", "the log does not carry them"),
    ("table.ignore.builtin", "true", "system tables are in no log"),
    ("extended.headers.enabled", "false", "headers tell what rows need"),
    ("queue.provider.type", "memory", "queues are in memory, and bounded"),
    ("openlineage.integration.enabled", "false", "it is not offered"),
    ("lsn.flush.timeout.action", "fail", "nothing waits for a flush"),
    ("statistics.metrics.enabled", "false", "metrics have their own form"),
    (
        "database.sslfactory",
        "",
        "it is a Java class: libpq does TLS by the other database.ssl properties",
    ),
    ("offset.mismatch.strategy", "trust_offset", "a slot ahead of the checkpoint lost changes"),
)

_HARMLESS: tuple[tuple[str, str], ...] = (
    ("max.queue.size", "queues are bounded by bytes"),
    ("max.queue.size.in.bytes", "queues are bounded by bytes"),
    ("max.batch.size", "batches are bounded by bytes"),
    ("poll.interval.ms", "the log is read as it arrives"),
    ("retriable.restart.connector.wait.ms", "reconnection has its own patience"),
    ("errors.max.retries", "reconnection has its own patience"),
    ("query.fetch.size", "see snapshot.fetch.size"),
    ("database.query.timeout.ms", "reads have their own limits"),
    ("connect.timeout.ms", "links have their own limits"),
    ("xmin.fetch.interval.ms", "the snapshot of each fence tells more"),
    ("snapshot.delay.ms", "nothing waits"),
    ("streaming.delay.ms", "nothing waits"),
    ("connection.validation.timeout.ms", "links have their own limits"),
    ("poll.dispatch.interval.ms", "the log is read as it arrives"),
    ("lsn.flush.timeout.ms", "nothing waits for a flush"),
    ("snapshot.max.threads.multiplier", "see snapshot.max.threads"),
    ("legacy.snapshot.max.threads", "see snapshot.max.threads"),
    ("signal.emit.failure.max.retries", "signals are in the log once they are there"),
    ("signal.emit.failure.backoff.ms", "signals are in the log once they are there"),
    ("executor.shutdown.timeout.ms", "there is no executor"),
    ("topic.cache.size", "there is no such cache"),
)

_REFUSED: tuple[tuple[str, str], ...] = (
    ("datatype.propagate.source.type", "columns carry their source type always"),
    ("column.propagate.source.type", "columns carry their source type always"),
    ("database.initial.statements", "a session's settings are fixed"),
    ("snapshot.mode.custom.name", "it is a Java class"),
    ("snapshot.query.mode", _FENCED),
    ("snapshot.query.mode.custom.name", "it is a Java class"),
    ("snapshot.locking.mode.custom.name", "it is a Java class"),
    ("snapshot.custom.class", "it is a Java class"),
    ("snapshot.include.collection.list", "every selected table is copied"),
    ("snapshot.lock.timeout", "see snapshot.lock.timeout.ms"),
    ("snapshot.tables.order.by.row.count", _FENCED),
    ("snapshot.mode.configuration.based.snapshot.data", _FENCED),
    ("snapshot.mode.configuration.based.snapshot.schema", _FENCED),
    ("snapshot.mode.configuration.based.start.stream", _FENCED),
    ("snapshot.mode.configuration.based.snapshot.on.schema.error", _FENCED),
    ("snapshot.mode.configuration.based.snapshot.on.data.error", _FENCED),
    ("incremental.snapshot.chunk.size", "see snapshot.fetch.size"),
    ("incremental.snapshot.watermarking.strategy", _FENCED),
    ("incremental.snapshot.allow.schema.changes", _FENCED),
    ("signal.data.collection", "signals travel as messages in the log: cdc table backfill"),
    ("signal.enabled.channels", "signals travel as messages in the log: cdc table backfill"),
    ("signal.poll.interval.ms", "signals travel as messages in the log: cdc table backfill"),
    ("signal.kafka.topic", "signals travel as messages in the log: cdc table backfill"),
    ("signal.kafka.bootstrap.servers", "signals travel as messages in the log: cdc table backfill"),
    ("signal.file", "signals travel as messages in the log: cdc table backfill"),
    ("notification.enabled.channels", "see cdc connector status"),
    ("notification.sink.topic.name", "see cdc connector status"),
    ("converters", "it is a Java class"),
    ("post.processors", "it is a Java class"),
    ("custom.metric.tags", "metrics have their own labels"),
    ("topic.naming.strategy", "it is a Java class"),
    ("topic.transaction", "its name is <topic.prefix>.transaction"),
    ("transaction.metadata.factory", "it is a Java class"),
    ("sourceinfo.struct.maker", "it is a Java class"),
    ("guardrail.collections.max", "it is not offered"),
    ("database.include.list", "a connector follows one database: database.dbname"),
    ("database.exclude.list", "a connector follows one database: database.dbname"),
    ("snapshot.isolation.mode.custom.name", "it is a Java class"),
    ("snapshot.full.column.scan.force", _FENCED),
    ("multi.partition.mode", "a connector follows one database"),
    ("custom.sanitize.pattern", "names follow Avro's rules"),
    ("openlineage.integration.config.file.path", "it is not offered"),
    ("openlineage.integration.job.namespace", "it is not offered"),
    ("openlineage.integration.job.description", "it is not offered"),
    ("openlineage.integration.job.tags", "it is not offered"),
    ("openlineage.integration.job.owners", "it is not offered"),
    ("openlineage.integration.dataset.kafka.bootstrap.servers", "it is not offered"),
    ("signal.kafka.groupId", "signals travel as messages in the log: cdc table backfill"),
    ("signal.kafka.poll.timeout.ms", "signals travel as messages in the log: cdc table backfill"),
    ("schemas.storage.class", "it is a Java class"),
    ("tables.storage.class", "it is a Java class"),
    ("guardrail.collections.limit.action", "it is not offered"),
)

FOREIGN: tuple[Setting, ...] = (
    *(
        Setting(name, f"Only {value!r}: {reason}.", only(value, reason))
        for name, value, reason in _ONLY
    ),
    *(Setting(name, f"Accepted without effect: {reason}.") for name, reason in _HARMLESS),
    *(Setting(name, "Not supported.", unsupported=reason) for name, reason in _REFUSED),
)
"""Accepted with the one value that changes nothing, accepted without effect, or refused with a reason."""
