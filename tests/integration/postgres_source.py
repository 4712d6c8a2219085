"""A source connector on a database of a test: its configuration, and reading its log to a known end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from cdc.config import ConnectorConfig
from cdc.event import Change, Item, Message
from cdc.protocols import Source
from connectors.postgres import CONNECTOR

END = "test.end"


def source_config(dsn: str, **given: Any) -> ConnectorConfig:
    """A checked configuration; property names with ``_`` for their dots."""
    parts = conninfo_to_dict(dsn)
    raw = {
        "topic.prefix": "shop",
        "database.hostname": parts["host"],
        "database.port": parts["port"],
        "database.user": parts["user"],
        "database.password": parts["password"],
        "database.dbname": parts["dbname"],
        "slot.name": f"slot_{parts['dbname']}",
        **{name.replace("_", "."): value for name, value in given.items()},
    }
    values = {
        setting.name: {} if setting.name.endswith(".*") else setting.default
        for setting in CONNECTOR.source_settings
    } | {
        setting.name: setting.parse(raw[setting.name])
        for setting in CONNECTOR.source_settings
        if setting.name in raw
    }
    return ConnectorConfig("orders", "postgres", "source", "cdc.postgres.Source", values)


def read_until(source: Source, done: Callable[[Item], bool], seconds: float = 20) -> list[Item]:
    """Items up to the first that is ``done``; fails when it does not come."""
    items: list[Item] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for item in source.read(0.1):
            items.append(item)
            if done(item):
                return items
    raise AssertionError(f"the end did not come; {len(items)} items did")


def read_to_now(source: Source) -> list[Item]:
    """Everything that is in the log now."""
    lsn = source.emit(END, b"")

    def is_end(item: Item) -> bool:
        return isinstance(item, Message) and item.prefix == END and item.lsn == lsn

    return read_until(source, is_end)[:-1]


def changes(items: Sequence[Item]) -> list[Change]:
    """The changes among the items."""
    return [item for item in items if isinstance(item, Change)]
