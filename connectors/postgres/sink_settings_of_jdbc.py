"""Properties of Debezium's JDBC sink that have one meaning here, or none: known, so that each says why.

A property stands here with the value that may be set (then nothing changes), or with the reason why it is refused.
https://debezium.io/documentation/reference/stable/connectors/jdbc.html#jdbc-connector-configuration
"""

from __future__ import annotations

from cdc.config import Setting
from cdc.setting_values import only

_NAMES = "a name that is changed could not be compared with the source's"

_ONLY: tuple[tuple[str, str, str], ...] = (
    ("use.reduction.buffer", "true", "changes of one key in a batch are always brought to one"),
    ("use.time.zone", "UTC", "times are written as the source has them"),
    ("database.time_zone", "UTC", "times are written as the source has them"),
    ("connection.restart.on.errors", "true", "a lost server is always waited for"),
    (
        "column.naming.strategy",
        "io.debezium.connector.jdbc.naming.DefaultColumnNamingStrategy",
        _NAMES,
    ),
    (
        "collection.naming.strategy",
        "io.debezium.connector.jdbc.naming.DefaultTableNamingStrategy",
        _NAMES,
    ),
    (
        "table.naming.strategy",
        "io.debezium.connector.jdbc.naming.DefaultTableNamingStrategy",
        _NAMES,
    ),
    ("dialect.postgres.postgis.schema", "public", "types are found by their full names"),
)

_HARMLESS: tuple[tuple[str, str], ...] = (
    ("connection.pool.min_size", "one session holds the replica's checkpoint"),
    ("connection.pool.max_size", "one session holds the replica's checkpoint"),
    ("connection.pool.acquire_increment", "one session holds the replica's checkpoint"),
    ("connection.pool.timeout", "one session holds the replica's checkpoint"),
    ("flush.max.retries", "reconnection has its own patience"),
    ("flush.retry.delay.ms", "reconnection has its own patience"),
    ("dialect.postgres.unnest.insert.enabled", "rows are staged by COPY"),
)

_REFUSED: tuple[tuple[str, str], ...] = (
    ("connection.provider", "there is no pool to choose"),
    ("field.include.list", "whole rows are applied, so that the replica can be verified"),
    ("field.exclude.list", "whole rows are applied, so that the replica can be verified"),
    ("column.naming.style", _NAMES),
    ("column.naming.prefix", _NAMES),
    ("column.naming.suffix", _NAMES),
    ("collection.naming.style", _NAMES),
    ("collection.naming.prefix", _NAMES),
    ("collection.naming.suffix", _NAMES),
    ("dialect.sqlserver.identity.insert", "the replica is PostgreSQL"),
    ("dialect.starrocks.catalog.name", "the replica is PostgreSQL"),
    ("collection.table.format", "the tables are PostgreSQL's"),
    ("hibernate.dialect", "the replica is PostgreSQL"),
    ("hibernate.show_sql", "see the log level"),
)

FOREIGN: tuple[Setting, ...] = (
    *(
        Setting(name, f"Accepted as {value}: {why}.", only(value, why))
        for name, value, why in _ONLY
    ),
    *(Setting(name, f"Accepted without effect: {why}.") for name, why in _HARMLESS),
    *(Setting(name, "Not supported.", unsupported=why) for name, why in _REFUSED),
)
"""Settings for `connectors.postgres.sink_settings`."""
