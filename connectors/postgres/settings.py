"""The source connector's properties, by Debezium's names, and what a checked configuration means."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from psycopg.conninfo import make_conninfo

from cdc.config import MOST_MESSAGE_BYTES, ConnectorConfig, Setting
from cdc.errors import ConfigError
from cdc.fence import OUR_MESSAGES
from cdc.setting_values import boolean, one_of, only, patterns, whole
from cdc.table import TableId
from connectors.postgres.column_rules import ColumnRules
from connectors.postgres.setting_values import identifier, ports, slot_name
from connectors.postgres.settings_of_columns import COLUMN_SETTINGS, column_rules
from connectors.postgres.settings_of_debezium import FOREIGN

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
        "Whether deleting the connector drops the slot, not any stop (that would lose changes).",
        boolean,
        default=False,
    ),
    Setting(
        "slot.failover", "Make the slot a failover slot (PostgreSQL 17).", boolean, default=False
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
        "snapshot.mode",
        "initial: copy the tables, in chunks beside the stream. no_data: stream only.",
        one_of("initial", "no_data"),
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
    Setting(
        "heartbeat.interval.ms",
        "Accepted; the slot moves on over an idle database without heartbeats.",
        whole(0),
        0,
    ),
    Setting(
        "plugin.name",
        "The output plug-in.",
        only("pgoutput", "it is built into every server"),
        "pgoutput",
    ),
    *FOREIGN,
)

DEBEZIUM_DEFAULTS: Mapping[str, Any] = {
    "slot.name": "debezium",
    "publication.name": "dbz_publication",
    "publication.autocreate.mode": "all_tables",
    "skipped.operations": "t",
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
    drop_slot_on_stop: bool
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

    @classmethod
    def of(cls, config: ConnectorConfig) -> SourceSettings:
        """Read a checked configuration. ConfigError where two properties contradict each other."""
        for kind in ("schema", "table", "column", "message.prefix"):
            if config[f"{kind}.include.list"] and config[f"{kind}.exclude.list"]:
                raise ConfigError(
                    f"{kind}.include.list and {kind}.exclude.list are both set",
                    "set one of them",
                )
        return cls(
            connector=config.name,
            prefix=config["topic.prefix"],
            conninfo=_conninfo(config),
            slot=config["slot.name"],
            drop_slot_on_stop=config["slot.drop.on.stop"],
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
            lock_timeout_ms=config["snapshot.lock.timeout.ms"],
            event_trigger=cast("EventTrigger", config["schema.event.trigger"]),
            skip_truncates=config["skipped.operations"] == "t",
            messages=MessagePrefixes(
                config["message.prefix.include.list"], config["message.prefix.exclude.list"]
            ),
            copied=config["snapshot.mode"] != "no_data",
            widest=_FRAMES_TO_RECORDS * _most_message_bytes(config),
        )


_FRAMES_TO_RECORDS = 2
"""A row can be so many times wider in the log than in its record, where numbers are shorter."""


def _most_message_bytes(config: ConnectorConfig) -> int:
    overrides = config.values.get("producer.override.*") or {}
    return int(overrides.get("message.max.bytes", MOST_MESSAGE_BYTES))


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
