"""What a source connector captures, asked of its checkpoint and its source; and copies made anew."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from cdc.config import ConnectorConfig
from cdc.errors import ConfigError
from cdc.fence import SIGNAL_PREFIX, Signal
from cdc.kafka.checkpoints import read_checkpoint
from cdc.protocols import Source
from cdc.runtime.clients import kafka_cluster
from cdc.runtime.plugins import plugins
from cdc.table import TableId


@dataclass(frozen=True, slots=True)
class CopyState:
    """How far the first copy of a table has come."""

    table: TableId
    state: str
    rows: int

    def to_json(self) -> dict[str, Any]:
        """Stable keys."""
        return {"table": str(self.table), "state": self.state, "rows": self.rows}


def states(config: ConnectorConfig) -> list[CopyState]:
    """Every captured table; ``new`` where the connector has not begun with it."""
    checkpoint = read_checkpoint(kafka_cluster(config), config["offset.storage.topic"], config.name)
    known = checkpoint.backfills if checkpoint else {}
    with closing(_source(config)) as source:
        selected = [table.id for table in source.tables()]
    return [
        CopyState(table, known[table].state, known[table].rows)
        if table in known
        else CopyState(table, "new", 0)
        for table in selected
    ]


def backfill(config: ConnectorConfig, tables: Sequence[TableId]) -> Iterator[TableId]:
    """Ask the connector to copy these anew; each is in the source's log for good when it is yielded."""
    with closing(_source(config)) as source:
        captured = {table.id for table in source.tables()}
        for table in tables:
            if table not in captured:
                raise ConfigError(
                    f"{table} is not captured by {config.name}",
                    f"one of: {', '.join(map(str, sorted(captured))) or '(none yet: start it first)'}",
                )
        for table in tables:
            signal = Signal(
                f"backfill-{uuid.uuid4().hex[:12]}", "backfill", config["topic.prefix"], table
            )
            source.emit(SIGNAL_PREFIX, signal.to_message())
            yield table


def _source(config: ConnectorConfig) -> Source:
    plugin = plugins()[config.plugin]
    if config.role != "source" or plugin.open_source is None:
        raise ConfigError(f"{config.name} is not a source connector", "give the source's file")
    return plugin.open_source(config)
