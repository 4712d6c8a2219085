"""The replica connector's properties, by the names of Debezium's JDBC sink, and what a checked configuration means.

Under our class name nothing is skipped. The JDBC sink's class name brings its own defaults (``JDBC_SINK_DEFAULTS``):
those that cannot be obeyed without losing changes are refused here with the value to set.
https://debezium.io/documentation/reference/stable/connectors/jdbc.html#jdbc-connector-configuration
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc.config import ConnectorConfig, Setting
from cdc.errors import ConfigError, Failed
from cdc.setting_values import boolean, one_of, only, whole
from cdc.table import Table, TableId
from connectors.postgres.replica_ddl import Policy
from connectors.postgres.sink_settings_of_jdbc import FOREIGN

_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")
_PLACEHOLDERS = ("topic", "source.schema", "source.table")
_UPSERT = "a change delivered again has to find its row, not to add another"


def table_format(raw: Any) -> str:
    """A target table's name with placeholders, of the form ``table`` or ``schema.table``."""
    text = str(raw).strip()
    for name in _PLACEHOLDER.findall(text):
        if name not in _PLACEHOLDERS:
            known = ", ".join(f"${{{placeholder}}}" for placeholder in _PLACEHOLDERS)
            raise ValueError(f"${{{name}}} is not known: {known} are")
    if not text or len(_PLACEHOLDER.sub("x", text).split(".")) > 2:
        raise ValueError("a name of the form table or schema.table is expected")
    return text


def _names(raw: Any) -> tuple[str, ...]:
    texts = raw if isinstance(raw, list) else str(raw).split(",")
    return tuple(name for text in texts if (name := str(text).strip()))


SINK_SETTINGS: tuple[Setting, ...] = (
    Setting(
        "connection.url",
        "The replica: jdbc:postgresql://host:port/database?..., or libpq's URL. A session of its own,"
        " not one of a transaction pooler.",
        required=True,
    ),
    Setting("connection.username", "The user to connect as."),
    Setting("connection.password", "The user's password.", secret=True),
    Setting(
        "insert.mode",
        "upsert is the one that is supported.",
        one_of("insert", "update", "upsert"),
        "upsert",
    ),
    Setting(
        "primary.key.mode",
        "record_key: rows are found by the key of their records. record_value: by the same, named in primary.key.fields.",
        one_of("kafka", "none", "record_header", "record_key", "record_value"),
        "record_key",
    ),
    Setting(
        "primary.key.fields",
        "The columns of the key, comma separated: checked against the key of each table's records.",
        _names,
        (),
    ),
    Setting("delete.enabled", "Whether deletes are applied.", boolean, default=True),
    Setting("truncate.enabled", "Whether truncates are applied.", boolean, default=True),
    Setting(
        "schema.evolution",
        "basic: make missing tables and columns, widen types, drop NOT NULL where the source did. full: rename and drop"
        " columns, change types and keys as well. none: stop, and say what to run.",
        one_of("basic", "full", "none"),
        "basic",
    ),
    Setting(
        "collection.name.format",
        "The target table, with ${source.schema}, ${source.table} or ${topic} (its dots become underscores).",
        table_format,
        "${source.schema}.${source.table}",
    ),
    Setting("table.name.format", "Older name of collection.name.format.", table_format),
    Setting(
        "missing.rows",
        "What an update or delete does whose row is not in the replica, or (replica identity full) not as the source"
        " had it. report: it is counted and told. fail: the sink stops.",
        one_of("report", "fail"),
        "report",
    ),
    Setting("batch.size", "Most events that one statement applies.", whole(1, 1_000_000), 20_000),
    Setting(
        "commit.synchronous",
        "Whether a commit waits until the replica's disk holds it, as the server's synchronous_commit says. false: a"
        " crash of the replica takes back what was visible for a moment, with its checkpoint; it is applied again.",
        boolean,
        default=True,
    ),
    Setting(
        "quote.identifiers",
        "Names are always quoted, so that they are the source's.",
        only("true", "an unquoted name would be another one"),
        "true",
    ),
    *FOREIGN,
)

JDBC_SINK_CLASS = "io.debezium.connector.jdbc.JdbcSinkConnector"

JDBC_SINK_DEFAULTS: Mapping[str, Any] = {
    "insert.mode": "insert",
    "primary.key.mode": "none",
    "delete.enabled": False,
    "truncate.enabled": False,
    "schema.evolution": "none",
    "collection.name.format": "${topic}",
    "batch.size": 500,
}

JDBC_SINK_WARNINGS: Mapping[str, str] = {
    "delete.enabled": "deleted rows stay in the replica",
    "truncate.enabled": "truncated rows stay in the replica",
}


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """A replica's configuration in the connector's own terms."""

    connector: str
    conninfo: str
    deletes: bool
    truncates: bool
    evolution: Policy
    name_format: str
    batch_size: int
    missing_rows: str = "report"
    synchronous: bool = True
    key_fields: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: ConnectorConfig) -> SinkSettings:
        """Read a checked configuration; ConfigError for what would lose changes, or cannot be understood."""
        fields = config["primary.key.fields"]
        keyed = ("record_key", "record_value") if fields else ("record_key",)
        for name, supported in (("insert.mode", ("upsert",)), ("primary.key.mode", keyed)):
            if config[name] not in supported:
                raise ConfigError(
                    f"{name}={config[name]} is not supported: {_UPSERT}",
                    f"set {name}={supported[0]}",
                )
        return cls(
            connector=config.name,
            conninfo=conninfo(
                config["connection.url"],
                config["connection.username"],
                config["connection.password"],
            ),
            deletes=config["delete.enabled"],
            truncates=config["truncate.enabled"],
            evolution=cast("Policy", config["schema.evolution"]),
            name_format=config["table.name.format"] or config["collection.name.format"],
            batch_size=config["batch.size"],
            missing_rows=config["missing.rows"],
            synchronous=config["commit.synchronous"],
            key_fields=fields,
        )

    def check_key(self, table: Table) -> None:
        """Failed for a table whose records have another key than the configuration names."""
        if self.key_fields and set(self.key_fields) != set(table.key):
            raise Failed(
                f"primary.key.fields names {', '.join(self.key_fields)}, the records of {table.id} have the key "
                f"{', '.join(table.key) or '(none)'}",
                "leave primary.key.fields out, or give the table that key at its source (message.key.columns)",
            )

    def target(self, source: TableId, topic: str) -> TableId:
        """The table of the replica for a table of the source. ``public`` where the format names no schema."""
        values = {
            "topic": topic.replace(".", "_"),
            "source.schema": source.schema,
            "source.table": source.name,
        }
        # Split before a name is put in: a name may hold a dot of its own.
        parts = [
            _PLACEHOLDER.sub(lambda match: values[match[1]], part)
            for part in _split(self.name_format)
        ]
        return TableId(*parts) if len(parts) == 2 else TableId("public", parts[0])


def conninfo(url: str, user: str | None, password: str | None) -> str:
    """A libpq connection string of a JDBC URL, or of one of libpq's own; ``user`` and ``password`` override what stands in it.

    ConfigError for a URL that is neither, and for a JDBC parameter that has no counterpart in libpq.
    """
    given = {"user": user, "password": password}
    try:
        parts = conninfo_to_dict(_libpq_url(url.strip()))
        return make_conninfo("", **{**parts, **{k: v for k, v in given.items() if v is not None}})
    except psycopg.ProgrammingError as error:
        raise ConfigError(
            "connection.url is not a PostgreSQL URL",
            "give it the form jdbc:postgresql://host:port/database",
        ) from error


_JDBC_TO_LIBPQ = {
    "user": "user",
    "password": "password",
    "sslmode": "sslmode",
    "sslrootcert": "sslrootcert",
    "sslcert": "sslcert",
    "sslkey": "sslkey",
    "sslpassword": "sslpassword",
    "connectTimeout": "connect_timeout",
    "gssEncMode": "gssencmode",
}
# They shape the driver's own work and change no row.
_JDBC_ONLY = frozenset(
    ("ApplicationName", "reWriteBatchedInserts", "prepareThreshold", "tcpKeepAlive", "loginTimeout")
)


def _libpq_url(url: str) -> str:
    if not url.startswith("jdbc:"):
        return url
    parts = urlsplit(url.removeprefix("jdbc:"))
    if parts.scheme != "postgresql":
        raise psycopg.ProgrammingError("not PostgreSQL's")
    options = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name == "ssl":
            options.append(
                ("sslmode", "verify-full" if value.lower() in ("", "true") else "prefer")
            )
        elif name == "targetServerType" and value == "primary":
            options.append(("target_session_attrs", "read-write"))
        elif name in _JDBC_TO_LIBPQ:
            options.append((_JDBC_TO_LIBPQ[name], value))
        elif name not in _JDBC_ONLY:
            raise ConfigError(
                f"connection.url has the parameter {name}, which is not supported", "take it out"
            )
    # Not urlencode: libpq takes "+" as itself, never as a blank.
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in options)
    return f"postgresql://{parts.netloc}/{quote(unquote(parts.path[1:]))}?{query}"


def _split(name_format: str) -> list[str]:
    """Split at dots outside placeholders."""
    return re.split(r"\.(?![^{}]*\})", name_format)


__all__ = [
    "JDBC_SINK_CLASS",
    "JDBC_SINK_DEFAULTS",
    "JDBC_SINK_WARNINGS",
    "SINK_SETTINGS",
    "SinkSettings",
    "conninfo",
]
