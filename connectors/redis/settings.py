"""The Redis sink's properties, and what a checked configuration means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from cdc.config import ConnectorConfig, Setting
from cdc.errors import ConfigError
from cdc.setting_values import boolean, whole

_DAY_MS = 86_400_000

SINK_SETTINGS: tuple[Setting, ...] = (
    Setting(
        "connection.url",
        "The server: redis://host:port/database, or rediss:// with TLS, or unix://path.",
        required=True,
        secret=True,
    ),
    Setting("connection.username", "The user to connect as."),
    Setting("connection.password", "The user's password.", secret=True),
    Setting("connection.timeout.ms", "Silence after which a server is away.", whole(100), 30_000),
    Setting("key.prefix", "What every key begins with; default: topic.prefix."),
    Setting("delete.enabled", "Whether deletes are applied.", boolean, default=True),
    Setting("truncate.enabled", "Whether truncates are applied.", boolean, default=True),
    Setting(
        "guard.retention.ms",
        "How long a deleted row's position is kept; longer than the topics' retention.",
        whole(1000, 2**53),
        8 * _DAY_MS,
    ),
    Setting("batch.size", "Commands that are sent without waiting.", whole(1, 100_000), 1000),
)

SINK_DEFAULTS: Mapping[str, object] = {"apply.mode": "partition"}
"""A store without transactions of a source's kind has one mode."""


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """A Redis replica's configuration in the connector's own terms."""

    connector: str
    url: str
    username: str | None
    password: str | None
    timeout: float
    prefix: str
    deletes: bool
    truncates: bool
    guard_ms: int
    batch_size: int

    @classmethod
    def of(cls, config: ConnectorConfig) -> RedisSettings:
        """Read a checked configuration; ConfigError for an address that is none."""
        url = str(config["connection.url"]).strip()
        if urlsplit(url).scheme not in ("redis", "rediss", "unix"):
            raise ConfigError(
                "connection.url is not an address of Redis",
                "give it the form redis://host:port/database",
            )
        prefix = config["key.prefix"] or config["topic.prefix"]
        if prefix == "cdc":
            raise ConfigError("key.prefix is cdc, where positions are kept", "choose another one")
        return cls(
            connector=config.name,
            url=url,
            username=config["connection.username"],
            password=config["connection.password"],
            timeout=config["connection.timeout.ms"] / 1000,
            prefix=prefix,
            deletes=config["delete.enabled"],
            truncates=config["truncate.enabled"],
            guard_ms=config["guard.retention.ms"],
            batch_size=config["batch.size"],
        )
