"""PostgreSQL, as a source and as a replica: the plug-in's record.

What opens clients is imported only when something is opened, so that the record alone costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cdc.config import ConnectorConfig
from cdc.connector import Connector, ConnectorClass, SequenceMove
from cdc.findings import Finding
from cdc.protocols import (
    FencedReader,
    PartitionStore,
    ReplicaSide,
    RowDecoder,
    Source,
    SourceSide,
    Store,
)
from connectors.postgres.settings import DEBEZIUM_DEFAULTS, DEBEZIUM_WARNINGS, SOURCE_SETTINGS
from connectors.postgres.sink_settings import (
    JDBC_SINK_CLASS,
    JDBC_SINK_DEFAULTS,
    JDBC_SINK_WARNINGS,
    SINK_SETTINGS,
)


def _source(config: ConnectorConfig) -> Source:
    from connectors.postgres.source import open_source

    return open_source(config)


def _reader(config: ConnectorConfig) -> FencedReader:
    from connectors.postgres.backfill import open_reader

    return open_reader(config)


def _store(config: ConnectorConfig) -> Store:
    from connectors.postgres.sink import open_store

    return open_store(config)


def _partition_store(config: ConnectorConfig, _: RowDecoder) -> PartitionStore:
    from connectors.postgres.partition_store import open_partition_store

    return open_partition_store(config)


def _source_side(config: ConnectorConfig) -> SourceSide:
    from connectors.postgres.reader import open_source_side

    return open_source_side(config)


def _replica_side(config: ConnectorConfig) -> ReplicaSide:
    from connectors.postgres.reader import open_replica_side

    return open_replica_side(config)


def _check_source(config: ConnectorConfig) -> Iterator[Finding]:
    from connectors.postgres.source_check import check_source

    return check_source(config)


def _check_sink(config: ConnectorConfig) -> Iterator[Finding]:
    from connectors.postgres.sink_check import check_sink

    return check_sink(config)


def _sync_sequences(
    source: ConnectorConfig, sink: ConnectorConfig, margin: int
) -> Sequence[SequenceMove]:
    from connectors.postgres.sequences import sync_sequences

    return sync_sequences(source, sink, margin)


CONNECTOR = Connector(
    name="postgres",
    classes=(
        ConnectorClass("cdc.postgres.Source", "source", {}, {}),
        ConnectorClass("cdc.postgres.Sink", "sink", {}, {}),
        ConnectorClass(
            "io.debezium.connector.postgresql.PostgresConnector",
            "source",
            DEBEZIUM_DEFAULTS,
            DEBEZIUM_WARNINGS,
        ),
        ConnectorClass(JDBC_SINK_CLASS, "sink", JDBC_SINK_DEFAULTS, JDBC_SINK_WARNINGS),
    ),
    source_settings=SOURCE_SETTINGS,
    sink_settings=SINK_SETTINGS,
    open_source=_source,
    open_reader=_reader,
    open_store=_store,
    open_source_side=_source_side,
    open_replica_side=_replica_side,
    check_source=_check_source,
    check_sink=_check_sink,
    accelerators=("connectors.postgres._transcoder", "connectors.postgres._tuples"),
    open_partition_store=_partition_store,
    sync_sequences=_sync_sequences,
)
