"""A Redis replica for tests: stores as tasks open them, with rows read without a registry."""

from __future__ import annotations

from collections.abc import Mapping

from cdc.config import ConnectorConfig
from cdc.table import Table
from cdc.testing.rows import key_values, row_values
from connectors.redis.settings import SINK_SETTINGS, RedisSettings
from connectors.redis.store import RedisStore


class Rows:
    """`cdc.protocols.RowDecoder` for `cdc.testing.rows`."""

    def values(self, table: Table, row: bytes) -> Mapping[str, object]:
        return row_values(table, row)

    def key_values(self, table: Table, key: bytes) -> Mapping[str, object]:
        return key_values(table, key)


def open_store(url: str, **overrides: object) -> RedisStore:
    """A store under the defaults but for ``overrides`` (dots of names as underscores)."""
    values: dict[str, object] = {setting.name: setting.default for setting in SINK_SETTINGS}
    values |= {"connection.url": url, "topic.prefix": "p"}
    values |= {name.replace("_", "."): value for name, value in overrides.items()}
    config = ConnectorConfig("tests", "redis", "sink", "cdc.redis.Sink", values)
    return RedisStore(RedisSettings.of(config), Rows())
