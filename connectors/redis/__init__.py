"""Redis, as a replica: the plug-in's record.

The client library is imported only when something is opened, so that the record costs nothing.
"""

from __future__ import annotations

from cdc.config import ConnectorConfig
from cdc.connector import Connector, ConnectorClass
from cdc.protocols import PartitionStore, RowDecoder
from connectors.redis.settings import SINK_DEFAULTS, SINK_SETTINGS


def _partition_store(config: ConnectorConfig, rows: RowDecoder) -> PartitionStore:
    from connectors.redis.store import open_partition_store

    return open_partition_store(config, rows)


CONNECTOR = Connector(
    name="redis",
    classes=(ConnectorClass("cdc.redis.Sink", "sink", SINK_DEFAULTS, {}),),
    source_settings=(),
    sink_settings=SINK_SETTINGS,
    open_source=None,
    open_reader=None,
    open_store=None,
    open_source_side=None,
    open_replica_side=None,
    open_partition_store=_partition_store,
)
