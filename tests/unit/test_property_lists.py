"""Every property of Debezium's PostgreSQL connector and JDBC sink is obeyed, or refused with a reason: none is unknown.

The names are those of Debezium 3.7's sources: every ``Field.create`` of CommonConnectorConfig,
RelationalDatabaseConnectorConfig, PostgresConnectorConfig, the heartbeat, topic naming, signal and notification
classes, and of JdbcSinkConnectorConfig.
"""

from __future__ import annotations

from typing import Any

import pytest

from cdc.errors import ConfigError
from cdc.runtime.config_files import check

_POSTGRES = """
binary.handling.mode connection.validation.timeout.ms converters custom.metric.tags custom.sanitize.pattern
event.converting.failure.handling.mode event.processing.failure.handling.mode executor.shutdown.timeout.ms
field.name.adjustment.mode guardrail.collections.limit.action guardrail.collections.max
incremental.snapshot.allow.schema.changes incremental.snapshot.chunk.size incremental.snapshot.watermarking.strategy
legacy.snapshot.max.threads max.batch.size max.queue.size max.queue.size.in.bytes poll.dispatch.interval.ms
poll.interval.ms post.processors provide.transaction.metadata query.fetch.size queue.provider.type
retriable.restart.connector.wait.ms schema.name.adjustment.mode signal.data.collection signal.emit.failure.backoff.ms
signal.emit.failure.max.retries signal.enabled.channels signal.poll.interval.ms skip.messages.without.change
skipped.operations snapshot.delay.ms snapshot.fetch.size snapshot.include.collection.list
snapshot.locking.mode.custom.name snapshot.max.threads snapshot.max.threads.multiplier
snapshot.mode.configuration.based.snapshot.data snapshot.mode.configuration.based.snapshot.on.data.error
snapshot.mode.configuration.based.snapshot.on.schema.error snapshot.mode.configuration.based.snapshot.schema
snapshot.mode.configuration.based.start.stream snapshot.mode.custom.name snapshot.query.mode
snapshot.query.mode.custom.name sourceinfo.struct.maker statistics.metrics.enabled streaming.delay.ms tasks.max
tombstones.on.delete topic.naming.strategy transaction.metadata.factory extended.headers.enabled topic.prefix
errors.max.retries notification.enabled.channels notification.sink.topic.name openlineage.integration.enabled
openlineage.integration.config.file.path openlineage.integration.job.namespace
openlineage.integration.job.description openlineage.integration.job.tags openlineage.integration.job.owners
openlineage.integration.dataset.kafka.bootstrap.servers column.exclude.list column.include.list
column.mask.hash.SHA-256.with.salt.s column.mask.hash.v2.SHA-256.with.salt.s column.mask.with.5.chars
column.propagate.source.type column.truncate.to.5.chars datatype.propagate.source.type decimal.handling.mode
include.schema.changes include.schema.comments message.key.columns snapshot.lock.timeout.ms
snapshot.select.statement.overrides snapshot.select.statement.overrides.public.t
snapshot.tables.order.by.row.count snapshot.full.column.scan.force table.ignore.builtin time.precision.mode
unavailable.value.placeholder database.dbname database.hostname database.password database.port
database.query.timeout.ms database.user database.exclude.list database.include.list schema.exclude.list
schema.include.list table.exclude.list table.include.list flush.lsn.source hstore.handling.mode
include.unknown.datatypes interval.handling.mode lsn.flush.mode lsn.flush.timeout.action lsn.flush.timeout.ms
message.prefix.exclude.list message.prefix.include.list money.fraction.digits offset.mismatch.strategy plugin.name
publication.autocreate.mode publication.name publish.via.partition.root read.only replica.identity.autoset.values
schema.refresh.mode slot.drop.on.stop slot.failover slot.max.retries slot.name slot.retry.delay.ms
slot.stream.params snapshot.isolation.mode snapshot.locking.mode snapshot.mode status.update.interval.ms
xmin.fetch.interval.ms database.sslcert database.sslfactory database.sslkey database.sslmode database.sslpassword
database.sslrootcert database.tcpKeepAlive database.initial.statements heartbeat.interval.ms
heartbeat.topics.prefix heartbeat.action.query topic.delimiter topic.cache.size topic.heartbeat.prefix
topic.heartbeat.name topic.transaction signal.kafka.topic signal.kafka.bootstrap.servers signal.kafka.groupId
signal.kafka.poll.timeout.ms signal.file
"""

_JDBC = """
connection.provider connection.url connection.username connection.password connection.pool.min_size
connection.pool.max_size connection.pool.acquire_increment connection.pool.timeout connection.restart.on.errors
insert.mode delete.enabled truncate.enabled primary.key.mode primary.key.fields schema.evolution quote.identifiers
collection.name.format collection.naming.strategy column.naming.strategy column.naming.style column.naming.prefix
column.naming.suffix collection.naming.style collection.naming.prefix collection.naming.suffix
collection.table.format use.time.zone database.time_zone dialect.postgres.postgis.schema
dialect.postgres.unnest.insert.enabled dialect.sqlserver.identity.insert dialect.starrocks.catalog.name batch.size
use.reduction.buffer field.include.list field.exclude.list flush.max.retries flush.retry.delay.ms hibernate.dialect
"""


def answer(class_name: str, name: str) -> str:
    """What is said of a property with some value; empty where it is taken."""
    raw: dict[str, Any] = {"name": "n", "connector.class": class_name, name: "1"}
    try:
        check(raw)
    except ConfigError as error:
        # Other properties are missing: that is found last.
        return "" if error.what.endswith("is missing") else error.what
    return ""


@pytest.mark.parametrize("name", _POSTGRES.split())
def test_every_property_of_debeziums_postgres_connector_is_known(name: str) -> None:
    said = answer("io.debezium.connector.postgresql.PostgresConnector", name)
    assert "is not a property" not in said


@pytest.mark.parametrize("name", _JDBC.split())
def test_every_property_of_the_jdbc_sink_is_known(name: str) -> None:
    said = answer("io.debezium.connector.jdbc.JdbcSinkConnector", name)
    assert "is not a property" not in said


def test_an_unknown_property_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(
        ConfigError, match=r"tabel\.include\.list.*did you mean table\.include\.list"
    ):
        check({"name": "n", "connector.class": "cdc.postgres.Source", "tabel.include.list": "x"})
