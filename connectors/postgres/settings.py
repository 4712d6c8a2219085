"""The source connector's properties, by Debezium's names, and what a checked configuration means."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from psycopg.conninfo import make_conninfo

from cdc.config import MOST_MESSAGE_BYTES, ConnectorConfig, Setting
from cdc.errors import ConfigError
from cdc.fence import OUR_MESSAGES
from cdc.setting_values import boolean, one_of, only, patterns, whole
from cdc.table import TableId
from connectors.postgres.column_rules import ColumnRules
from connectors.postgres.handling import DEFAULT, Handling
from connectors.postgres.setting_values import (
    identifier,
    listed,
    ports,
    slot_name,
    snapshot_mode,
    stream_options,
)
from connectors.postgres.settings_of_columns import COLUMN_SETTINGS, column_rules
from connectors.postgres.settings_of_debezium import FOREIGN
from connectors.postgres.settings_of_values import (
    DEBEZIUM_VALUE_DEFAULTS,
    VALUE_SETTINGS,
    handling_of,
)
from connectors.postgres.slot import Patience

EventTrigger = Literal["auto", "require", "off"]
Autocreate = Literal["all_tables", "disabled", "filtered", "no_tables"]

SOURCE_SETTINGS: tuple[Setting, ...] = (
    Setting("topic.prefix", "First part of every topic's name; names this source.", required=True),
    Setting(
        "database.hostname",
        "The server's host; several with commas between: that one is used which is the primary.",
        required=True,
    ),
    Setting("database.port", "The server's port, or one for each host.", ports, "5432"),
    Setting(
        "database.user", "The user to connect as; needs REPLICATION and SELECT.", required=True
    ),
    Setting("database.password", "The user's password.", secret=True),
    Setting("database.dbname", "The database to capture.", required=True),
    Setting(
        "database.sslmode",
        "How far the link is protected, as libpq means it.",
        one_of("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
        "prefer",
    ),
    Setting("database.sslrootcert", "File with the certificates of the authorities to trust."),
    Setting("database.sslcert", "File with the client's certificate."),
    Setting("database.sslkey", "File with the client's key."),
    Setting("database.sslpassword", "Password of the client's key.", secret=True),
    Setting("slot.name", "The replication slot.", slot_name, "cdc"),
    Setting(
        "slot.drop.on.stop",
        "Whether a stop drops the slot. Changes until the next start are lost then, so that one has to copy anew:"
        " only with snapshot.mode=when_needed or always.",
        boolean,
        default=False,
    ),
    Setting(
        "slot.failover", "Make the slot a failover slot (PostgreSQL 17).", boolean, default=False
    ),
    Setting(
        "slot.max.retries",
        "How often a slot that another session holds is tried again before it counts as unreachable.",
        whole(0),
        8,
    ),
    Setting(
        "slot.retry.delay.ms",
        "Milliseconds between these tries.",
        whole(1, 600_000),
        250,
    ),
    Setting(
        "slot.stream.params",
        "Options of the stream that are not fixed, as name=value;...: origin=none leaves out what was replicated here.",
        stream_options,
        (),
    ),
    Setting("publication.name", "The publication.", identifier, "cdc_publication"),
    Setting(
        "publication.autocreate.mode",
        "Who makes the publication: filtered (we, for the selected tables), all_tables, no_tables, disabled.",
        one_of("all_tables", "disabled", "filtered", "no_tables"),
        "filtered",
    ),
    Setting(
        "publish.via.partition.root",
        "Whether a partitioned table is captured as one (else each partition is a table).",
        boolean,
        default=False,
    ),
    Setting("schema.include.list", "Regular expressions of schemas to capture.", patterns, ()),
    Setting("schema.exclude.list", "Regular expressions of schemas not to capture.", patterns, ()),
    Setting("table.include.list", "Regular expressions of tables (schema.table).", patterns, ()),
    Setting("table.exclude.list", "Regular expressions of tables not to capture.", patterns, ()),
    *COLUMN_SETTINGS,
    Setting(
        "schema.event.trigger",
        "How schema changes that the log does not tell are noticed. auto: by event triggers of ours at the source where"
        " the user may make them. require: by these or not at all. off: none are made.",
        one_of("auto", "require", "off"),
        "auto",
    ),
    Setting(
        "snapshot.select.statement.overrides",
        "Tables (schema.table) whose copy is made by a SELECT of their own.",
        listed,
        (),
    ),
    Setting(
        "snapshot.select.statement.overrides.*",
        "snapshot.select.statement.overrides.<schema>.<table>: that SELECT. Such a table is copied, and not verified.",
    ),
    Setting(
        "snapshot.mode",
        "initial: copy the tables, in chunks beside the stream. initial_only: and no more than that. no_data: stream"
        " only. always: copy at every start. when_needed: copy again when the slot lacks changes.",
        snapshot_mode,
        "initial",
    ),
    Setting(
        "snapshot.fetch.size",
        "Most rows of one backfill chunk; it is bounded by bytes too.",
        whole(1, 1_000_000),
        20_000,
    ),
    Setting(
        "snapshot.lock.timeout.ms",
        "How long a chunk waits for its table's ACCESS SHARE lock.",
        whole(1),
        10_000,
    ),
    Setting(
        "skipped.operations",
        "Operations that are not captured: none, or t (truncates).",
        one_of("none", "t"),
        "none",
    ),
    Setting(
        "message.prefix.include.list",
        "Regular expressions of the prefixes of logical messages to capture.",
        patterns,
        (),
    ),
    Setting(
        "message.prefix.exclude.list",
        "Regular expressions of the prefixes of logical messages not to capture.",
        patterns,
        (),
    ),
    Setting("heartbeat.action.query", "A statement to run at the source with every heartbeat."),
    Setting(
        "plugin.name",
        "The output plug-in.",
        only("pgoutput", "it is built into every server"),
        "pgoutput",
    ),
    *VALUE_SETTINGS,
    *FOREIGN,
)

DEBEZIUM_DEFAULTS: Mapping[str, Any] = {
    "slot.name": "debezium",
    "slot.max.retries": 6,
    "slot.retry.delay.ms": 10_000,
    "publication.name": "dbz_publication",
    "publication.autocreate.mode": "all_tables",
    "skipped.operations": "t",
    **DEBEZIUM_VALUE_DEFAULTS,
}
"""What a property left out means under Debezium's class name."""

DEBEZIUM_WARNINGS: Mapping[str, str] = {
    "skipped.operations": "truncates are not captured: set skipped.operations=none",
    "publication.autocreate.mode": "a publication of all tables lets the server refuse updates of tables without a key",
    "plugin.name": "the slot uses pgoutput, not decoderbufs",
}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which tables are captured, by their names."""

    schemas: tuple[re.Pattern[str], ...] = ()
    not_schemas: tuple[re.Pattern[str], ...] = ()
    tables: tuple[re.Pattern[str], ...] = ()
    not_tables: tuple[re.Pattern[str], ...] = ()

    def names(self, table: TableId) -> bool:
        """Whether the table is asked for by its own name, not by a pattern that happens to match it."""
        return any(
            pattern.pattern.replace("\\.", ".").casefold() == str(table).casefold()
            for pattern in self.tables
        )

    @property
    def wanted(self) -> str:
        """What is asked for, in words, for messages."""
        shown = ", ".join(pattern.pattern for pattern in (*self.schemas, *self.tables))
        return shown or "any schema of the database"

    def takes(self, table: TableId) -> bool:
        """Whether the table is one of those to capture. System schemas never are."""
        if table.schema == "information_schema" or table.schema.startswith("pg_"):
            return False
        name = str(table)
        return (
            (not self.schemas or _any(self.schemas, table.schema))
            and not _any(self.not_schemas, table.schema)
            and (not self.tables or _any(self.tables, name))
            and not _any(self.not_tables, name)
        )


@dataclass(frozen=True, slots=True)
class MessagePrefixes:
    """Which logical messages are captured, by their prefixes. Ours (``cdc.``) always are: they steer capture itself."""

    included: tuple[re.Pattern[str], ...] = ()
    excluded: tuple[re.Pattern[str], ...] = ()

    def takes(self, prefix: str) -> bool:
        """Whether messages of this prefix are captured."""
        if prefix.startswith(OUR_MESSAGES):
            return True
        return (not self.included or _any(self.included, prefix)) and not _any(
            self.excluded, prefix
        )


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """A source's configuration in the connector's own terms."""

    connector: str
    prefix: str
    conninfo: str
    slot: str
    failover: bool
    publication: str
    autocreate: Autocreate
    via_root: bool
    selection: Selection
    lock_timeout_ms: int
    skip_truncates: bool
    columns: ColumnRules = ColumnRules()  # noqa: RUF009 - it is frozen
    messages: MessagePrefixes = MessagePrefixes()
    event_trigger: EventTrigger = "auto"
    copied: bool = True
    widest: int = sys.maxsize
    overrides: Mapping[TableId, str] = field(default_factory=dict)
    heartbeat_query: str = ""
    slot_patience: Patience = Patience(8, 0.25)  # noqa: RUF009 - it is a tuple
    stream_options: Mapping[str, str] = field(default_factory=dict)
    handling: Handling = DEFAULT

    @classmethod
    def of(cls, config: ConnectorConfig) -> SourceSettings:
        """Read a checked configuration. ConfigError where two properties contradict each other."""
        for kind in ("schema", "table", "column", "message.prefix"):
            if config[f"{kind}.include.list"] and config[f"{kind}.exclude.list"]:
                raise ConfigError(
                    f"{kind}.include.list and {kind}.exclude.list are both set",
                    "set one of them",
                )
        if config["slot.drop.on.stop"] and config["snapshot.mode"] not in ("always", "when_needed"):
            raise ConfigError(
                "slot.drop.on.stop loses the changes until the next start",
                "leave it out, or set snapshot.mode=when_needed: then the next start copies all anew",
            )
        return cls(
            connector=config.name,
            prefix=config["topic.prefix"],
            conninfo=_conninfo(config),
            slot=config["slot.name"],
            failover=config["slot.failover"],
            publication=config["publication.name"],
            autocreate=cast("Autocreate", config["publication.autocreate.mode"]),
            via_root=config["publish.via.partition.root"],
            selection=Selection(
                config["schema.include.list"],
                config["schema.exclude.list"],
                config["table.include.list"],
                config["table.exclude.list"],
            ),
            columns=column_rules(config),
            overrides=_overrides(config),
            heartbeat_query=config["heartbeat.action.query"] or "",
            slot_patience=Patience(
                config["slot.max.retries"], config["slot.retry.delay.ms"] / 1000
            ),
            stream_options=dict(config["slot.stream.params"]),
            lock_timeout_ms=config["snapshot.lock.timeout.ms"],
            event_trigger=cast("EventTrigger", config["schema.event.trigger"]),
            skip_truncates=config["skipped.operations"] == "t",
            messages=MessagePrefixes(
                config["message.prefix.include.list"], config["message.prefix.exclude.list"]
            ),
            copied=config["snapshot.mode"] != "no_data",
            widest=_FRAMES_TO_RECORDS * _most_message_bytes(config),
            handling=handling_of(config),
        )


_FRAMES_TO_RECORDS = 2
"""A row can be so many times wider in the log than in its record, where numbers are shorter."""


def _most_message_bytes(config: ConnectorConfig) -> int:
    overrides = config.values.get("producer.override.*") or {}
    return int(overrides.get("message.max.bytes", MOST_MESSAGE_BYTES))


def _overrides(config: ConnectorConfig) -> Mapping[TableId, str]:
    """The SELECT of each table that is copied by one of its own."""
    name = "snapshot.select.statement.overrides"
    statements: dict[str, Any] = dict(config[f"{name}.*"])
    found: dict[TableId, str] = {}
    for table in config[name]:
        statement = statements.pop(table, None)
        if statement is None:
            raise ConfigError(
                f"{name} names {table}, and {name}.{table} is not set",
                f"set {name}.{table} to a SELECT of the table's columns",
            )
        try:
            found[TableId.parse(table)] = str(statement).strip().rstrip(";")
        except ValueError as error:
            raise ConfigError(f"{name}: {error}", "name tables as schema.table") from error
    if statements:
        raise ConfigError(
            f"{name}.{min(statements)} is set, and {name} does not name that table",
            f"add it to {name}",
        )
    return found


def _conninfo(config: ConnectorConfig) -> str:
    parts = {
        "host": config["database.hostname"],
        "port": config["database.port"],
        "user": config["database.user"],
        "password": config["database.password"],
        "dbname": config["database.dbname"],
        "sslmode": config["database.sslmode"],
        "sslrootcert": config["database.sslrootcert"],
        "sslcert": config["database.sslcert"],
        "sslkey": config["database.sslkey"],
        "sslpassword": config["database.sslpassword"],
    }
    hosts = str(config["database.hostname"]).count(",") + 1
    if str(config["database.port"]).count(",") + 1 not in (1, hosts):
        raise ConfigError(
            "database.hostname and database.port name different numbers of servers",
            "give one port for all, or one for each host",
        )
    if hosts > 1:
        parts["target_session_attrs"] = (
            "read-write"  # a standby is passed over until it is promoted
        )
    return make_conninfo("", **{name: value for name, value in parts.items() if value is not None})


def _any(patterns_: tuple[re.Pattern[str], ...], name: str) -> bool:
    return any(pattern.fullmatch(name) for pattern in patterns_)
